package dnsbl

import (
	"net/netip"
	"testing"
)

// TestRead has a row for each kind of answer; an error code or a lie is never taken for a listing.
func TestRead(t *testing.T) {
	for _, tc := range []struct {
		answer []string
		want   Listing
	}{
		{nil, NotListed},
		{[]string{"127.0.0.2"}, Listed},
		{[]string{"127.0.0.4"}, Listed},
		{[]string{"127.0.0.10"}, ListedByPolicy},
		{[]string{"127.0.0.11"}, ListedByPolicy},
		{[]string{"127.0.0.10", "127.0.0.4"}, Listed},
		{[]string{"127.255.255.252"}, NotTold}, // a name with a slip
		{[]string{"127.255.255.254"}, NotTold}, // through a public resolver
		{[]string{"127.255.255.255"}, NotTold}, // too many questions
		{[]string{"127.255.255.254", "127.0.0.2"}, NotTold},
		{[]string{"198.51.100.7"}, NotTold}, // a resolver that answers everything
	} {
		var found []netip.Addr
		for _, a := range tc.answer {
			found = append(found, netip.MustParseAddr(a))
		}
		if got := Read(found); got != tc.want {
			t.Errorf("%q: %d, want %d", tc.answer, got, tc.want)
		}
	}
}

func TestQuery(t *testing.T) {
	for _, tc := range []struct {
		ip   netip.Addr
		want string
	}{
		{netip.MustParseAddr("192.0.2.5"), "5.2.0.192.zen.spamhaus.org"},
		{netip.MustParseAddr("2001:db8::5"), "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.zen.spamhaus.org"},
	} {
		if got := Lists[0].Query(tc.ip); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.ip, got, tc.want)
		}
	}
}
