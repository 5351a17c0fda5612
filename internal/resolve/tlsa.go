package resolve

import (
	"context"
	"encoding/hex"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// Exchangers is what a domain says about where its mail goes.
type Exchangers struct {
	MX     []MX   // the preferred first
	Name   string // where they are, at the end of the CNAMEs
	Secure bool   // a trusted resolver validated it
}

// Addresses are those of a host, of both families.
type Addresses struct {
	IPs    []netip.Addr
	Name   string // where they are, at the end of the CNAMEs
	Secure bool   // a trusted resolver validated all of them
}

// TLSA is one record of RFC 6698.
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      []byte
}

// Exchangers is MX together with whether it was validated.
func (r *Resolver) Exchangers(ctx context.Context, name string) (Exchangers, error) {
	a, err := r.Lookup(ctx, name, dns.TypeMX)
	x := Exchangers{Name: a.Name, Secure: a.Secure}
	for _, rr := range a.Records {
		if mx, ok := rr.(*dns.MX); ok {
			x.MX = append(x.MX, MX{mx.Preference, plain(mx.Mx)})
		}
	}
	slices.SortStableFunc(x.MX, func(a, b MX) int { return int(a.Preference) - int(b.Preference) })
	return x, err
}

// Addresses is IP together with whether it was validated.
func (r *Resolver) Addresses(ctx context.Context, name string) (Addresses, error) {
	type found struct {
		answer Answer
		err    error
	}
	six := make(chan found, 1)
	go func() {
		a, err := r.Lookup(ctx, name, dns.TypeAAAA)
		six <- found{a, err}
	}()
	four, err4 := r.Lookup(ctx, name, dns.TypeA)
	other := <-six
	all := Addresses{Secure: true}
	for _, f := range []found{{four, err4}, other} {
		if ips := addresses(f.answer.Records); len(ips) > 0 {
			all.IPs, all.Name, all.Secure = append(all.IPs, ips...), f.answer.Name, all.Secure && f.answer.Secure
		}
	}
	switch {
	case len(all.IPs) > 0:
		return all, nil
	case IsTemporary(err4):
		return Addresses{}, err4
	case IsTemporary(other.err):
		return Addresses{}, other.err
	}
	return Addresses{}, err4
}

// TLSA returns the TLSA records of a name, and whether they were validated: those that were not mean nothing.
func (r *Resolver) TLSA(ctx context.Context, name string) (all []TLSA, secure bool, err error) {
	a, err := r.Lookup(ctx, name, dns.TypeTLSA)
	return a.TLSA(), a.Secure, err
}

// TLSA is what the TLSA records among those found say.
func (a Answer) TLSA() (all []TLSA) {
	for _, rr := range a.Records {
		tlsa, ok := rr.(*dns.TLSA)
		if !ok {
			continue
		}
		data, err := hex.DecodeString(tlsa.Certificate)
		if err != nil {
			continue // it cannot be matched
		}
		all = append(all, TLSA{tlsa.Usage, tlsa.Selector, tlsa.MatchingType, data})
	}
	return all
}
