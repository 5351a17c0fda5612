package dnscheck

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/postroom/postroom/internal/resolve"
)

// srv looks at the records by which mail programs find the server: RFC 6186.
func (c *checker) srv(ctx context.Context) (all []Check) {
	for _, s := range services(c.p) {
		want := "0 " + s.value(c.p.Hostname)
		v := c.look(ctx, "_"+s.name+"._tcp."+c.p.Domain.ASCII(), resolve.TypeSRV)
		k := Check{ID: "srv:" + s.name, Expected: []string{want}}
		k = c.settle(ctx, k, v, func(values []string) verdict { return judgeSRV(v.name, values, s, c.p.Hostname) })
		if k.Status == Optional || k.Status == Wrong {
			if fix := c.hint(ctx, v, k.Fix); fix != k.Fix {
				k.Status, k.Fix = Wrong, fix
			}
		}
		all = append(all, k)
	}
	return all
}

// judgeSRV compares port and target; priority and weight say nothing where there is one server.
func judgeSRV(name string, values []string, s service, host string) verdict {
	switch {
	case len(values) == 0:
		return verdict{status: Optional}
	case len(values) > 1:
		return verdict{Duplicate, "keep the one record of " + name + " that names " + host}
	}
	f := strings.Fields(values[0])
	if s.port == 0 && f[3] == "." || f[2] == fmt.Sprint(s.port) && f[3] == host {
		return fine
	}
	return verdict{Wrong, fmt.Sprintf("change %s SRV to 0 %s", name, s.value(host))}
}

// autoconfig looks at the names under which mail programs ask for settings.
func (c *checker) autoconfig(ctx context.Context) (all []Check) {
	for _, id := range []string{"autoconfig", "autodiscover"} {
		name := id + "." + c.p.Domain.ASCII()
		k := Check{ID: id, Name: name, Type: "CNAME", Status: Optional, Expected: []string{c.p.Hostname}}
		ips := c.addresses(ctx, name)
		for _, ip := range ips {
			k.Found = append(k.Found, ip.String())
		}
		switch {
		case len(ips) == 0:
		case !slices.ContainsFunc(ips, func(ip netip.Addr) bool { return !c.ours(ip) && !slices.Contains(c.host, ip) }):
			k.Status = OK
		default:
			k.Status, k.Fix = Wrong, "make "+name+" a CNAME of "+c.p.Hostname+", or remove it: mail programs get their settings from another server"
		}
		all = append(all, k)
	}
	return all
}
