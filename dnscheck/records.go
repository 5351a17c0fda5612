package dnscheck

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/mtasts"
)

// Record is one to publish.
type Record struct {
	ID       string // of the check that looks at it
	Name     string // in full, without the final dot
	Type     string
	Priority int // of MX, and of SRV
	Value    string
	Required bool
	Why      string
}

// Records are what the domain needs, in the order in which they are best published: what mail needs first.
func Records(p Profile) []Record {
	domain := p.Domain.ASCII()
	var all []Record
	add := func(required bool, id, name, kind, value, why string) {
		all = append(all, Record{ID: id, Name: name, Type: kind, Value: value, Required: required, Why: why})
	}
	for _, ip := range p.IPs {
		id, kind := "host-a", "A"
		if ip.Is6() {
			id, kind = "host-aaaa", "AAAA"
		}
		add(true, id, p.Hostname, kind, ip.String(), "where this server is")
	}
	all = append(all, Record{ID: "mx", Name: domain, Type: "MX", Priority: 10, Value: p.Hostname, Required: true, Why: "mail for the domain comes here"})
	add(true, "spf", domain, "TXT", spfRecord(p), "mail of the domain leaves from here")
	for _, k := range p.signing() {
		add(k.State == accounts.KeyActive, "dkim:"+k.Selector, keyName(p, k), "TXT", KeyRecord(k), "the key for signatures with "+k.Algorithm)
	}
	add(true, "dmarc", "_dmarc."+domain, "TXT", dmarcRecord(p), "what others do with mail that only pretends to be yours")
	if p.Hostname != domain {
		add(false, "helo", p.Hostname, "TXT", "v=spf1 a -all", "for notices, which have no sender but this name")
	}
	add(false, "tlsrpt", "_smtp._tls."+domain, "TXT", "v=TLSRPTv1; rua=mailto:"+p.Reports, "others report when encryption fails")
	if p.STS != mtasts.None && p.STS != "" {
		add(false, "mta-sts", "_mta-sts."+domain, "TXT", "v=STSv1; id="+p.STSID, "others insist on encryption")
		add(false, "mta-sts-policy", "mta-sts."+domain, "CNAME", p.Hostname, "where its policy is read")
	}
	for _, value := range p.TLSA {
		if !p.KeepKeys {
			break // the next one would be wrong, and mail would not arrive
		}
		add(false, "tlsa", "_25._tcp."+p.Hostname, "TLSA", value, "the same through DNSSEC, where the zone is signed")
	}
	for _, ca := range p.CAs {
		add(false, "caa", p.Hostname, "CAA", fmt.Sprintf("0 issue %q", ca), "nobody else makes certificates for it")
	}
	for _, s := range services(p) {
		all = append(all, Record{ID: "srv:" + s.name, Name: "_" + s.name + "._tcp." + domain, Type: "SRV", Value: s.value(p.Hostname), Why: s.why})
	}
	if p.Web {
		add(false, "autoconfig", "autoconfig."+domain, "CNAME", p.Hostname, "Thunderbird finds its settings")
		add(false, "autodiscover", "autodiscover."+domain, "CNAME", p.Hostname, "Outlook finds its settings")
	}
	return all
}

func keyName(p Profile, k accounts.DKIMKey) string {
	return k.Selector + "._domainkey." + p.Domain.ASCII()
}

// KeyRecord is what is published for a key: RFC 6376 section 3.6.1.
func KeyRecord(k accounts.DKIMKey) string {
	kind, _, _ := strings.Cut(k.Algorithm, "-")
	return "v=DKIM1; k=" + kind + "; p=" + k.Public
}

// spfRecord allows the addresses of the exchangers, and where they are known names them, which costs verifiers no look-up: RFC 7208
// section 4.6.4.
func spfRecord(p Profile) string {
	var b strings.Builder
	b.WriteString("v=spf1")
	for _, ip := range p.IPs {
		if ip.Is6() {
			fmt.Fprintf(&b, " ip6:%s", ip)
		} else {
			fmt.Fprintf(&b, " ip4:%s", ip)
		}
	}
	b.WriteString(" mx ~all")
	return b.String()
}

// dmarcRecord begins with p=none: reports first, RFC 9989 section 5.
func dmarcRecord(p Profile) string { return "v=DMARC1; p=none; rua=mailto:" + p.Reports }

// service is a SRV record for mail programs: RFC 6186, RFC 8314 section 5.1.
type service struct {
	name string
	port int // 0: it is not offered
	why  string
}

func services(p Profile) []service {
	return []service{
		{"submissions", cmp.Or(p.Submissions, 465), "mail programs find where to send"},
		{"pop3s", cmp.Or(p.POP3S, 995), "mail programs find where to fetch"},
		{"imaps", 0, "there is no IMAP here: mail programs need not try"},
	}
}

// value is what stands behind the priority.
func (s service) value(host string) string {
	if s.port == 0 {
		return "0 0 ."
	}
	return fmt.Sprintf("1 %d %s", s.port, host)
}

// text is the record as Texts has it.
func (r Record) text() string {
	switch r.Type {
	case "MX", "SRV":
		return fmt.Sprintf("%d %s", r.Priority, r.Value)
	}
	return r.Value
}

// Relative is the name as most panels want it: without the domain, and "@" for the domain itself. A name that is not in the domain stays
// as it is.
func (r Record) Relative(domain string) string {
	if r.Name == domain {
		return "@"
	}
	return strings.TrimSuffix(r.Name, "."+domain)
}

// Strings are a TXT value in pieces of at most 255 octets: RFC 1035 section 3.3.14.
func (r Record) Strings() (all []string) {
	rest := r.Value
	for len(rest) > 255 {
		all, rest = append(all, rest[:255]), rest[255:]
	}
	return append(all, rest)
}

// ZoneLine is the record for a BIND zone.
func (r Record) ZoneLine() string {
	value := r.Value
	switch r.Type {
	case "TXT":
		quoted := make([]string, 0, 2)
		for _, s := range r.Strings() {
			quoted = append(quoted, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)+`"`)
		}
		value = strings.Join(quoted, " ")
	case "MX", "SRV", "CNAME":
		value = strings.TrimSuffix(r.text(), ".") + "."
	}
	return fmt.Sprintf("%s. 3600 IN %s %s", r.Name, r.Type, value)
}
