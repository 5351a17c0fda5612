package dane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"os"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/mailtest"
)

// TestVectors runs the public cases; their "behaviour" is that of package delivery.
func TestVectors(t *testing.T) {
	content, err := os.ReadFile(mailtest.Vectors(t, "own-dane", "dane_vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Certificates map[string]string
		Cases        []struct {
			Name    string
			Chain   []string
			Records []struct {
				Usage, Selector, Matching uint8
				Data                      string
			}
			Names  []string `json:"reference_names"`
			Now    time.Time
			Expect string
		}
	}
	if err := json.Unmarshal(content, &v); err != nil {
		t.Fatal(err)
	}
	for _, c := range v.Cases {
		var chain []*x509.Certificate
		for _, name := range c.Chain {
			der, err := base64.StdEncoding.DecodeString(v.Certificates[name])
			if err != nil {
				t.Fatal(err)
			}
			certificate, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			chain = append(chain, certificate)
		}
		var records []TLSA
		for _, r := range c.Records {
			data, err := hex.DecodeString(r.Data)
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, TLSA{r.Usage, r.Selector, r.Matching, data})
		}
		got := Verify(chain, records, c.Names, c.Now)
		if got.String() != c.Expect {
			t.Errorf("%s: %v, want %s", c.Name, got, c.Expect)
		}
		if Usable(records) != (got == Failed || got == Verified) {
			t.Errorf("%s: %v, and usable is %v", c.Name, got, Usable(records))
		}
	}
	t.Logf("%d cases", len(v.Cases))
}

// certificate makes one, signed by itself or by parent.
func certificate(t *testing.T, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func key(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestNames: what counts as the name of a certificate from a named authority.
func TestNames(t *testing.T) {
	caKey, leafKey := key(t), key(t)
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	ca := certificate(t, template, template, caKey, caKey)
	record := []TLSA{{usageTA, selectCertificate, matchFull, ca.Raw}}
	for _, c := range []struct {
		common string
		names  []string
		want   Result
	}{
		{"mx.example.org", nil, Verified},
		{"MX.example.org", nil, Verified},
		{"*.example.org", nil, Verified},
		{"*.org", nil, Failed},
		{"example.org", nil, Failed},
		{"", nil, Failed},
		{"mx.example.org", []string{"other.example.org"}, Failed}, // the common name does not count beside others
		{"", []string{"mx.example.org"}, Verified},
		{"", []string{"*.example.org"}, Verified},
		{"", []string{"*.mx.example.org"}, Failed},
	} {
		leaf := certificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: c.common}, DNSNames: c.names}, ca, leafKey, caKey)
		if got := Verify([]*x509.Certificate{leaf}, record, []string{"", "mx.example.org."}, time.Now()); got != c.want {
			t.Errorf("%q %q: %v", c.common, c.names, got)
		}
	}
	if got := Verify(nil, record, []string{"mx.example.org"}, time.Now()); got != Failed {
		t.Errorf("no certificate: %v", got)
	}
}

// FuzzVerify: no record, however it is made, verifies a certificate that it does not hold.
func FuzzVerify(f *testing.F) {
	f.Add(uint8(3), uint8(1), uint8(1), []byte("12345678901234567890123456789012"))
	f.Add(uint8(2), uint8(0), uint8(0), []byte{0x30, 0x82})
	leaf := &x509.Certificate{Raw: []byte("certificate"), RawSubjectPublicKeyInfo: []byte("key"), DNSNames: []string{"mx.example.org"}}
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		records := []TLSA{{usage, selector, matching, data}}
		got := Verify([]*x509.Certificate{leaf}, records, []string{"mx.example.org"}, time.Now())
		holds := usage == usageEE && records[0].matches(leaf)
		if got == Verified && !holds || (got == Unusable) == Usable(records) {
			t.Errorf("%d %d %d %x: %v", usage, selector, matching, data, got)
		}
	})
}
