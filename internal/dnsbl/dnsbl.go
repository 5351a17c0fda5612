// Package dnsbl knows the DNS block lists that large providers act upon, and what their answers mean: RFC 5782. It looks up nothing.
package dnsbl

import (
	"fmt"
	"net/netip"
	"strings"
)

// List is a list of addresses in the DNS.
type List struct {
	Zone string
	IPv6 bool   // it has IPv6 addresses, too
	Page string // where an address is looked up and taken off
}

// Lists are few on purpose: those that large providers act upon.
var Lists = []List{
	{"zen.spamhaus.org", true, "https://check.spamhaus.org/"},
	{"bl.spamcop.net", false, "https://www.spamcop.net/bl.shtml"},
	{"psbl.surriel.com", false, "https://psbl.org/"},
}

// Query is the name to ask for: RFC 5782 sections 2.1 and 2.4.
func (l List) Query(ip netip.Addr) string {
	if ip.Is4() {
		o := ip.As4()
		return fmt.Sprintf("%d.%d.%d.%d.%s", o[3], o[2], o[1], o[0], l.Zone)
	}
	var b strings.Builder
	octets := ip.As16()
	for i := len(octets) - 1; i >= 0; i-- {
		fmt.Fprintf(&b, "%x.%x.", octets[i]&0xf, octets[i]>>4)
	}
	return b.String() + l.Zone
}

// The answers that mean something other than "listed": 127.255.255.0/24 is a list's way to say that it did not look, and what is
// outside of 127.0.0.0/8 comes from a resolver that lies (RFC 5782 section 2.1).
var (
	refusals = netip.MustParsePrefix("127.255.255.0/24")
	answers  = netip.MustParsePrefix("127.0.0.0/8")
	// policy are the entries of ranges that are to send no mail by themselves, whoever uses them.
	policy = []netip.Addr{netip.MustParseAddr("127.0.0.10"), netip.MustParseAddr("127.0.0.11")}
)

// Listing is what a list says of an address.
type Listing int

// The kinds of listing.
const (
	NotListed Listing = iota
	Listed
	ListedByPolicy
	NotTold
)

// Read judges the answer of a list; no addresses stand for "no such name".
func Read(found []netip.Addr) Listing {
	verdict := NotListed
	for _, a := range found {
		switch {
		case refusals.Contains(a) || !answers.Contains(a):
			return NotTold
		case a == policy[0] || a == policy[1]:
			verdict = max(verdict, ListedByPolicy)
		default:
			return Listed
		}
	}
	return verdict
}
