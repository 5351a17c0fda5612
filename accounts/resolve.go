package accounts

import (
	"context"
	"fmt"
	"strings"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
)

// maxHops bounds a chain of aliases.
const maxHops = 10

// RouteKind says what becomes of mail for an address.
type RouteKind uint8

// The kinds of routes.
const (
	Deliver     RouteKind = iota // to the targets
	UnknownUser                  // the domain is ours, the address is nobody's
	NotOurs                      // another domain: taking it would be relaying
	Routing                      // the local part names another route (a@b, a%b, a!b): taking it might be relaying
	NobodyYet                    // postmaster or abuse, before the domain has an account
)

// String returns the kind in words.
func (k RouteKind) String() string {
	switch k {
	case Deliver:
		return "delivered"
	case UnknownUser:
		return "unknown user"
	case NotOurs:
		return "not a domain of this server"
	case Routing:
		return "names a route"
	case NobodyYet:
		return "nobody there yet"
	}
	return fmt.Sprintf("RouteKind(%d)", k)
}

// Target is an account that a letter goes to.
type Target struct {
	AccountID int64
	Address   string
	Quota     int64 // octets; 0: none
}

// HasRoom tells whether a letter of the announced size may go to a mailbox that holds so many octets. One whose size was not
// announced may overshoot by its own size.
func (t Target) HasRoom(used, announced int64) bool {
	return t.Quota == 0 || used < t.Quota && used+announced <= t.Quota
}

// Route is where mail for an address goes, and how that was found.
type Route struct {
	Kind    RouteKind
	Targets []Target // each account once; only with Deliver
	Steps   []string // one sentence each
}

// Resolve finds the route of an address. What RCPT answers and what `postroom resolve` prints both come from here. Routes that
// lead somewhere are remembered until something changes; the others are not, since strangers can make up any number of them.
func (s *Service) Resolve(ctx context.Context, p addr.Path) (Route, error) {
	r, err := cached(ctx, s, &s.routes, p, func(tx *database.Tx) (Route, error) { return (&resolver{tx: tx}).path(p) },
		func(r Route) bool { return r.Kind == Deliver })
	return r, wrap("resolve", err)
}

// resolver finds one route. It looks, in this order, for an account or alias with the address; with the address without
// its tag; for postmaster and abuse; for signs of routing; for a catch-all.
type resolver struct {
	tx    *database.Tx
	steps []string
}

func (r *resolver) step(format string, args ...any) {
	r.steps = append(r.steps, fmt.Sprintf(format, args...))
}

func (r *resolver) end(kind RouteKind, targets []Target) Route {
	return Route{Kind: kind, Targets: targets, Steps: r.steps}
}

func (r *resolver) path(p addr.Path) (Route, error) {
	if p.SourceRoute {
		r.step("the source route is dropped")
	}
	if !p.Postmaster {
		return r.address(p.Address)
	}
	// RFC 5321 section 4.5.1: <postmaster> without a domain is always accepted; it means the first domain.
	all, err := selectDomains(r.tx, "ORDER BY id LIMIT 1")
	if err != nil {
		return Route{}, err
	}
	if len(all) == 0 {
		r.step("there is no domain yet")
		return r.end(NobodyYet, nil), nil
	}
	r.step("postmaster without a domain is that of %s, the first domain", all[0].Name)
	return r.address(addr.Address{Local: "postmaster", Domain: all[0].Name})
}

func (r *resolver) address(a addr.Address) (Route, error) {
	route, d, err := r.exact(a)
	if err != nil || route.Kind != UnknownUser {
		return route, err
	}
	switch local := localKey(a); {
	case local == "postmaster" || local == "abuse":
		return r.first(d)
	case strings.ContainsAny(a.Local, "@%!"):
		r.step("the local part %q names a route, and no address here", a.Local)
		return r.end(Routing, nil), nil
	case d.CatchAll == "":
		r.step("%s has no catch-all", d.Name)
		return r.end(UnknownUser, nil), nil
	}
	to, err := addr.Parse(d.CatchAll)
	if err != nil {
		return Route{}, err
	}
	r.step("the catch-all of %s is %s", d.Name, d.CatchAll)
	route, _, err = r.exact(to)
	return route, err
}

// known is the route of an address that is written somewhere on purpose: no catch-all, no guess.
func (r *resolver) known(a addr.Address) (Route, error) {
	route, _, err := r.exact(a)
	return route, err
}

// localKey is the local part as it is looked up. A quoted one may hold an @ itself: the domain begins after the last.
func localKey(a addr.Address) string {
	key := a.Key()
	return key[:strings.LastIndexByte(key, '@')]
}

// exact looks for the address, with and without its tag, and returns its domain.
func (r *resolver) exact(a addr.Address) (Route, Domain, error) {
	d, ours, err := r.domain(a)
	if err != nil || !ours {
		return r.end(NotOurs, nil), d, err
	}
	targets, err := r.expand(a, 0)
	if err == nil && len(targets) == 0 && d.Separator != "" {
		if base, tagged := a.Base(d.Separator[0]); tagged {
			r.step("without its tag it is %s", base)
			targets, err = r.expand(base, 0)
		}
	}
	switch {
	case err != nil:
		return Route{}, d, err
	case len(targets) == 0:
		r.step("no account and no alias is %s", a)
		return r.end(UnknownUser, nil), d, nil
	}
	return r.end(Deliver, targets), d, nil
}

func (r *resolver) domain(a addr.Address) (Domain, bool, error) {
	if a.Domain.IsZero() {
		r.step("an address literal is no domain of this server")
		return Domain{}, false, nil
	}
	all, err := selectDomains(r.tx, "WHERE name = ?", a.Domain.ASCII())
	if err != nil {
		return Domain{}, false, err
	}
	if len(all) == 0 {
		r.step("%s is not a domain of this server", a.Domain)
		return Domain{}, false, nil
	}
	return all[0], true, nil
}

// expand returns the accounts that an address leads to, each once. An address that is neither account nor alias leads to
// none.
func (r *resolver) expand(a addr.Address, hops int) ([]Target, error) {
	if hops > maxHops {
		r.step("the chain of aliases is too long")
		return nil, nil
	}
	var t Target
	err := r.tx.QueryRow("SELECT id, address, quota FROM accounts WHERE key = ?", a.Key()).Scan(&t.AccountID, &t.Address, &t.Quota)
	if missing, err := none(err); err != nil {
		return nil, err
	} else if !missing {
		r.step("%s is an account", t.Address)
		return []Target{t}, nil
	}
	next, err := targetsOf(r.tx, a)
	if err != nil || len(next) == 0 {
		return nil, err
	}
	r.step("%s is an alias", a)
	var all []Target
	for _, to := range next {
		targets, err := r.expandTarget(to, hops+1)
		if err != nil {
			return nil, err
		}
		for _, t := range targets {
			all = appendOnce(all, t)
		}
	}
	return all, nil
}

// expandTarget is expand for the target of an alias, which may have a tag.
func (r *resolver) expandTarget(a addr.Address, hops int) ([]Target, error) {
	targets, err := r.expand(a, hops)
	if err != nil || len(targets) > 0 {
		return targets, err
	}
	d, ours, err := r.domain(a)
	if err != nil || !ours || d.Separator == "" {
		return nil, err
	}
	if base, tagged := a.Base(d.Separator[0]); tagged {
		return r.expand(base, hops)
	}
	return nil, nil
}

func appendOnce(all []Target, t Target) []Target {
	for _, other := range all {
		if other.AccountID == t.AccountID {
			return all
		}
	}
	return append(all, t)
}

// first is the route of postmaster and abuse: the oldest account of the domain.
func (r *resolver) first(d Domain) (Route, error) {
	var t Target
	err := r.tx.QueryRow("SELECT id, address, quota FROM accounts WHERE domain_id = ? AND removed = 0 ORDER BY id LIMIT 1", d.ID).
		Scan(&t.AccountID, &t.Address, &t.Quota)
	if missing, err := none(err); err != nil {
		return Route{}, err
	} else if missing {
		r.step("%s has no account yet", d.Name)
		return r.end(NobodyYet, nil), nil
	}
	r.step("postmaster and abuse go to the first account of %s, %s", d.Name, t.Address)
	return r.end(Deliver, []Target{t}), nil
}
