package resolve

import (
	"context"
	"strings"

	"github.com/miekg/dns"
)

// CAA is one record of RFC 8659: who may issue certificates.
type CAA struct {
	Critical bool
	Tag      string // in lower case
	Value    string
}

// CAA returns the CAA records that count for a name, and where they are: RFC 8659 section 3 climbs towards the root until there are
// some. Neither records nor an error means that there are none anywhere.
func (r *Resolver) CAA(ctx context.Context, name string) (records []CAA, at string, err error) {
	for at = plain(name); at != ""; _, at, _ = strings.Cut(at, ".") {
		a, err := r.Lookup(ctx, at, dns.TypeCAA)
		switch {
		case IsTemporary(err):
			return nil, at, err
		case err != nil:
			continue
		}
		for _, rr := range a.Records {
			if caa, ok := rr.(*dns.CAA); ok {
				records = append(records, CAA{caa.Flag&(1<<7) != 0, strings.ToLower(caa.Tag), unescape(caa.Value)})
			}
		}
		return records, at, nil
	}
	return nil, "", nil
}

// Zone returns the zone that a name is in: where the nearest SOA record is.
func (r *Resolver) Zone(ctx context.Context, name string) (string, error) {
	var failed error
	for at := plain(name); at != ""; _, at, _ = strings.Cut(at, ".") {
		a, err := r.Lookup(ctx, at, dns.TypeSOA)
		switch {
		case err == nil && a.Name == at:
			return at, nil
		case IsTemporary(err):
			return "", err
		case failed == nil:
			failed = err
		}
	}
	if failed == nil {
		failed = key{plain(name), dns.TypeSOA}.fail(ErrNoData, "")
	}
	return "", failed
}

// Alias returns the end of the CNAMEs of a name: the name itself where there are none.
func (r *Resolver) Alias(ctx context.Context, name string) (string, error) {
	for range maxChain {
		a, err := r.Lookup(ctx, name, dns.TypeCNAME)
		switch {
		case IsNotFound(err):
			return plain(name), nil
		case err != nil:
			return "", err
		}
		if cname, ok := a.Records[0].(*dns.CNAME); ok {
			name = plain(cname.Target)
		}
	}
	return "", key{plain(name), dns.TypeCNAME}.fail(ErrServer, "a loop of CNAMEs")
}

// AuthoritativeTLSA is Authoritative for TLSA records, which Answer.TLSA reads.
func (r *Resolver) AuthoritativeTLSA(ctx context.Context, name string) ([]Testimony, error) {
	return r.Authoritative(ctx, name, dns.TypeTLSA)
}
