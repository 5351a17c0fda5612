package resolve_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/resolve/zone"
)

func caaResolver(t *testing.T, z *zone.Zone) *resolve.Resolver {
	t.Helper()
	r, err := resolve.New(resolve.Options{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}, Exchange: z})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// TestCAA climbs: RFC 8659 section 3.
func TestCAA(t *testing.T) {
	z := zone.MustParse(`
		example.org. 60 IN CAA 0 issue "ca.example; validationmethods=dns-01"
		example.org. 60 IN CAA 128 Future "x"
		own.example.org. 60 IN CAA 0 issuewild ";"
		mail.example.org. 60 IN A 192.0.2.1
		alias.example.org. 60 IN CNAME www.example.net.
		www.example.net. 60 IN CAA 0 issue "alias.example"
		example.net. 60 IN CAA 0 issue "net.example"
		bare.example. 60 IN A 192.0.2.2
		mail.broken.example. 60 IN A 192.0.2.2
	`)
	z.SetFault("broken.example", zone.ServFail)
	r := caaResolver(t, z)
	for _, tc := range []struct{ name, want, at string }{
		{"Mail.Example.ORG.", `[{false issue ca.example; validationmethods=dns-01} {true future x}]`, "example.org"},
		{"a.b.c.example.org", `[{false issue ca.example; validationmethods=dns-01} {true future x}]`, "example.org"},
		{"x.own.example.org", `[{false issuewild ;}]`, "own.example.org"},
		{"alias.example.org", `[{false issue alias.example}]`, "alias.example.org"},
		{"bare.example", `[]`, ""},
	} {
		got, at, err := r.CAA(t.Context(), tc.name)
		if err != nil || fmt.Sprint(got) != tc.want || at != tc.at {
			t.Errorf("%s: %v at %q, %v; want %s at %q", tc.name, got, at, err, tc.want, tc.at)
		}
	}
	if _, _, err := r.CAA(t.Context(), "mail.broken.example"); !resolve.IsTemporary(err) {
		t.Errorf("what cannot be looked up: %v", err)
	}
}

func TestZoneAndAlias(t *testing.T) {
	z := zone.MustParse(`
		example.org. 60 IN SOA ns. h. 1 1 1 1 1
		sub.example.org. 60 IN SOA ns. h. 1 1 1 1 1
		_acme-challenge.mail.example.org. 60 IN CNAME mail.acme.example.
		mail.acme.example. 60 IN CNAME x.acme.example.
		a.loop.example. 60 IN CNAME b.loop.example.
		b.loop.example. 60 IN CNAME a.loop.example.
		acme.example. 60 IN SOA ns. h. 1 1 1 1 1
	`)
	z.SetFault("a.broken.example", zone.ServFail)
	r := caaResolver(t, z)
	for name, want := range map[string]string{
		"example.org": "example.org", "a.b.example.org": "example.org", "x.sub.example.org": "sub.example.org",
		"_acme-challenge.mail.example.org": "example.org", "nowhere.test": "", "a.broken.example": "",
	} {
		if got, err := r.Zone(t.Context(), name); got != want || (err == nil) != (want != "") {
			t.Errorf("zone of %s: %q, %v; want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]string{
		"_acme-challenge.mail.example.org": "x.acme.example", "_acme-challenge.other.example.org": "_acme-challenge.other.example.org", "a.loop.example": "",
	} {
		if got, err := r.Alias(t.Context(), name); got != want || (err == nil) != (want != "") {
			t.Errorf("alias of %s: %q, %v; want %q", name, got, err, want)
		}
	}
}
