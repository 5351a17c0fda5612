package tlsconf

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/resolve"
)

// Pace is how often things are looked at. What is zero is as usual.
type Pace struct {
	Round  time.Duration // what is due: a minute
	Look   time.Duration // whether name servers show the record of a key to come: ten minutes
	Margin time.Duration // waited beyond the TTL of records: a minute, since clocks differ and a cache may have asked in between
}

func (p *Pace) fill() {
	for _, d := range []struct {
		value *time.Duration
		usual time.Duration
	}{{&p.Round, time.Minute}, {&p.Look, 10 * time.Minute}, {&p.Margin, time.Minute}} {
		if *d.value <= 0 {
			*d.value = d.usual
		}
	}
}

const (
	// maxOrders is how many orders are under way at once.
	maxOrders = 3
	// skipInterval is how soon a name that does not lead here is looked at again.
	skipInterval = 30 * time.Minute
	// pauseInterval is how long a name is let be after a failure of our own.
	pauseInterval = 30 * time.Minute
)

// ACME is what source acme needs. Names, NamesChanged, Alert, CARoots and Provider may be nil.
type ACME struct {
	DB           *database.DB
	Sealer       Sealer
	DNS          DNS
	Names        func(context.Context) ([]string, error)       // besides the host name; asked for every minute, and when NamesChanged ticks
	NamesChanged func() (changed <-chan struct{}, stop func()) // such as database.DB.Watch
	Alert        func(ctx context.Context, title, text string) // tells the operator what must be known

	CA        string // letsencrypt, zerossl, google, or the URL of a directory; "" is the first
	CARoots   *x509.CertPool
	Email     string
	EABKeyID  string // external account binding, RFC 8555 section 7.3.4
	EABKey    string
	Challenge string   // http-01, tls-alpn-01, dns-01, or "" and auto for the first two
	HTTP      []string // where the ports 80 and 443 listen, as configured
	HTTPS     []string
	Provider  Provider  // for dns-01
	Ports     [2]uint16 // 80 and 443, where the authority reaches us elsewhere
	Pace      Pace
}

// methods are those that can be used at all.
func (o *ACME) methods() (all []method) {
	auto := o.Challenge == "" || o.Challenge == "auto"
	if o.Challenge == string(byDNS) {
		return []method{byDNS}
	}
	if len(o.HTTP) > 0 && (auto || o.Challenge == string(byHTTP)) {
		all = append(all, byHTTP)
	}
	if len(o.HTTPS) > 0 && (auto || o.Challenge == string(byALPN)) {
		all = append(all, byALPN)
	}
	return all
}

// served is what handshakes see.
type served struct {
	byName  map[string]*tls.Certificate
	host    *tls.Certificate // nil: none yet
	interim *tls.Certificate // made here, with the key that the certificate will have, for port 25 only
}

// acmeSource keeps the certificates of all names fresh: it orders, renews and rolls keys, and shares all that with other nodes through
// the database.
type acmeSource struct {
	ACME
	hostname string
	log      *slog.Logger
	store    *Store
	storage  *storage
	issuers  *issuers
	orders   orderer
	prober   prober
	served   atomic.Pointer[served]
	wake     chan struct{} // a round now

	mu      sync.Mutex // guards what follows
	names   []string   // that this node asks for
	busy    map[string]bool
	paused  map[string]time.Time // until when a name is let be
	looked  map[string]time.Time // when the name servers were asked for a key to come
	running sync.WaitGroup
	slots   chan struct{}
}

func newACME(ctx context.Context, hostname string, o ACME, log *slog.Logger) (*acmeSource, error) {
	host, err := addr.ParseDomain(hostname)
	if err != nil {
		return nil, fmt.Errorf("tls: the host name %q: %w", hostname, err)
	}
	a := &acmeSource{
		ACME: o, hostname: host.ASCII(), log: log, store: NewStore(o.DB, o.Sealer), storage: newStorage(o.DB, o.Sealer),
		prober: network{o.Ports[0], o.Ports[1]}, wake: make(chan struct{}, 1), busy: map[string]bool{}, looked: map[string]time.Time{}, paused: map[string]time.Time{},
		slots: make(chan struct{}, maxOrders),
	}
	if len(o.methods()) == 0 {
		return nil, errors.New("tls: no way to prove names to the authority: set listen.http or listen.https, or tls.challenge = \"dns-01\"")
	}
	if err := a.sync(ctx); err != nil {
		return nil, err
	}
	if _, err := a.load(ctx); err != nil {
		return nil, err
	}
	a.Pace.fill()
	a.issuers = newIssuers(&a.ACME, a.storage, newLibraryLog(log))
	a.orders = a.issuers
	return a, nil
}

// sync makes the names that are asked for the managed ones.
func (a *acmeSource) sync(ctx context.Context) error {
	names, err := a.store.added(ctx)
	if err != nil {
		return err
	}
	names = append(names, a.hostname)
	if a.Names != nil {
		more, err := a.Names(ctx)
		if err != nil {
			return fmt.Errorf("tls: the names that need certificates: %w", err)
		}
		for _, name := range more {
			d, err := addr.ParseDomain(name)
			if err != nil {
				a.log.Warn("no certificate for a name that is none", "name", name, "err", err)
				continue
			}
			names = append(names, d.ASCII())
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if err := a.store.manage(ctx, a.hostname, names); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names = names
	return nil
}

// load reads all certificates, and serves them.
func (a *acmeSource) load(ctx context.Context) ([]*row, error) {
	rows, err := a.store.rows(ctx)
	if err != nil {
		return nil, err
	}
	s := &served{byName: map[string]*tls.Certificate{}}
	for _, r := range rows {
		if r.cert != nil && r.managed {
			s.byName[r.name] = r.cert
		}
		if r.name != a.hostname {
			continue
		}
		s.host = r.cert
		if r.cert == nil {
			if s.interim, err = selfMade(a.hostname, a.hostname, r.key); err != nil {
				return nil, err
			}
		}
	}
	a.served.Store(s)
	return rows, nil
}

// run looks what is due until ctx ends, then waits for the orders under way.
func (a *acmeSource) run(ctx context.Context) {
	defer a.issuers.close()
	defer a.running.Wait()
	changed, stop := a.store.Changed()
	defer stop()
	var names <-chan struct{}
	if a.NamesChanged != nil {
		c, stop := a.NamesChanged()
		defer stop()
		names = c
	}
	ticker := time.NewTicker(a.Pace.Round)
	defer ticker.Stop()
	for {
		a.round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-a.wake:
		case <-names:
		case <-ticker.C:
		}
		if err := a.sync(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("names that need certificates not known", "err", err)
		}
	}
}

// look makes the next round begin now.
func (a *acmeSource) look() {
	select {
	case a.wake <- struct{}{}:
	default: // it begins already
	}
}

// round serves what there is and starts what is due.
func (a *acmeSource) round(ctx context.Context) {
	rows, err := a.load(ctx)
	if err != nil {
		if ctx.Err() == nil {
			a.log.Error("certificates not read, the old ones are served on", "err", err)
		}
		return
	}
	now := time.Now()
	for _, r := range rows {
		switch {
		case !a.asksFor(r.name): // another node does, or nobody any more
		case a.pausedAt(r.name, now):
		case r.due(now):
			a.start(r.name, func() { a.order(ctx, r.name) })
		case r.roll.key != nil && !r.roll.use && a.lookDue(r, now):
			a.start(r.name, func() { a.lookAtRoll(ctx, r) })
		}
	}
}

// due tells whether a certificate is to be ordered.
func (r *row) due(now time.Time) bool {
	return r.renew || r.roll.use && r.state != Failed || !now.Before(r.next)
}

// lookDue tells whether it is time to ask for the record of a key to come: at once when it was made, and when the TTL is over.
func (a *acmeSource) lookDue(r *row, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	last := a.looked[r.name]
	over := !r.roll.seen.IsZero() && !now.Before(r.roll.seen.Add(r.roll.ttl+a.Pace.Margin))
	if last.After(r.roll.made) && now.Sub(last) < a.Pace.Look && !(over && now.Sub(last) >= a.Pace.Round/2) {
		return false
	}
	a.looked[r.name] = now
	return true
}

// pause lets a name be after a failure of our own: a certificate that could not be kept must not be ordered again and again.
func (a *acmeSource) pause(name string, until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.paused[name] = until
}

func (a *acmeSource) pausedAt(name string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Before(a.paused[name])
}

func (a *acmeSource) asksFor(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.names, name)
}

// start runs fn for a name, unless something runs for it.
func (a *acmeSource) start(name string, fn func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy[name] {
		return
	}
	a.busy[name] = true
	a.running.Go(func() {
		defer func() {
			a.mu.Lock()
			delete(a.busy, name)
			a.mu.Unlock()
		}()
		fn()
	})
}

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

// lookAtRoll asks the name servers for the record of a key to come.
func (a *acmeSource) lookAtRoll(ctx context.Context, r *row) {
	said, err := a.DNS.AuthoritativeTLSA(ctx, "_25._tcp."+r.name)
	if resolve.IsNotFound(err) {
		said, err = nil, errors.New("the name is in no zone")
	}
	v := judgeRoll(r.roll, said, err, time.Now(), a.Pace.Margin)
	if ctx.Err() != nil || v == r.roll {
		return
	}
	a.log.Info("key to come", "name", r.name, "used", v.use, "note", v.note)
	if err := a.store.noteRoll(ctx, r.name, v); err != nil && !errors.Is(err, ErrUnknownName) {
		a.logFailure(ctx, r.name, err)
	}
}

// errNoChallenge says that a stranger asked for the certificate of a challenge.
var errNoChallenge = errors.New("tls: no challenge is under way for this name")

// named returns the certificate of a name, or nil.
func (a *acmeSource) named(name string) *tls.Certificate {
	return a.served.Load().byName[strings.ToLower(strings.TrimSuffix(name, "."))]
}

// challengeCertificate answers TLS-ALPN-01: an authority, or our own probe.
func (a *acmeSource) challengeCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c, err := a.probeCertificate(hello.Context(), hello.ServerName); err == nil {
		return c, nil
	}
	if !a.issuers.pending(hello.Context(), hello.ServerName) {
		return nil, errNoChallenge
	}
	return a.issuers.answers.GetCertificate(hello)
}

// challenges answers HTTP-01.
func (a *acmeSource) challenges(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, challengePath) && (a.answerProbe(w, r) || a.issuers.answer(w, r)) {
			return
		}
		next.ServeHTTP(w, r)
	})
}
