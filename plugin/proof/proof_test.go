package proof

import (
	"encoding/base64"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

// The two claims of docs/credentials.md, which the Go client is held against too.
var (
	ofToken = Claim{
		Purpose: Login, Mount: "auth/nats/", Role: "dev", Token: "header.payload.signature",
		User: "UAH42UG6PV552P5SWLWTBP3H3S5BHAVCO2IEKEXUANJXR75J63RQ5WM6", Time: 1767225600,
	}
	ofEntity = Claim{
		Purpose: Creds, Mount: "auth/nats/", Role: "ops", Entity: "6e5b4d2c-9f0a-7c41-b3a8-1d2e3f405162",
		User: "UAH42UG6PV552P5SWLWTBP3H3S5BHAVCO2IEKEXUANJXR75J63RQ5WM6", Time: 1767225600,
	}
)

func TestTheTextIsAsDocumented(t *testing.T) {
	guide, err := os.ReadFile("../../docs/credentials.md")
	require.NoError(t, err)
	for _, claim := range []Claim{ofToken, ofEntity} {
		require.Contains(t, string(guide), "```text\n"+claim.Text()+"\n```\n")
		require.True(t, Reserved(claim.Text()))
	}
	spaced := ofToken
	spaced.Token = "\n" + spaced.Token + " "
	require.Equal(t, ofToken.Text(), spaced.Text())
	for _, nonce := range []string{"", "ltpSkJ1Hd2A", "vault", " " + ofToken.Text()} {
		require.False(t, Reserved(nonce), nonce)
	}
}

func TestASignatureProvesWhatItIsOverAndNothingElse(t *testing.T) {
	key, err := nkeys.CreateUser()
	require.NoError(t, err)
	claim := ofEntity
	claim.User, err = key.PublicKey()
	require.NoError(t, err)
	raw, err := key.Sign([]byte(claim.Text()))
	require.NoError(t, err)
	signature, now := base64.StdEncoding.EncodeToString(raw), time.Unix(claim.Time, 0)
	require.NoError(t, claim.Check(signature+"\n", now))
	require.NoError(t, claim.Check(signature, now.Add(MostOff)))
	require.NoError(t, claim.Check(signature, now.Add(-MostOff)))
	require.ErrorContains(t, claim.Check(signature, now.Add(MostOff+1)), "user_key_time is 2026-01-01T00:00:00Z, and it is 2026-01-01T00:05:00Z here: the two may be 5m0s apart")
	require.ErrorContains(t, claim.Check(signature, now.Add(-MostOff-1)), "user_key_time")
	require.ErrorContains(t, claim.Check("?", now), "user_key_signature is not standard base64")
	require.ErrorContains(t, claim.Check(signature[4:], now), "user_key_signature is not by the key")

	for field, change := range map[string]func(*Claim){
		"purpose": func(c *Claim) { c.Purpose = Login },
		"mount":   func(c *Claim) { c.Mount = "auth/other/" },
		"role":    func(c *Claim) { c.Role = "dev" },
		"entity":  func(c *Claim) { c.Entity = strings.Repeat("0", 36) },
		"token":   func(c *Claim) { c.Token = "header.payload.signature" },
		"key":     func(c *Claim) { c.User = ofToken.User },
		"time":    func(c *Claim) { c.Time++ },
	} {
		changed := claim
		change(&changed)
		require.ErrorContains(t, changed.Check(signature, now), "user_key_signature is not by the key of user_public_key over the proof", field)
	}
	for _, time := range []int64{-1 << 63, 0, 1<<63 - 1} {
		changed := claim
		changed.Time = time
		require.ErrorContains(t, changed.Check(signature, now), "user_key_time")
	}
}
