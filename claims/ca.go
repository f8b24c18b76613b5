package claims

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"slices"
)

// fingerprints returns the SHA-256 fingerprints of the certificates in a PEM
// text, in order and each once: the bundle as it is, whatever its form. It reads
// what [x509.CertPool.AppendCertsFromPEM] reads.
func fingerprints(text string) []string {
	var prints []string
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			continue
		}
		sum := sha256.Sum256(block.Bytes)
		prints = append(prints, hex.EncodeToString(sum[:]))
	}
	slices.Sort(prints)
	return slices.Compact(prints)
}

// within reports whether all of the certificates are among those of another
// bundle. No certificates stand for the system's, which are no part of a bundle.
func within(prints, bundle []string) bool {
	if len(prints) == 0 || len(bundle) == 0 {
		return len(prints) == len(bundle)
	}
	return !slices.ContainsFunc(prints, func(print string) bool { return !slices.Contains(bundle, print) })
}

// SharesCA reports whether a server that the certificates of one PEM text vouch for
// may be taken for one that those of another did: see KeepsReviewer, which tells why.
func SharesCA(pem, before string) bool {
	if pem == "" && before == "" {
		return true
	}
	known := fingerprints(before)
	return slices.ContainsFunc(fingerprints(pem), func(print string) bool { return slices.Contains(known, print) })
}
