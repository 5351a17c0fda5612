package dmarc

import (
	"errors"
	"net/url"
	"strings"
)

// Policy is what a domain asks to do with mail that fails: RFC 9989 section 4.7.
type Policy string

// The policies.
const (
	None       Policy = "none"
	Quarantine Policy = "quarantine"
	Reject     Policy = "reject"
)

// Lower is the policy one step milder, which a domain that is still testing (t=y) gets: RFC 9989 section 4.7.
func (p Policy) Lower() Policy {
	if p == Reject {
		return Quarantine
	}
	return None
}

// stricter is the one of two policies that asks for more.
func stricter(a, b Policy) Policy {
	if a == Reject || b == None {
		return a
	}
	return b
}

// Record is a DMARC policy record, RFC 9989 section 4.7, with the defaults filled in.
type Record struct {
	Policy         Policy
	Subdomains     Policy // sp=, else p=
	NonExistent    Policy // np=, else sp=
	StrictDKIM     bool   // adkim=s
	StrictSPF      bool   // aspf=s
	PSD            byte   // 'y', 'n', or 'u' where it is not said
	Testing        bool   // t=y
	AggregateTo    []string
	FailureTo      []string
	FailureOptions string
}

// Why a text is not a record.
var (
	ErrNotDMARC = errors.New("not a DMARC record")
	ErrNoPolicy = errors.New("a DMARC record without a policy")
)

// maxRecord bounds a record. One that is longer is not meant to be read.
const maxRecord = 16 << 10

// ParseRecord reads a record. Section 4.7: v=DMARC1 comes first and is exact; tags that are unknown, and the historic pct, rf
// and ri, are ignored; so is what is malformed, which then has its default. Of a tag that is there twice the first counts. A
// record without a valid p=, or with an sp= or np= that is none, asks for nothing when it wants reports, and for no DMARC
// at all when it does not.
func ParseRecord(text string) (Record, error) {
	if len(text) > maxRecord {
		return Record{}, ErrNotDMARC
	}
	version, rest, _ := strings.Cut(text, ";")
	name, value, _ := strings.Cut(version, "=")
	if strings.Trim(name, " \t") != "v" || strings.Trim(value, " \t") != "DMARC1" {
		return Record{}, ErrNotDMARC
	}
	tags := map[string]string{}
	for part := range strings.SplitSeq(rest, ";") {
		name, value, ok := strings.Cut(part, "=")
		name = strings.ToLower(strings.Trim(name, " \t"))
		if _, twice := tags[name]; ok && !twice {
			tags[name] = strings.Trim(value, " \t")
		}
	}
	r := Record{
		StrictDKIM: strings.EqualFold(tags["adkim"], "s"), StrictSPF: strings.EqualFold(tags["aspf"], "s"), PSD: 'u',
		Testing: strings.EqualFold(tags["t"], "y"), AggregateTo: uris(tags["rua"]), FailureTo: uris(tags["ruf"]), FailureOptions: tags["fo"],
	}
	if psd := strings.ToLower(tags["psd"]); psd == "y" || psd == "n" {
		r.PSD = psd[0]
	}
	return r, r.setPolicies(tags)
}

// setPolicies reads p=, sp= and np=.
func (r *Record) setPolicies(tags map[string]string) error {
	p, valid := policyOf(tags, "p", "")
	sp, validSP := policyOf(tags, "sp", p)
	np, validNP := policyOf(tags, "np", sp)
	if valid && validSP && validNP && p != "" {
		r.Policy, r.Subdomains, r.NonExistent = p, sp, np
		return nil
	}
	if len(r.AggregateTo) == 0 {
		return ErrNoPolicy
	}
	r.Policy, r.Subdomains, r.NonExistent = None, None, None
	return nil
}

// policyOf reads one tag.
func policyOf(tags map[string]string, name string, otherwise Policy) (p Policy, valid bool) {
	value, ok := tags[name]
	if !ok {
		return otherwise, true
	}
	switch p = Policy(strings.ToLower(value)); p {
	case None, Quarantine, Reject:
		return p, true
	}
	return otherwise, false
}

// uris are the valid ones of a list of report addresses: RFC 9990 section 3.1 allows any scheme, and mailto is used.
func uris(list string) (all []string) {
	for part := range strings.SplitSeq(list, ",") {
		part = strings.Trim(part, " \t")
		plain, _, _ := strings.Cut(part, "!") // a size limit of RFC 7489
		u, err := url.Parse(plain)
		if err == nil && u.Scheme != "" && (u.Opaque != "" || u.Host != "") {
			all = append(all, part)
		}
	}
	return all
}
