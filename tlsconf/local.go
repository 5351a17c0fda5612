package tlsconf

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// The files of a local authority, in data_dir/tls.
const (
	caCertFile = "ca.pem"
	caKeyFile  = "ca.key"
	certFile   = "cert.pem"
	keyFile    = "key.pem"
)

const (
	caYears     = 10
	certDays    = 90
	renewBefore = 30 * 24 * time.Hour
	backdate    = time.Hour // clients whose clock is a little behind
)

// local is a certificate authority of our own. Authority and keys are made once and kept; the certificate is renewed with
// the same key before it ends.
type local struct {
	dir      string // data_dir
	hostname string
	renewAt  time.Time
}

func (l *local) path(name string) string { return filepath.Join(l.dir, "tls", name) }

func (l *local) interval() time.Duration { return time.Hour }

func (l *local) changed() bool { return !time.Now().Before(l.renewAt) }

func (l *local) load() (*tls.Certificate, error) {
	if err := os.MkdirAll(filepath.Dir(l.path(certFile)), 0o700); err != nil {
		return nil, err
	}
	ca, err := l.authority()
	if err != nil {
		return nil, fmt.Errorf("local certificate authority: %w", err)
	}
	c, err := l.server(ca)
	if err != nil {
		return nil, fmt.Errorf("local certificate: %w", err)
	}
	l.renewAt = c.Leaf.NotAfter.Add(-renewBefore)
	return c, nil
}

// authority returns the certificate authority, and makes it the first time.
func (l *local) authority() (*tls.Certificate, error) {
	ca, err := l.read(caCertFile, caKeyFile)
	if !errors.Is(err, fs.ErrNotExist) {
		return ca, err
	}
	key, err := l.newKey(caKeyFile)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Postroom local authority of " + l.hostname},
		NotBefore:             time.Now().Add(-backdate),
		NotAfter:              time.Now().AddDate(caYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	if err := l.sign(caCertFile, template, template, key, key); err != nil {
		return nil, err
	}
	return l.read(caCertFile, caKeyFile)
}

// server returns the server's certificate, and makes or renews it where needed.
func (l *local) server(ca *tls.Certificate) (*tls.Certificate, error) {
	c, err := l.read(certFile, keyFile)
	if err == nil && l.fits(c, ca) {
		return c, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var key *ecdsa.PrivateKey
	if c != nil {
		key, _ = c.PrivateKey.(*ecdsa.PrivateKey) // a foreign key is replaced
	}
	if key == nil {
		if key, err = l.newKey(keyFile); err != nil {
			return nil, err
		}
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: l.hostname},
		DNSNames:    l.names(),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:   time.Now().Add(-backdate),
		NotAfter:    time.Now().AddDate(0, 0, certDays),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caKey, ok := ca.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is not a key that was made here", l.path(caKeyFile))
	}
	if err := l.sign(certFile, template, ca.Leaf, key, caKey); err != nil {
		return nil, err
	}
	return l.read(certFile, keyFile)
}

func (l *local) names() []string { return []string{l.hostname, "localhost"} }

// fits tells whether the certificate is for this host, from this authority, and good for a while.
func (l *local) fits(c, ca *tls.Certificate) bool {
	return c.Leaf.CheckSignatureFrom(ca.Leaf) == nil && slices.Equal(c.Leaf.DNSNames, l.names()) &&
		time.Now().Before(c.Leaf.NotAfter.Add(-renewBefore)) && time.Now().After(c.Leaf.NotBefore)
}

// read returns fs.ErrNotExist where the certificate is missing.
func (l *local) read(cert, key string) (*tls.Certificate, error) {
	certPEM, err := os.ReadFile(l.path(cert))
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(l.path(key))
	if err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s and %s do not make a certificate (remove both to have them made anew): %w", l.path(cert), l.path(key), err)
	}
	return &c, nil
}

func (l *local) newKey(name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, l.write(name, "PRIVATE KEY", der, 0o600)
}

func (l *local) sign(name string, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1)) // RFC 5280 section 4.1.2.2: positive
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return err
	}
	return l.write(name, "CERTIFICATE", der, 0o644)
}

// write puts a file in its place as a whole.
func (l *local) write(name, kind string, der []byte, mode fs.FileMode) error {
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(l.path(name)), name+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b.Bytes())
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), l.path(name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
