package dnscheck

import (
	"net/netip"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/mtasts"
)

// Profile is what this server is for a domain.
type Profile struct {
	Domain             addr.Domain
	Hostname           string             // that exchangers, clients and certificates are named by
	IPs                []netip.Addr       // public addresses that mail leaves from, and comes to
	Also               []netip.Addr       // other public addresses of this machine
	Behind4            bool               // IPv4 is behind NAT, and what Hostname leads to counts
	Behind6            bool               // the same of IPv6
	Relayed            bool               // all mail leaves through a smarthost
	Keys               []accounts.DKIMKey // of the domain
	TLSA               []string           // "3 1 1 …" of the keys that are served, or will be next
	KeepKeys           bool               // certificates are renewed with the same key, so that TLSA records may be published
	CAs                []string           // that certificates are ordered from, as CAA names them; none: they come from elsewhere
	STS                mtasts.Mode        // of the policy that is served; None: none is
	STSID              string
	Reports            string // the address that reports about the domain go to
	Web                bool   // autoconfig and autodiscover are served
	Submissions, POP3S int    // the ports with TLS from the first octet; 0: 465 and 995
	Ports              []int  // that clients use, with TLS from the first octet or STARTTLS: of 25, 465, 587, 995
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

// behind tells whether the public addresses of a family are not known here.
func (p Profile) behind(six bool) bool {
	if len(p.IPs) == 0 {
		return true
	}
	return len(p.addresses(six)) == 0 && (six && p.Behind6 || !six && p.Behind4)
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
