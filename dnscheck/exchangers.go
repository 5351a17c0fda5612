package dnscheck

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/postroom/postroom/internal/resolve"
)

// exchanger is a MX record, and what was found of its host.
type exchanger struct {
	preference int
	host       string
	alias      bool
	here       bool // all its addresses are ours
	exists     bool
}

// exchangers looks at the MX records: RFC 5321 section 5.1, RFC 2181 section 10.3, RFC 7505.
func (c *checker) exchangers(ctx context.Context) []Check {
	domain := c.p.Domain.ASCII()
	v := c.look(ctx, domain, resolve.TypeMX)
	k := Check{ID: "mx", Required: true, Expected: []string{"10 " + c.p.Hostname}}
	k = c.settle(ctx, k, v, func(values []string) verdict {
		var all []exchanger
		for _, value := range values {
			all = append(all, c.exchanger(ctx, value))
		}
		return judgeExchangers(domain, c.p.Hostname, all)
	})
	switch {
	case k.Status == Missing:
		k.Fix = c.hint(ctx, view{name: domain, qtype: resolve.TypeMX}, k.Fix)
	case k.Status == Wrong && strings.HasPrefix(k.Fix, backup):
		k.Required = false
	}
	return []Check{k}
}

// exchanger finds out about one record, "10 mail.example.org".
func (c *checker) exchanger(ctx context.Context, value string) exchanger {
	x := readExchanger(value)
	host := x.host
	_, err := netip.ParseAddr(host)
	if host == "." || err == nil {
		return x
	}
	x.alias = len(c.known(ctx, host, resolve.TypeCNAME)) > 0
	if host == c.p.Hostname {
		x.exists, x.here = true, true // whether its addresses are right is a check of its own
		return x
	}
	ips := c.addresses(ctx, host)
	x.exists = len(ips) > 0
	x.here = x.exists && !slices.ContainsFunc(ips, func(ip netip.Addr) bool { return !c.ours(ip) })
	return x
}

// readExchanger reads a record as Texts writes it.
func readExchanger(value string) exchanger {
	number, host, _ := strings.Cut(value, " ")
	preference, _ := strconv.Atoi(number) // it is one
	return exchanger{preference: preference, host: host}
}

// backup begins what is said of another server that takes the mail when this one does not answer.
const backup = "backup: "

// judgeExchangers says what the MX records come to.
func judgeExchangers(domain, hostname string, all []exchanger) verdict {
	publish := fmt.Sprintf("publish %s MX 10 %s", domain, hostname)
	if len(all) == 0 {
		return verdict{Missing, publish}
	}
	own := 1 << 16
	for _, x := range all {
		if d, bad := judgeExchanger(domain, hostname, x, publish); bad {
			return d
		}
		if x.here {
			own = min(own, x.preference)
		}
	}
	foreign := slices.DeleteFunc(slices.Clone(all), func(x exchanger) bool { return x.here })
	slices.SortFunc(foreign, func(a, b exchanger) int { return a.preference - b.preference })
	switch {
	case len(foreign) == 0:
		return fine
	case own == 1<<16:
		return verdict{Wrong, fmt.Sprintf("replace %s by %s MX 10 %s: the mail goes to another server", foreign[0].host, domain, hostname)}
	case foreign[0].preference <= own:
		return verdict{Wrong, fmt.Sprintf("remove %s MX %d %s, or give it a larger number than %s has: it gets mail before this server does", domain, foreign[0].preference, foreign[0].host, hostname)}
	}
	return verdict{Wrong, backup + "remove " + foreign[0].host + ", unless you run it: mail is kept by its senders while this server is away"}
}

// judgeExchanger finds what is wrong with one record alone.
func judgeExchanger(domain, hostname string, x exchanger, publish string) (d verdict, bad bool) {
	_, err := netip.ParseAddr(x.host)
	switch {
	case x.host == ".":
		return verdict{Wrong, "remove the null MX, which says that " + domain + " takes no mail, and " + publish}, true
	case err == nil:
		return verdict{Wrong, "MX must name a host, not an address: " + publish}, true
	case x.host == hostname+"."+domain:
		return verdict{Wrong, "your panel adds the domain to the value: enter " + hostname + " with a dot at its end, or " + Record{Name: hostname}.Relative(domain)}, true
	case x.alias:
		return verdict{Wrong, "MX must not name an alias (CNAME), and " + x.host + " is one: give it A and AAAA records, or " + publish}, true
	case !x.exists:
		return verdict{Wrong, x.host + " has no address: remove it, or " + publish}, true
	}
	return d, false
}
