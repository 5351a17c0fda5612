package resolve

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// MX is one mail exchanger. Host is "" for the null MX of RFC 7505.
type MX struct {
	Preference uint16
	Host       string
}

// TXT returns the TXT records of a name, the strings of each joined.
func (r *Resolver) TXT(ctx context.Context, name string) ([]string, error) {
	a, err := r.Lookup(ctx, name, dns.TypeTXT)
	return a.TXT(), err
}

// TXT is what the TXT records among those found say, the strings of each joined.
func (a Answer) TXT() (all []string) {
	for _, rr := range a.Records {
		if txt, ok := rr.(*dns.TXT); ok {
			var b strings.Builder
			for _, s := range txt.Txt {
				b.WriteString(unescape(s))
			}
			all = append(all, b.String())
		}
	}
	return all
}

// AuthoritativeTXT is Authoritative for TXT records.
func (r *Resolver) AuthoritativeTXT(ctx context.Context, name string) ([]Testimony, error) {
	return r.Authoritative(ctx, name, dns.TypeTXT)
}

// A returns the IPv4 addresses of a name.
func (r *Resolver) A(ctx context.Context, name string) ([]netip.Addr, error) {
	a, err := r.Lookup(ctx, name, dns.TypeA)
	return addresses(a.Records), err
}

// AAAA returns the IPv6 addresses of a name.
func (r *Resolver) AAAA(ctx context.Context, name string) ([]netip.Addr, error) {
	a, err := r.Lookup(ctx, name, dns.TypeAAAA)
	return addresses(a.Records), err
}

// IP returns all addresses of a name, asking for both families at once. Where one family has addresses, a failure of the other
// is no failure.
func (r *Resolver) IP(ctx context.Context, name string) ([]netip.Addr, error) {
	type found struct {
		ips []netip.Addr
		err error
	}
	six := make(chan found, 1)
	go func() {
		ips, err := r.AAAA(ctx, name)
		six <- found{ips, err}
	}()
	four, err4 := r.A(ctx, name)
	other := <-six
	all := append(four, other.ips...)
	switch {
	case len(all) > 0:
		return all, nil
	case IsTemporary(err4):
		return nil, err4
	case IsTemporary(other.err):
		return nil, other.err
	}
	return nil, err4
}

func addresses(records []dns.RR) (all []netip.Addr) {
	for _, rr := range records {
		switch rr := rr.(type) {
		case *dns.A:
			if ip, ok := netip.AddrFromSlice(rr.A.To4()); ok {
				all = append(all, ip)
			}
		case *dns.AAAA:
			if ip, ok := netip.AddrFromSlice(rr.AAAA.To16()); ok {
				all = append(all, ip)
			}
		}
	}
	return all
}

// MX returns the mail exchangers of a name, the preferred first.
func (r *Resolver) MX(ctx context.Context, name string) ([]MX, error) {
	a, err := r.Lookup(ctx, name, dns.TypeMX)
	var all []MX
	for _, rr := range a.Records {
		if mx, ok := rr.(*dns.MX); ok {
			all = append(all, MX{mx.Preference, plain(mx.Mx)})
		}
	}
	slices.SortStableFunc(all, func(a, b MX) int { return int(a.Preference) - int(b.Preference) })
	return all, err
}

// PTR returns the names of an address.
func (r *Resolver) PTR(ctx context.Context, ip netip.Addr) ([]string, error) {
	reverse, err := dns.ReverseAddr(ip.Unmap().WithZone("").String())
	if err != nil {
		return nil, &Error{Kind: ErrNotFound, Name: ip.String(), Type: "PTR", Detail: "not an address"}
	}
	a, err := r.Lookup(ctx, reverse, dns.TypePTR)
	var all []string
	for _, rr := range a.Records {
		if ptr, ok := rr.(*dns.PTR); ok {
			all = append(all, plain(ptr.Ptr))
		}
	}
	return all, err
}

// plain is a name in lower case without its final dot.
func plain(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// unescape turns the library's presentation form of a string (RFC 1035 section 5.1) back into octets.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\' || i+1 == len(s):
			b = append(b, s[i])
		case i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]):
			b = append(b, (s[i+1]-'0')*100+(s[i+2]-'0')*10+s[i+3]-'0')
			i += 3
		default:
			b = append(b, s[i+1])
			i++
		}
	}
	return string(b)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
