// Package dane holds a server's certificates against its TLSA records: RFC 6698 as RFC 7672 has it for SMTP. It looks up nothing;
// records that DNSSEC did not validate must not come here.
package dane

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"slices"
	"strings"
	"time"
)

// The certificate usages that count for SMTP: RFC 7672 section 3.1. The other two, which need a public authority, are unusable
// (section 3.1.3).
const (
	usageTA = 2 // an authority that the chain must come from
	usageEE = 3 // the server's own certificate or key
)

const (
	selectCertificate = 0
	selectKey         = 1

	matchFull   = 0
	matchSHA256 = 1
	matchSHA512 = 2
)

// TLSA is one record.
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      []byte
}

// Result is what the records say about a chain of certificates.
type Result int

// The results.
const (
	None     Result = iota // there are no records
	Unusable               // there are records, and none can be checked: TLS is required, and any certificate will do (RFC 7672 section 2.2)
	Failed                 // no record fits
	Verified
)

// String names the result.
func (r Result) String() string {
	return [...]string{"none", "unusable", "failed", "verified"}[r]
}

// Usable tells whether any of the records can be checked.
func Usable(records []TLSA) bool { return slices.ContainsFunc(records, TLSA.usable) }

// usable: RFC 7671 section 10.1 has usages, selectors, matching types and lengths that are not known as unusable.
func (r TLSA) usable() bool {
	if r.Usage != usageTA && r.Usage != usageEE || r.Selector != selectCertificate && r.Selector != selectKey {
		return false
	}
	switch r.Matching {
	case matchFull:
		return len(r.Data) > 0
	case matchSHA256:
		return len(r.Data) == sha256.Size
	case matchSHA512:
		return len(r.Data) == sha512.Size
	}
	return false
}

// Verify holds a chain, the server's own certificate first, against the records. One that fits is enough. names are those that a
// certificate may have where an authority is named: that of the host, and of the domain (RFC 7672 section 3.2.2).
func Verify(chain []*x509.Certificate, records []TLSA, names []string, now time.Time) Result {
	switch {
	case len(records) == 0:
		return None
	case !Usable(records):
		return Unusable
	case len(chain) == 0:
		return Failed
	}
	for _, r := range records {
		if r.usable() && r.fits(chain, names, now) {
			return Verified
		}
	}
	return Failed
}

func (r TLSA) fits(chain []*x509.Certificate, names []string, now time.Time) bool {
	if r.Usage == usageEE {
		return r.matches(chain[0]) // its names and its time do not matter: RFC 7672 section 3.1.1
	}
	if !named(chain[0], names) {
		return false
	}
	return slices.ContainsFunc(r.anchors(chain), func(anchor *x509.Certificate) bool { return issued(anchor, chain, now) })
}

// matches: RFC 6698 section 2.1.
func (r TLSA) matches(c *x509.Certificate) bool {
	selected := c.Raw
	if r.Selector == selectKey {
		selected = c.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case matchSHA256:
		sum := sha256.Sum256(selected)
		selected = sum[:]
	case matchSHA512:
		sum := sha512.Sum512(selected)
		selected = sum[:]
	}
	return bytes.Equal(selected, r.Data)
}

// anchors are the authorities that the record names: those that the server sent (RFC 7672 section 3.1.2), and the one that the
// record itself holds.
func (r TLSA) anchors(chain []*x509.Certificate) (anchors []*x509.Certificate) {
	for _, c := range chain[1:] {
		if r.matches(c) {
			anchors = append(anchors, c)
		}
	}
	if len(anchors) == 0 && r.Selector == selectCertificate && r.Matching == matchFull {
		if c, err := x509.ParseCertificate(r.Data); err == nil {
			anchors = append(anchors, c)
		}
	}
	return anchors
}

// issued tells whether the chain leads from the server's certificate to the anchor, and is valid now.
func issued(anchor *x509.Certificate, chain []*x509.Certificate, now time.Time) bool {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(anchor)
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	// Any use: authorities make certificates for mail servers without the one for web servers.
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

// named tells whether a certificate has one of the names. The common name counts where there are no others: RFC 7672 section
// 3.2.3.
func named(c *x509.Certificate, names []string) bool {
	for _, name := range names {
		name = strings.TrimSuffix(name, ".")
		if name == "" {
			continue
		}
		if c.VerifyHostname(name) == nil || len(c.DNSNames) == 0 && commonName(c.Subject.CommonName, name) {
			return true
		}
	}
	return false
}

// commonName compares as RFC 6125 section 6.4 does: a first label "*" stands for any one label.
func commonName(pattern, name string) bool {
	if strings.EqualFold(pattern, name) {
		return pattern != ""
	}
	domain, wild := strings.CutPrefix(pattern, "*.")
	_, rest, _ := strings.Cut(name, ".")
	return wild && strings.Contains(domain, ".") && strings.EqualFold(domain, rest)
}
