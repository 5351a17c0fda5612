package delivery

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/internal/dane"
	"github.com/postroom/postroom/internal/mtasts"
	"github.com/postroom/postroom/internal/resolve"
)

// tlsaName is where the TLSA records of a host are. RFC 7672 section 2.2.3.
func tlsaName(port uint16, base string) string {
	return "_" + strconv.Itoa(int(port)) + "._tcp." + base
}

// tlsaRecord is one record that a certificate is held against.
type tlsaRecord = dane.TLSA

func tlsaRecords(found []resolve.TLSA) []tlsaRecord {
	records := make([]tlsaRecord, len(found))
	for i, r := range found {
		records[i] = tlsaRecord{Usage: r.Usage, Selector: r.Selector, Matching: r.Matching, Data: r.Data}
	}
	return records
}

// usable tells whether any of the records can be checked. RFC 7672 section 2.2.
func usable(records []tlsaRecord) bool { return dane.Usable(records) }

// pinnedTo tells whether a chain is what the records name.
func pinnedTo(chain []*x509.Certificate, records []tlsaRecord, names []string, now time.Time) bool {
	return dane.Verify(chain, records, names, now) == dane.Verified
}

// stsPolicy is the content of a policy file.
type stsPolicy = mtasts.Policy

func parseTXT(records []string) (id string, err error) { return mtasts.ParseTXT(records) }

func parsePolicy(content []byte) (stsPolicy, error) { return mtasts.ParsePolicy(content) }

// modeOf is the mode of a policy. What is neither enforce nor testing asks for nothing.
func modeOf(p stsPolicy) stsMode {
	switch p.Mode {
	case mtasts.Enforce:
		return stsEnforce
	case mtasts.Testing:
		return stsTesting
	}
	return stsNone
}

func maxAge(p stsPolicy) time.Duration { return p.MaxAge }

// key is what an idle connection must have in common with one to ip.
func (t *target) key(ip, source netip.Addr) poolKey {
	p := t.policy
	k := poolKey{host: t.host, port: t.port, six: ip.Is6(), source: source, policy: p.label() + " " + strconv.Itoa(int(p.need)), requireTLS: p.requireTLS}
	if t.host == "" {
		k.host = ip.String()
	}
	if t.relay != nil {
		k.login = strconv.FormatInt(t.relay.row, 10)
	}
	if len(t.records) > 0 {
		k.pins = strings.Join(t.names, " ") + ";" // which certificates fit depends on the domain that the host stands for
	}
	for _, r := range t.records {
		k.pins += fmt.Sprintf("%d %d %d %x;", r.Usage, r.Selector, r.Matching, r.Data)
	}
	return k
}
