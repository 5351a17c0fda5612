package dnscheck

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/postroom/postroom/auth/spf"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/dnsbl"
	"github.com/postroom/postroom/internal/resolve"
)

// nameServers looks at the servers of the domain: each must answer, know the zone, and have its newest version.
func (c *checker) nameServers(ctx context.Context) []Check {
	domain := c.p.Domain.ASCII()
	k := Check{ID: "ns", Name: domain, Type: "NS"}
	v := c.look(ctx, domain, resolve.TypeSOA)
	for _, s := range v.by {
		k.Found = append(k.Found, s.server)
	}
	switch {
	case v.nothing:
		k.Status, k.Required, k.Fix = Missing, true, "register "+domain+", or ask the registrar why it is not delegated"
	case len(v.by) == 0:
		k.Status, k.Fix = Unknown, "no name server of "+domain+" answered here: a firewall that keeps port 53 to itself, or they are down"
		_, err := c.dns.Lookup(ctx, domain, resolve.TypeSOA)
		k.Required = err != nil // else the world sees them
	case len(v.silent) > 0:
		k.Status, k.Fix = Wrong, strings.Join(v.silent, ", ")+" does not answer for "+domain+": remove it at the registrar, or ask who runs it"
	case v.split():
		k.Status, k.Fix, k.Found = Pending, "wait until all name servers have the newest version of the zone", v.where()
	default:
		k.Status, k.Required = OK, true
	}
	return []Check{k}
}

func (c *checker) hostA(ctx context.Context) []Check {
	return []Check{c.hostAddresses(ctx, "host-a", resolve.TypeA, c.p.addresses(false))}
}

func (c *checker) hostAAAA(ctx context.Context) []Check {
	return []Check{c.hostAddresses(ctx, "host-aaaa", resolve.TypeAAAA, c.p.addresses(true))}
}

// hostAddresses compares the addresses of one family with those of this machine, where they are known.
func (c *checker) hostAddresses(ctx context.Context, id string, qtype uint16, own []netip.Addr) Check {
	kind := resolve.TypeName(qtype)
	v := c.look(ctx, c.p.Hostname, qtype)
	k := Check{ID: id, Required: qtype == resolve.TypeA || len(own) > 0}
	for _, ip := range own {
		k.Expected = append(k.Expected, ip.String())
	}
	six := qtype == resolve.TypeAAAA
	allowed := slices.Clone(k.Expected)
	for _, ip := range c.p.Also {
		allowed = append(allowed, ip.String())
	}
	k = c.settle(ctx, k, v, func(values []string) verdict {
		return judgeAddresses(c.p.Hostname, kind, values, k.Expected, allowed, c.p.behind(six))
	})
	switch {
	case k.Status == Missing && len(own) == 0 && len(c.host) > 0 && (six || !c.p.behind(six)):
		k.Status, k.Required, k.Fix = Optional, false, "" // the other family is enough
	case k.Status == Wrong:
		k.Required = true // who tries that address finds nobody
	case k.Status == Missing:
		k.Fix = c.hint(ctx, v, k.Fix)
	}
	return k
}

// judgeAddresses says what addresses come to beside those that are wanted, and those that are allowed because this machine has them.
// behind: the family is behind NAT, and the addresses of the machine tell nothing.
func judgeAddresses(host, kind string, values, own, allowed []string, behind bool) verdict {
	var strange []string
	for _, value := range values {
		ip, err := netip.ParseAddr(value)
		switch {
		case err != nil:
		case isProxy(ip):
			return verdict{Wrong, "switch off the proxy for " + host + " (DNS only, a grey cloud): mail does not pass it"}
		case !behind && !slices.Contains(allowed, value):
			strange = append(strange, value)
		case ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast():
			return verdict{Wrong, value + " cannot be reached from outside: publish the public address of this server"}
		}
	}
	switch {
	case len(values) == 0 && len(own) > 0:
		return verdict{Missing, fmt.Sprintf("publish %s %s %s", host, kind, own[0])}
	case len(values) == 0:
		return verdict{Missing, fmt.Sprintf("publish the %s record of %s, with the public address of this server", kind, host)}
	case len(strange) > 0 && len(own) == 0:
		return verdict{Wrong, fmt.Sprintf("remove %s %s %s: this server has no such address", host, kind, strings.Join(strange, ", "))}
	case len(strange) > 0:
		return verdict{Wrong, fmt.Sprintf("replace %s by %s: this server has no such address", strings.Join(strange, ", "), strings.Join(own, ", "))}
	}
	return fine
}

// proxies are the networks of the proxy that domains are moved behind most often.
var proxies = []netip.Prefix{
	netip.MustParsePrefix("104.16.0.0/12"), netip.MustParsePrefix("172.64.0.0/13"), netip.MustParsePrefix("188.114.96.0/20"),
	netip.MustParsePrefix("162.158.0.0/15"), netip.MustParsePrefix("173.245.48.0/20"), netip.MustParsePrefix("141.101.64.0/18"),
	netip.MustParsePrefix("108.162.192.0/18"), netip.MustParsePrefix("190.93.240.0/20"), netip.MustParsePrefix("198.41.128.0/17"),
	netip.MustParsePrefix("2606:4700::/32"), netip.MustParsePrefix("2400:cb00::/32"), netip.MustParsePrefix("2a06:98c0::/29"),
}

func isProxy(ip netip.Addr) bool {
	return slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// reverse looks at the name of each address that mail leaves from. Over IPv6 none is needed: an address without one is not used.
func (c *checker) reverse(ctx context.Context) (all []Check) {
	for _, ip := range c.sending() {
		k := Check{ID: "ptr:" + ip.String(), Required: (ip.Is4() || c.only6()) && !c.p.Relayed, Expected: []string{c.p.Hostname}}
		v := c.look(ctx, resolve.ReverseName(ip), resolve.TypePTR)
		k = c.settle(ctx, k, v, func(names []string) verdict { return judgeReverse(ip, c.p.Hostname, names) })
		switch {
		case k.Status == Missing && ip.Is6() && !c.only6():
			k.Status, k.Fix = Optional, ""
		case k.Status == Wrong && slices.ContainsFunc(k.Found, func(name string) bool { return slices.Contains(c.addresses(ctx, name), ip) }):
			k.Required = false // a name that leads back is enough for most
		}
		all = append(all, k)
	}
	return all
}

func judgeReverse(ip netip.Addr, hostname string, names []string) verdict {
	ask := fmt.Sprintf("ask the provider of the address to name %s %s", ip, hostname)
	switch {
	case len(names) == 0:
		return verdict{Missing, ask}
	case !slices.Contains(names, hostname):
		return verdict{Wrong, ask + ", as this server calls itself"}
	}
	return fine // whether the name leads back, host-a and host-aaaa say
}

// helo looks at the name that this server calls itself, and at its SPF record, which counts for notices: RFC 7208 section 2.4.
func (c *checker) helo(ctx context.Context) []Check {
	v := c.look(ctx, c.p.Hostname, resolve.TypeTXT)
	k := Check{ID: "helo", Required: true}
	if c.p.Hostname == c.p.Domain.ASCII() {
		k.Name, k.Type, k.Status = c.p.Hostname, "TXT", OK // the check of SPF looks at it
		return []Check{k}
	}
	known := slices.DeleteFunc(slices.Clone(c.sending()), func(ip netip.Addr) bool { return !slices.Contains(c.host, ip) }) // of the others host-a tells
	k = c.settle(ctx, k, v, func(values []string) verdict {
		d := judgeSPF(c.p.Hostname, values, known, func(ip netip.Addr) spf.Result { return spf.Helo(ctx, asPublished{c.dns}, ip, c.p.Hostname) }, "v=spf1 a -all")
		if d.status == Missing {
			return fine
		}
		return d
	})
	if !strings.Contains(c.p.Hostname, ".") {
		k.Status, k.Fix = Wrong, "give the server a host name with a domain: hostname in the configuration"
	}
	return []Check{k}
}

// blockLists looks for the addresses that mail leaves from: RFC 5782.
func (c *checker) blockLists(ctx context.Context) (all []Check) {
	for _, ip := range c.sending() {
		k := Check{ID: "dnsbl:" + ip.String(), Name: ip.String(), Type: "A", Status: OK, Required: !c.p.Relayed}
		told := false
		for _, l := range dnsbl.Lists {
			if ip.Is6() && !l.IPv6 {
				continue
			}
			said := c.askList(ctx, l, ip)
			told = told || said != dnsbl.NotTold
			if said == dnsbl.Listed || said == dnsbl.ListedByPolicy {
				k.Status, k.Found = Wrong, append(k.Found, l.Zone)
				if k.Fix == "" {
					k.Fix = "find out what was sent from " + ip.String() + ", mend it, then ask to be taken off: " + l.Page
				}
			}
		}
		if !told {
			k.Status, k.Required, k.Fix = Unknown, false, "no list answered: a resolver of your own would be answered"
		}
		all = append(all, k)
	}
	return all
}

func (c *checker) askList(ctx context.Context, l dnsbl.List, ip netip.Addr) dnsbl.Listing {
	found, err := c.dns.A(ctx, l.Query(ip))
	if resolve.IsTemporary(err) {
		return dnsbl.NotTold
	}
	return dnsbl.Read(found)
}

// judgeSPF says what the TXT records of a name come to for the addresses that mail leaves from.
func judgeSPF(name string, values []string, ips []netip.Addr, evaluate func(netip.Addr) spf.Result, suggested string) verdict {
	var records []string
	for _, value := range values {
		if v := strings.ToLower(value); v == "v=spf1" || strings.HasPrefix(v, "v=spf1 ") {
			records = append(records, value)
		}
	}
	switch {
	case len(records) == 0:
		return verdict{Missing, fmt.Sprintf("publish %s TXT %q", name, suggested)}
	case len(records) > 1:
		return verdict{Duplicate, fmt.Sprintf("keep one of the %d SPF records of %s, and put what the others allow into it: several count as none", len(records), name)}
	}
	return judgeSPFRecord(name, records[0], ips, evaluate)
}

// nobody is an address that nobody sends from: RFC 5737.
var nobody = netip.MustParseAddr("192.0.2.254")

func judgeSPFRecord(name, record string, ips []netip.Addr, evaluate func(netip.Addr) spf.Result) verdict {
	terms := strings.Fields(record)
	for _, term := range terms {
		if t := strings.ToLower(term); t == "all" || t == "+all" {
			return verdict{Wrong, fmt.Sprintf("replace %s in the SPF record of %s by ~all: it lets everybody send as you", term, name)}
		}
	}
	if r := evaluate(nobody); r.Status == spf.PermError { // it matches nothing, so that all of the record is looked at
		return verdict{Wrong, fmt.Sprintf("mend the SPF record of %s: %s", name, r.Reason)}
	}
	for _, ip := range ips {
		r := evaluate(ip)
		switch r.Status {
		case spf.Pass:
		case spf.TempError:
			return verdict{Unknown, "a look-up of the SPF record failed: try again later"}
		case spf.PermError:
			return verdict{Wrong, fmt.Sprintf("mend the SPF record of %s: %s", name, r.Reason)}
		default:
			kind := "ip4"
			if ip.Is6() {
				kind = "ip6"
			}
			changed := strings.Join(append([]string{terms[0], kind + ":" + ip.String()}, terms[1:]...), " ")
			return verdict{Wrong, fmt.Sprintf("change %s TXT to %q: mail from %s gets %s", name, changed, ip, r.Status)}
		}
	}
	return fine
}

// spf evaluates the record of the domain for each address that mail leaves from.
func (c *checker) spf(ctx context.Context) []Check {
	domain := c.p.Domain
	from := addr.Path{Address: addr.Address{Local: "postmaster", Domain: domain}}
	v := c.look(ctx, domain.ASCII(), resolve.TypeTXT)
	k := Check{ID: "spf", Required: true, Expected: []string{spfRecord(c.p)}}
	k = c.settle(ctx, k, v, func(values []string) verdict {
		return judgeSPF(domain.ASCII(), values, c.sending(), func(ip netip.Addr) spf.Result { return spf.MailFrom(ctx, asPublished{c.dns}, ip, c.p.Hostname, from) }, spfRecord(c.p))
	})
	switch {
	case k.Status == Missing:
		k.Fix = c.hint(ctx, view{name: domain.ASCII(), qtype: resolve.TypeTXT}, k.Fix)
	case k.Status == Wrong && c.p.Relayed && strings.HasPrefix(k.Fix, "change "):
		k.Required = false // it is the smarthost that sends
	}
	return []Check{k}
}
