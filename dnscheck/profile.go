package dnscheck

import (
	"net/netip"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/mtasts"
)

// Profile is what this server is for a domain.
type Profile struct {
	Domain   addr.Domain
	Hostname string             // that exchangers, clients and certificates are named by
	IPs      []netip.Addr       // public addresses of this machine; none: it is behind NAT, and what Hostname leads to counts
	Keys     []accounts.DKIMKey // of the domain
	TLSA     []string           // "3 1 1 …" of the keys that are served, or will be next; none: keys are not kept
	CAs      []string           // that certificates are ordered from, as CAA names them; none: they come from elsewhere
	STS      mtasts.Mode        // of the policy that is served; None: none is
	STSID    string
	Reports  string // the address that reports about the domain go to
	Web      bool   // autoconfig and autodiscover are served
	Ports    []int  // that clients use, with TLS from the first octet or STARTTLS: of 25, 465, 587, 995
}

// addresses are those of one family.
func (p Profile) addresses(six bool) (all []netip.Addr) {
	for _, ip := range p.IPs {
		if ip.Is6() == six {
			all = append(all, ip)
		}
	}
	return all
}

// signing are the keys whose records are needed.
func (p Profile) signing() (all []accounts.DKIMKey) {
	for _, k := range p.Keys {
		if k.State != accounts.KeyRetired {
			all = append(all, k)
		}
	}
	return all
}
