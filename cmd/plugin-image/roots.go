package main

import (
	"bytes"
	"encoding/pem"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// rootsPath is where Go's programs look for the roots that they trust, on every Linux.
const rootsPath = "etc/ssl/certs/ca-certificates.crt"

// roots are Mozilla's, for the issuers and directories whose certificates are of a public authority: an image has no
// system whose roots could be used. Left out are those that Mozilla trusts for older certificates only, which a file
// of roots cannot say.
func roots() ([]byte, error) {
	var text bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, err
		}
	}
	return text.Bytes(), nil
}
