package delivery

import (
	"context"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/queue"
)

// The bounds of one attempt.
const (
	maxHosts      = 10
	maxAddresses  = 8 // of one host
	maxTries      = 12
	searchTimeout = 15 * time.Minute // after which no further host is tried
)

// attempt is one letter on its way to recipients of one route.
type attempt struct {
	d        *Deliverer
	letter   queue.Letter
	to       []queue.Recipient
	open     func(context.Context) (io.ReadCloser, error)
	outcomes []queue.Outcome
	pending  []int    // whose outcome is not known yet
	failure  *failure // of the hosts so far
	tries    int
	until    time.Time // no further host is tried
	six      bool      // IPv6 may be used
	source   netip.Addr
}

// settle writes down how it ended for a recipient.
func (a *attempt) settle(i int, o queue.Outcome) {
	a.outcomes[i] = o
	a.pending = slices.DeleteFunc(a.pending, func(p int) bool { return p == i })
}

// settleAll writes down the same for all who are left.
func (a *attempt) settleAll(o queue.Outcome) {
	for _, i := range a.pending {
		a.outcomes[i] = o
	}
	a.pending = nil
}

// note remembers why a host did not take the letter. What is temporary outweighs what is not: another host may still take it.
func (a *attempt) note(f *failure) {
	if a.failure == nil || f.Status == queue.Deferred || a.failure.Status == queue.Failed {
		a.failure = f
	}
}

// finish gives those who are left the outcome of the hosts.
func (a *attempt) finish() {
	if a.failure == nil {
		a.failure = local("4.4.1", "no host could be tried")
	}
	a.settleAll(a.failure.Outcome)
}

// over tells whether no further host is to be tried.
func (a *attempt) over(ctx context.Context) bool {
	return len(a.pending) == 0 || ctx.Err() != nil || a.tries >= maxTries || time.Now().After(a.until)
}

// tryHost tries the addresses of a host. It returns false where no other host would do better.
func (a *attempt) tryHost(ctx context.Context, t *target) bool {
	if refusal := t.policy.refusal; refusal != nil {
		f := &failure{Outcome: *refusal, reach: thisHost}
		a.note(f.at(queue.Outcome{Host: t.host, Policy: t.policy.name}))
		return true
	}
	ips := orderAddresses(t.ips, a.six)
	if len(ips) == 0 {
		a.note(&failure{Outcome: queue.Outcome{Enhanced: "4.4.1", Host: t.host, Reply: "the host has IPv6 addresses only, and ours may not be used for this letter"}})
	}
	for _, ip := range ips {
		if a.over(ctx) {
			return true
		}
		if ip.Is6() && !a.six {
			continue // it was refused meanwhile
		}
		f := a.tryAddress(ctx, t, ip)
		if f == nil {
			return true
		}
		a.note(f)
		if f.reach > thisAddress {
			return f.reach < allHosts
		}
	}
	return true
}

// tryAddress gives an address all that is pending. A connection that was idle may have died meanwhile, which says nothing
// about the host.
func (a *attempt) tryAddress(ctx context.Context, t *target, ip netip.Addr) *failure {
	for len(a.pending) > 0 {
		s, f := a.session(ctx, t, ip)
		if f != nil {
			return a.without6(f, ip)
		}
		f = a.transact(ctx, s)
		switch {
		case f == nil:
		case s.reused && f.gone && ctx.Err() == nil:
		default:
			return a.without6(f.at(s.stamp), ip)
		}
	}
	return nil
}

// without6 gives up IPv6 for this letter when a host does not like the reverse DNS of our IPv6 address, and lets it be tried
// over IPv4.
func (a *attempt) without6(f *failure, ip netip.Addr) *failure {
	if ip.Is6() && a.six && noReverse(f.Outcome) {
		a.six, f.reach = false, thisAddress
		a.d.Log.Warn("IPv6 address refused", "host", f.Host, maillog.Reply, f.Reply)
	}
	return f
}

// session returns an idle session, or else a new one.
func (a *attempt) session(ctx context.Context, t *target, ip netip.Addr) (*session, *failure) {
	var source netip.Addr
	if ip.Is6() {
		source = a.source
	}
	key := t.key(ip, source)
	if s := a.d.pool.take(key); s != nil {
		return s, nil
	}
	a.tries++
	s, f := a.d.connect(ctx, t, ip, source)
	if s != nil {
		s.key = key
	}
	return s, f
}

// transact gives the letter to the server of a session, in as many transactions as it takes, and keeps the session for the
// next letter. What is still pending without a failure needs another session.
func (a *attempt) transact(ctx context.Context, s *session) *failure {
	stop := context.AfterFunc(ctx, s.abort)
	f := a.unfit(s)
	for f == nil && len(a.pending) > 0 && !s.spent() && !s.broken {
		to := a.next(s)
		if len(to) == 0 {
			f = needsUTF8() // of those who are left
			break
		}
		b := &batch{a: a, s: s, to: to}
		f = b.run(ctx)
	}
	if !stop() || s.broken || (f != nil && f.gone) {
		s.abort()
	} else {
		a.d.pool.put(s)
	}
	return f
}

// unfit tells why the letter cannot go to the server, if so.
func (a *attempt) unfit(s *session) *failure {
	l := a.letter
	switch {
	case l.UTF8 && !s.ext.has("SMTPUTF8"):
		return needsUTF8()
	case s.ext.size > 0 && l.Size > s.ext.size:
		return &failure{Outcome: *refusal(queue.Failed, "5.3.4", "the letter is larger than the host takes"), reach: thisHost}
	}
	return nil
}

// needsUTF8 is for what cannot be changed so that it needs no SMTPUTF8: RFC 6531 section 3.5.
func needsUTF8() *failure {
	return &failure{Outcome: *refusal(queue.Failed, "5.6.7", "the letter needs SMTPUTF8, which the host does not offer"), reach: thisHost}
}

// next are the recipients of one transaction, as many as the server takes (RFC 9422 section 4).
func (a *attempt) next(s *session) (batch []int) {
	domains := map[string]bool{}
	for _, i := range a.pending {
		if !s.ext.has("SMTPUTF8") && !a.to[i].To.Address.IsASCII() {
			continue
		}
		domain := a.to[i].To.Domain.ASCII()
		if len(batch) == s.ext.rcptMax || s.ext.domains > 0 && !domains[domain] && len(domains) == s.ext.domains {
			continue
		}
		domains[domain] = true
		batch = append(batch, i)
	}
	return batch
}

// orderAddresses lets the families take turns, IPv6 first, in random order within each.
func orderAddresses(ips []netip.Addr, six bool) (order []netip.Addr) {
	var v4, v6 []netip.Addr
	for _, ip := range ips {
		switch ip = ip.Unmap(); {
		case ip.Is4():
			v4 = append(v4, ip)
		case six:
			v6 = append(v6, ip)
		}
	}
	for _, family := range [][]netip.Addr{v4, v6} {
		rand.Shuffle(len(family), func(i, j int) { family[i], family[j] = family[j], family[i] })
	}
	for len(order) < maxAddresses && len(v4)+len(v6) > 0 {
		if len(v6) > 0 {
			order, v6 = append(order, v6[0]), v6[1:]
		}
		if len(v4) > 0 {
			order, v4 = append(order, v4[0]), v4[1:]
		}
	}
	return order
}
