package tlsconf

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// Look describes the certificate of sources files and local, without making one.
func Look(o Options) (Status, error) {
	file := o.CertFile
	if o.Source == "local" {
		file = (&local{dir: o.DataDir}).path(certFile)
	}
	text, err := readFile(file)
	if err != nil {
		return Status{}, fmt.Errorf("tls: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return Status{}, fmt.Errorf("tls: %s: %w", file, errors.New("it has no certificate in PEM"))
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return Status{}, fmt.Errorf("tls: %s: %w", file, err)
	}
	return Status{Name: o.Hostname, State: Good, Issuer: issuerOf(leaf), Expires: leaf.NotAfter, Keys: []Key{{TLSA: tlsaOf(leaf.PublicKey)}}}, nil
}
