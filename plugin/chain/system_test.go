package chain

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/proof"
)

// A nats-server that is not what it seems may send any text as its nonce.
func TestTheUserThatDeliversSignsNoProofOfItsKey(t *testing.T) {
	m := newMount(t)
	_, sign, err := m.systemUser(t.Context(), m.storage)
	require.NoError(t, err)
	_, err = sign([]byte(proof.Claim{Purpose: proof.Creds, User: "U"}.Text()))
	require.ErrorContains(t, err, "the server's nonce is the text of a proof")
	signature, err := sign([]byte("ltpSkJ1Hd2A"))
	require.NoError(t, err)
	require.NotEmpty(t, signature)
}
