package delivery

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/resolve/zone"
)

// newSelf is a server with these addresses, and a resolver that knows its names.
func newSelf(t *testing.T, z *zone.Zone, interfaces ...string) *Self {
	t.Helper()
	r, err := resolve.New(resolve.Options{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}, Exchange: z})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return &Self{
		Hostname: "mail.example.org", Resolver: r,
		Allows: func(_ context.Context, ip netip.Addr, from addr.Domain) bool {
			return from.ASCII() == "example.org" && ip != netip.MustParseAddr("2001:db8::5")
		},
		Interfaces: func() (all []netip.Addr, err error) {
			for _, text := range interfaces {
				all = append(all, netip.MustParseAddr(text))
			}
			return all, nil
		},
	}
}

// ownNames gives the addresses whose last group is the digit a name that leads back to it, or not.
func ownNames() *zone.Zone {
	return zone.MustParse(`
		mail.example.org. 60 IN A 198.51.100.1
		mail.example.org. 60 IN AAAA 2001:db8::1
		other.example.org. 60 IN AAAA 2001:db8::9
		five.example.org. 60 IN AAAA 2001:db8::5
		1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 60 IN PTR nobody.example.org.
		1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 60 IN PTR mail.example.org.
		2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 60 IN PTR other.example.org.
		3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 60 IN PTR nobody.example.org.
		5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 60 IN PTR five.example.org.
	`)
}

// TestSource shows which IPv6 address mail leaves from.
func TestSource(t *testing.T) {
	for _, tc := range []struct {
		name       string
		interfaces []string
		from       string
		want       string
	}{
		{"confirmed and allowed", []string{"192.0.2.1", "2001:db8::1"}, "example.org", "2001:db8::1"},
		{"the second is", []string{"2001:db8::2", "2001:db8::1"}, "example.org", "2001:db8::1"},
		{"none", []string{"192.0.2.1"}, "example.org", ""},
		{"its name leads elsewhere", []string{"2001:db8::2"}, "example.org", ""},
		{"its name does not exist", []string{"2001:db8::3"}, "example.org", ""},
		{"it has no name", []string{"2001:db8::4"}, "example.org", ""},
		{"confirmed, and SPF does not allow it", []string{"2001:db8::5"}, "example.org", ""},
		{"not for this domain", []string{"2001:db8::1"}, "other.example", ""},
		{"for this network alone", []string{"fe80::1", "fd00::1", "::1"}, "example.org", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				from, err := addr.ParseDomain(tc.from)
				if err != nil {
					t.Fatal(err)
				}
				s := newSelf(t, ownNames(), tc.interfaces...)
				got, ok := s.IPv6(t.Context(), from)
				if ok != (tc.want != "") || ok && got.String() != tc.want {
					t.Errorf("%v, %t; want %q", got, ok, tc.want)
				}
			})
		})
	}
}

// TestSlowReverse: name servers that do not answer hold up one letter, and not for long.
func TestSlowReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := ownNames()
		for _, n := range []string{"1", "2", "3"} {
			z.SetFault(n+".0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", zone.Timeout)
		}
		s := newSelf(t, z, "2001:db8::1", "2001:db8::2", "2001:db8::3")
		began := time.Now()
		var asking sync.WaitGroup
		for range 10 {
			asking.Go(func() { s.Own(t.Context(), netip.MustParseAddr("192.0.2.1")) })
		}
		asking.Wait()
		if !s.Own(t.Context(), netip.MustParseAddr("198.51.100.1")) { // of Hostname
			t.Error("what was found in time is forgotten")
		}
		if took := time.Since(began); took > selfTimeout {
			t.Errorf("it took %v", took)
		}
	})
}

// TestOwn shows which addresses are this server's, and that they are looked at again.
func TestOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := ownNames()
		s := newSelf(t, z, "10.0.0.5")
		check := func(text string, want bool) {
			t.Helper()
			if got := s.Own(t.Context(), netip.MustParseAddr(text)); got != want {
				t.Errorf("%s: %t", text, got)
			}
		}
		for _, own := range []string{"127.0.0.1", "::1", "0.0.0.0", "::", "10.0.0.5", "::ffff:10.0.0.5", "198.51.100.1", "2001:db8::1"} {
			check(own, true)
		}
		check("192.0.2.1", false)
		check("10.0.0.6", false)
		asked := z.Queries()
		check("10.0.0.6", false)
		if z.Queries() != asked {
			t.Error("asked again at once")
		}
		s.Interfaces = func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("10.0.0.6")}, nil }
		check("10.0.0.6", false)
		time.Sleep(selfTTL)
		check("10.0.0.6", true)
		s.Interfaces = func() ([]netip.Addr, error) { return nil, errors.New("no") }
		z.SetFault("mail.example.org", zone.Timeout)
		time.Sleep(selfTTL)
		check("127.0.0.1", true)
		check("10.0.0.6", false)
	})
}
