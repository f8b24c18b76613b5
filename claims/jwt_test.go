package claims

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryKeySourceVerifiesEveryAlgorithm(t *testing.T) {
	var keys []string
	seen := map[string]bool{}
	var signers []signer
	for _, s := range allSigner() {
		if !seen[s.kid] {
			seen[s.kid] = true
			keys = append(keys, s.pem())
			signers = append(signers, s)
		}
	}
	server := newIssuer(t, signers...)
	sources := map[string]JWTConfig{
		"static keys":    {Name: "gitlab", ValidationPubKeys: keys},
		"JWKS":           server.jwks(),
		"JWKS pairs":     {Name: "gitlab", JWKSPairs: []JWKSPair{{JWKSURL: server.URL + "/jwks", JWKSCAPEM: server.ca()}}},
		"OIDC discovery": server.discovery(),
	}
	for name, cfg := range sources {
		j := newJWT(t, cfg)
		require.NoError(t, j.Check(context.Background()), name)
		for _, s := range allSigner() {
			t.Run(name+" "+s.alg, func(t *testing.T) {
				identity, err := j.Verify(context.Background(), s.mint(payload(nil)), now, forVault)
				require.NoError(t, err)
				profile := identity.Profile()
				require.Equal(t, "gitlab", profile.Issuer)
				require.Equal(t, KindJWT, profile.Kind)
				require.Nil(t, profile.ServiceAccount)
				require.Equal(t, "project_path:orders/api", profile.Claims["sub"])
				require.Equal(t, json.Number("1704067500"), profile.Claims["exp"])
			})
		}
	}
}
