package delivery

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/queue"
)

// route is where recipients' mail goes: to a smarthost, to an address, or to the exchangers of a domain; nowhere when zero.
type route struct {
	relay   *Relay
	literal netip.Addr
	domain  addr.Domain
}

// destination names the route.
func (r route) destination() string {
	switch {
	case r.relay != nil:
		return r.relay.name()
	case r.literal.IsValid():
		return "[" + r.literal.String() + "]"
	}
	return r.domain.ASCII()
}

func (d *Deliverer) route(ctx context.Context, l queue.Letter, to addr.Path) (route, error) {
	r := route{literal: to.Literal, domain: to.Domain}
	if d.relays == nil {
		return r, nil
	}
	relay, err := d.relays.find(ctx, l.From.Domain, to.Domain)
	r.relay = relay
	return r, err
}

// follow tries the hosts of a route until all recipients have an outcome, or no host is left.
func (a *attempt) follow(ctx context.Context, r route) {
	switch {
	case r.relay != nil:
		a.toRelay(ctx, r.relay)
	case r.literal.IsValid():
		a.toLiteral(ctx, r.literal)
	case r.domain.IsZero():
		a.settleAll(*refusal(queue.Failed, "5.1.3", "the address has no domain"))
	default:
		a.toDomain(ctx, r.domain)
	}
}

// toRelay hands the letter to a smarthost, which is looked up by its name alone: RFC 5321 section 5 is for exchangers.
func (a *attempt) toRelay(ctx context.Context, r *Relay) {
	if r.broken {
		a.note(local("4.3.5", "the login at the smarthost cannot be opened: it was sealed with another key"))
		return
	}
	t := &target{host: r.Host, port: r.Port, relay: r, policy: decide(facts{relay: true, requireTLS: a.letter.RequireTLS})}
	a.six = true
	if ip, err := netip.ParseAddr(r.Host); err == nil {
		t.ips = []netip.Addr{ip}
	} else if !a.findAddresses(ctx, t, false) {
		return
	}
	a.tryHost(ctx, t)
}

// toLiteral hands the letter to the host at an address.
func (a *attempt) toLiteral(ctx context.Context, ip netip.Addr) {
	if a.d.Own(ctx, ip) {
		a.settleAll(*refusal(queue.Failed, "5.4.6", "the address is this server's own"))
		return
	}
	a.allowIPv6(ctx)
	a.tryHost(ctx, &target{ips: []netip.Addr{ip}, port: a.d.Port, policy: decide(a.facts(false))})
}

func (a *attempt) facts(secureMX bool) facts {
	return facts{requireTLS: a.letter.RequireTLS, tlsOptional: a.letter.TLSOptional, secureMX: secureMX}
}

// allowIPv6 finds out whether the letter may leave over IPv6. A notice has no sender; SPF looks at the name in EHLO then.
func (a *attempt) allowIPv6(ctx context.Context) {
	if a.d.IPv6 == nil {
		return
	}
	from := a.letter.From.Domain
	if from.IsZero() {
		from, _ = addr.ParseDomain(a.d.Hostname) // a name that is none is allowed nothing
	}
	a.source, a.six = a.d.IPv6(ctx, from)
}

// toDomain hands the letter to the exchangers of a domain, the preferred first. RFC 5321 section 5.1.
func (a *attempt) toDomain(ctx context.Context, domain addr.Domain) {
	x, err := a.d.Resolver.Exchangers(ctx, domain.ASCII())
	groups, refused := exchangers(domain.ASCII(), x.MX, err)
	if refused != nil {
		a.settleAll(*refused)
		return
	}
	a.allowIPv6(ctx)
	sts := stsAnswer{}
	if a.d.sts != nil && !a.facts(false).ignoresPolicies() {
		if sts, err = a.d.sts.get(ctx, domain.ASCII()); err != nil {
			a.note(local("4.3.0", "the MTA-STS policy of the domain could not be read here"))
			return
		}
	}
	next := nextHop{domain: domain.ASCII(), x: x, implicit: len(x.MX) == 0, sts: sts}
	for i, group := range groups {
		targets, own := a.targets(ctx, group, next)
		if own {
			a.looped(i == 0)
			return
		}
		for _, t := range targets {
			a.protection(ctx, t, next)
			if a.over(ctx) || !a.tryHost(ctx, t) {
				return
			}
		}
	}
}

// looped ends the way at ourselves: RFC 5321 section 5.1, hosts that are no better than we are do not count.
func (a *attempt) looped(best bool) {
	if best {
		a.failure = nil
		a.settleAll(*refusal(queue.Failed, "5.4.6", "the domain's mail is to be brought here, and it is nobody's here"))
	}
}

// exchangers puts the hosts of a domain into groups of the same preference, each in random order.
func exchangers(domain string, mx []resolve.MX, err error) (groups [][]string, refused *queue.Outcome) {
	switch {
	case resolve.IsTemporary(err):
		return nil, refusal(queue.Deferred, "4.4.3", "the domain could not be looked up")
	case errors.Is(err, resolve.ErrNotFound):
		return nil, refusal(queue.Failed, "5.1.2", "the domain does not exist")
	case err != nil:
		return [][]string{{domain}}, nil // the host of that name, RFC 5321 section 5.1
	case len(mx) == 1 && mx[0].Host == "":
		return nil, refusal(queue.Failed, "5.1.10", "the domain takes no mail") // RFC 7505 section 4
	}
	last := -1
	seen := map[string]bool{"": true} // a null MX beside others means nothing
	for _, x := range mx {
		if seen[x.Host] || len(seen) > maxHosts {
			continue
		}
		seen[x.Host] = true
		if int(x.Preference) != last {
			groups, last = append(groups, nil), int(x.Preference)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], x.Host)
	}
	for _, g := range groups {
		rand.Shuffle(len(g), func(i, j int) { g[i], g[j] = g[j], g[i] })
	}
	if len(groups) == 0 {
		return nil, refusal(queue.Failed, "5.4.4", "the domain names no host for its mail")
	}
	return groups, nil
}

// nextHop is what is known about the domain that the hosts stand for.
type nextHop struct {
	domain   string
	x        resolve.Exchangers
	implicit bool // it has no MX
	sts      stsAnswer
}

// targets looks up the hosts of one preference. own tells that one of them is this server.
func (a *attempt) targets(ctx context.Context, hosts []string, next nextHop) (all []*target, own bool) {
	for _, host := range hosts {
		t := &target{host: host, port: a.d.Port}
		if a.d.OwnName(host) {
			return nil, true
		}
		if !a.findAddresses(ctx, t, next.implicit || next.x.Secure) {
			continue
		}
		for _, ip := range t.ips {
			if a.d.Own(ctx, ip) {
				return nil, true
			}
		}
		all = append(all, t)
	}
	return all, false
}

// findAddresses looks up the addresses of a host. secure tells that the way to its name was validated.
func (a *attempt) findAddresses(ctx context.Context, t *target, secure bool) bool {
	found, err := a.d.Resolver.Addresses(ctx, t.host)
	switch {
	case resolve.IsTemporary(err):
		a.note(&failure{Outcome: queue.Outcome{Enhanced: "4.4.3", Host: t.host, Reply: "the address of the host could not be looked up"}})
	case err != nil && t.relay != nil:
		a.note(&failure{Outcome: queue.Outcome{Enhanced: "4.4.4", Host: t.host, Reply: "the smarthost has no address"}})
	case err != nil:
		o := refusal(queue.Failed, "5.4.4", "the host has no address")
		o.Host = t.host
		a.note(&failure{Outcome: *o})
	}
	t.ips = found.IPs
	if secure && found.Secure {
		t.base = found.Name
	}
	return err == nil
}

// protection decides what a connection to an exchanger must have.
func (a *attempt) protection(ctx context.Context, t *target, next nextHop) {
	secure := t.base != ""
	f := a.facts(secure || next.x.Secure && !next.implicit) // RFC 8689 section 4.2.1: the MX look-up is what counts
	f.sts, f.stsMatch = next.sts.mode, next.sts.match(t.host)
	if secure && !f.ignoresPolicies() {
		f.dane = a.lookUpTLSA(ctx, t, next)
	}
	t.policy = decide(f)
	if t.policy.need != pinned {
		t.base, t.records = "", nil
	}
}

// ignoresPolicies tells whether what the recipient's side asks for is not even looked up.
func (f facts) ignoresPolicies() bool { return f.tlsOptional && !f.requireTLS }

// lookUpTLSA finds the TLSA records of a host: those of the name at the end of its CNAMEs before those of its own. RFC 7672
// section 2.2.2 and 2.2.3.
func (a *attempt) lookUpTLSA(ctx context.Context, t *target, next nextHop) daneState {
	bases := []string{t.base}
	if !strings.EqualFold(t.base, t.host) {
		bases = append(bases, t.host)
	}
	for _, base := range bases {
		found, secure, err := a.d.Resolver.TLSA(ctx, tlsaName(t.port, base))
		switch {
		case resolve.IsTemporary(err):
			return daneBogus
		case err != nil || !secure || len(found) == 0:
			continue
		}
		t.base = base
		t.names = []string{base, next.domain, next.x.Name} // RFC 7672 section 3.2.2
		t.records = tlsaRecords(found)
		if usable(t.records) {
			return daneUsable
		}
		return daneUnusable
	}
	return daneNone
}
