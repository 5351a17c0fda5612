package tlsconf

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// order gets a certificate for a name, unless another node does.
func (a *acmeSource) order(ctx context.Context, name string) {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return
	}
	_, err := a.storage.whileLocked(ctx, "order/"+name, func(ctx context.Context) {
		r, err := a.store.row(ctx, name)
		if err != nil || !r.due(time.Now()) {
			a.logFailure(ctx, name, err)
			return // another node was first
		}
		if err := a.orderLocked(ctx, r); err != nil {
			a.pause(name, time.Now().Add(pauseInterval))
			a.logFailure(ctx, name, err)
		}
	})
	a.logFailure(ctx, name, err)
}

// logFailure logs what is our own failure, not that of an order.
func (a *acmeSource) logFailure(ctx context.Context, name string, err error) {
	if err != nil && ctx.Err() == nil {
		a.log.Error("certificate not looked after", "name", name, "err", err)
	}
}

// orderLocked checks, orders and keeps.
func (a *acmeSource) orderLocked(ctx context.Context, r *row) error {
	v := judge(a.gather(ctx, r))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case v.action == leave:
		a.log.Info("no certificate needed", "name", r.name, "because", v.why)
		return a.store.skip(ctx, r.name, v.why, time.Now().Add(skipInterval))
	case v.action == refuse:
		return a.failed(ctx, r, v.why, false)
	case v.action == tryOut:
		if _, err := a.orders.order(ctx, a.issuers.ca.staging, v.methods, r.name, r.key); err != nil {
			return a.failed(ctx, r, v.why+", so the staging authority was asked first, in vain: "+because(err), true)
		}
	}
	key := r.key
	if r.roll.use {
		key = r.roll.key
	}
	chain, err := a.orders.order(ctx, a.issuers.ca.directory, v.methods, r.name, key)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return a.failed(ctx, r, because(err), true)
	}
	c, err := certificate([]byte(chain), key)
	if err != nil {
		return err
	}
	if err := a.store.keep(ctx, r.name, chain, r.roll.use, renewAt(r.name, c.Leaf)); err != nil {
		return err
	}
	a.log.Info("new certificate", "name", r.name, "issuer", issuerOf(c.Leaf), "expires", c.Leaf.NotAfter, "newkey", r.roll.use)
	return nil
}

// renewAt is when two thirds of a certificate's time are over, earlier by up to a thirtieth so that not all names come at once.
func renewAt(name string, c *x509.Certificate) time.Time {
	lifetime := c.NotAfter.Sub(c.NotBefore)
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // never fails
	early := lifetime / 30 * time.Duration(h.Sum32()%1000) / 1000
	return c.NotBefore.Add(lifetime*2/3 - early)
}

// retryAfter is how long to wait after a number of failures in a row. Authorities count failed orders, five an hour and name; what was
// not asked for costs nobody anything, and somebody who mends a record should not wait.
func retryAfter(failures int, asked bool) time.Duration {
	if !asked {
		return min(2*time.Minute<<min(failures, 6), time.Hour)
	}
	return min(15*time.Minute<<min(failures, 6), 6*time.Hour)
}

// failed notes a failure, and tells of it.
func (a *acmeSource) failed(ctx context.Context, r *row, why string, asked bool) error {
	next := time.Now().Add(retryAfter(r.failures, asked))
	attributes := []any{"name", r.name, "because", why, "next", next}
	text := fmt.Sprintf("%s\n\nThe next try is at %s. `postroom cert list` shows how it stands, and `postroom cert renew %s` tries at once.",
		why, next.UTC().Format(time.RFC1123), r.name)
	title := "No certificate for " + r.name
	var expires time.Time
	if r.cert != nil {
		expires = r.cert.Leaf.NotAfter
		attributes = append(attributes, "expires", expires)
		title = fmt.Sprintf("The certificate of %s is not renewed, and ends in %d days", r.name, max(0, int(time.Until(expires)/(24*time.Hour))))
	}
	a.log.Warn("no new certificate", attributes...)
	if a.Alert != nil && tells(r.failures, r.failed, time.Now(), expires) {
		a.Alert(ctx, title, text)
	}
	return a.store.fail(ctx, r.name, why, next)
}

// tells decides whether the operator is told of a failure: of the first in a row, and when 14, 7, 3 and 1 days and none are left.
// Where there is no certificate (a zero time) the first is all.
func tells(before int, last, now, expires time.Time) bool {
	if before == 0 || expires.IsZero() {
		return before == 0
	}
	then, left := expires.Sub(last), expires.Sub(now)
	for _, days := range [...]int{14, 7, 3, 1, 0} {
		mark := time.Duration(days) * 24 * time.Hour
		if then > mark && left <= mark {
			return true
		}
	}
	return false
}

// gather finds out what judge wants to know.
func (a *acmeSource) gather(ctx context.Context, r *row) facts {
	name := r.name
	f := facts{name: name, optional: name != a.hostname, methods: a.methods(), staging: a.issuers.ca.staging != "", proven: r.cert != nil, probes: map[netip.Addr]map[method]reach{}}
	found, err := a.DNS.Addresses(ctx, name)
	if f.addresses, f.noAddress = found.IPs, err; err != nil {
		return f
	}
	if f.identities, f.noCA = a.orders.identities(ctx); f.noCA != nil {
		return f
	}
	f.caa, f.caaAt, f.noCAA = a.DNS.CAA(ctx, name)
	if slices.Contains(f.methods, byDNS) {
		return f
	}
	f.own = ownAddresses()
	if f.optional {
		if host, err := a.DNS.Addresses(ctx, a.hostname); err == nil {
			f.host = host.IPs
		}
	}
	a.probe(ctx, &f)
	return f
}

// probe connects to all addresses of a name, with each method.
func (a *acmeSource) probe(ctx context.Context, f *facts) {
	nonce := rand.Text()
	if err := a.storage.Store(ctx, probeAsset(f.name), []byte(nonce)); err != nil {
		f.noAddress = err
		return
	}
	defer func() { _ = a.storage.Delete(context.WithoutCancel(ctx), probeAsset(f.name)) }() // the next one takes its place
	var (
		mu      sync.Mutex // guards f.probes
		probing sync.WaitGroup
	)
	for _, ip := range f.addresses {
		f.probes[ip] = map[method]reach{}
		for _, m := range f.methods {
			probing.Go(func() {
				r := a.prober.Probe(ctx, m, f.name, ip, nonce)
				mu.Lock()
				defer mu.Unlock()
				f.probes[ip][m] = r
			})
		}
	}
	probing.Wait()
}

// ownAddresses are those of this machine's interfaces.
func ownAddresses() (own []netip.Addr) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil // then an address is judged by whether it answers
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr().Unmap())
		}
	}
	return own
}
