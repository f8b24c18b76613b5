package claims

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkVerify is to be compared with BenchmarkSignature: the difference is
// what a login pays here beyond the check of the signature.
func BenchmarkVerify(b *testing.B) {
	server := newIssuer(b, rs256(), es256(), eddsa())
	j := newJWT(b, server.discovery())
	require.NoError(b, j.Check(context.Background()))
	for _, s := range []signer{rs256(), es256(), eddsa()} {
		token := s.mint(githubPayload)
		b.Run(s.alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := j.Verify(context.Background(), token, now, forVault); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSignature is the check of the signature alone.
func BenchmarkSignature(b *testing.B) {
	for _, s := range []signer{rs256(), es256(), eddsa()} {
		t, err := parseToken(s.mint(githubPayload), nil)
		require.NoError(b, err)
		public := s.private.Public()
		b.Run(s.alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !t.alg.verify(public, t.signed, t.signature) {
					b.Fatal("signature is wrong")
				}
			}
		})
	}
}

// BenchmarkDecode is the decoding of the claims.
func BenchmarkDecode(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeObject(githubPayload); err != nil {
			b.Fatal(err)
		}
	}
}
