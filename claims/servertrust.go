package claims

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A serverTrust changes how the certificate of an issuer's server is looked at. Its
// zero value changes nothing.
type serverTrust struct {
	names   []string                // of which the certificate must have one; none: that of the URL
	ignored []asn1.ObjectIdentifier // critical extensions that may stand in it
}

func (cfg *JWTConfig) serverTrust() (serverTrust, error) {
	trust := serverTrust{names: cfg.AllowedServerNames}
	if slices.Contains(trust.names, "") {
		return trust, errors.New("override_allowed_server_names has an empty value")
	}
	for _, text := range cfg.UnsupportedCriticalExtensions {
		oid, err := parseOID(text)
		if err != nil {
			return trust, fmt.Errorf("unsupported_critical_cert_extensions has %q, which is not an OID such as 2.5.29.54", text)
		}
		trust.ignored = append(trust.ignored, oid)
	}
	return trust, nil
}

func parseOID(text string) (asn1.ObjectIdentifier, error) {
	parts := strings.Split(text, ".")
	oid := make(asn1.ObjectIdentifier, len(parts))
	for i, part := range parts {
		number, err := strconv.ParseUint(part, 10, 31)
		if err != nil {
			return nil, err
		}
		oid[i] = int(number)
	}
	if len(oid) < 2 {
		return nil, errors.New("has one number")
	}
	return oid, nil
}

// apply has connections verified this way. Go's own verification is replaced by
// the same one with other answers to two questions, and done for resumed
// connections too.
func (t serverTrust) apply(config *tls.Config) {
	if len(t.names) == 0 && len(t.ignored) == 0 {
		return
	}
	roots := config.RootCAs
	config.InsecureSkipVerify = true // VerifyConnection verifies
	config.VerifyConnection = func(state tls.ConnectionState) error { return t.verify(state, roots) }
}

func (t serverTrust) verify(state tls.ConnectionState, roots *x509.CertPool) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("server has no certificate")
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	if len(t.names) == 0 {
		if options.DNSName = state.ServerName; options.DNSName == "" {
			// Go tells of no name where the URL has an address, and would check none.
			return errors.New("server is named by an IP address, which cannot be checked with unsupported_critical_cert_extensions: name it in override_allowed_server_names")
		}
	}
	for _, certificate := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(t.understood(certificate))
	}
	leaf := t.understood(state.PeerCertificates[0])
	if _, err := leaf.Verify(options); err != nil {
		return err
	}
	if len(t.names) == 0 || slices.ContainsFunc(t.names, func(name string) bool { return leaf.VerifyHostname(name) == nil }) {
		return nil
	}
	return fmt.Errorf("server's certificate has none of the names %s", strings.Join(t.names, ", "))
}

// understood is the certificate without the extensions that are to be ignored.
func (t serverTrust) understood(certificate *x509.Certificate) *x509.Certificate {
	if len(certificate.UnhandledCriticalExtensions) == 0 {
		return certificate
	}
	changed := *certificate
	changed.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(certificate.UnhandledCriticalExtensions), func(oid asn1.ObjectIdentifier) bool {
		return slices.ContainsFunc(t.ignored, oid.Equal)
	})
	return &changed
}
