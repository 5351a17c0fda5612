package resolve

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// The types of records that Lookup and Authoritative are asked for by name.
const (
	TypeA     = dns.TypeA
	TypeAAAA  = dns.TypeAAAA
	TypeCAA   = dns.TypeCAA
	TypeCNAME = dns.TypeCNAME
	TypeMX    = dns.TypeMX
	TypeNS    = dns.TypeNS
	TypePTR   = dns.TypePTR
	TypeSOA   = dns.TypeSOA
	TypeSRV   = dns.TypeSRV
	TypeTLSA  = dns.TypeTLSA
	TypeTXT   = dns.TypeTXT
)

// TypeName is the name of a type, as in a zone file.
func TypeName(qtype uint16) string { return dns.TypeToString[qtype] }

// Texts are the records found in one form for each type, so that they can be compared: names in lower case without the final dot, the
// strings of TXT joined, hexadecimal in lower case.
func (a Answer) Texts() (all []string) {
	for _, rr := range a.Records {
		all = append(all, text(rr))
	}
	return all
}

func text(rr dns.RR) string {
	switch rr := rr.(type) {
	case *dns.A, *dns.AAAA:
		if ips := addresses([]dns.RR{rr}); len(ips) == 1 {
			return ips[0].String()
		}
	case *dns.CAA:
		return fmt.Sprintf("%d %s %s", rr.Flag, strings.ToLower(rr.Tag), strconv.Quote(rr.Value))
	case *dns.CNAME:
		return plain(rr.Target)
	case *dns.MX:
		return strings.TrimSpace(fmt.Sprintf("%d %s", rr.Preference, dot(rr.Mx)))
	case *dns.NS:
		return plain(rr.Ns)
	case *dns.PTR:
		return plain(rr.Ptr)
	case *dns.SOA:
		return fmt.Sprintf("%s %s %d", plain(rr.Ns), plain(rr.Mbox), rr.Serial)
	case *dns.SRV:
		return fmt.Sprintf("%d %d %d %s", rr.Priority, rr.Weight, rr.Port, dot(rr.Target))
	case *dns.TLSA:
		return fmt.Sprintf("%d %d %d %s", rr.Usage, rr.Selector, rr.MatchingType, strings.ToLower(rr.Certificate))
	case *dns.TXT:
		return Answer{Records: []dns.RR{rr}}.TXT()[0]
	}
	return strings.TrimPrefix(rr.String(), rr.Header().String())
}

// dot is a plain name, or "." for the root, which says that there is none.
func dot(name string) string {
	if name = plain(name); name == "" {
		return "."
	}
	return name
}

// ReverseName is the name whose PTR records are those of an address, without the final dot.
func ReverseName(ip netip.Addr) string {
	name, err := dns.ReverseAddr(ip.Unmap().WithZone("").String())
	if err != nil {
		return "" // no address has no name
	}
	return plain(name)
}
