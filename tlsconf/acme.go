package tlsconf

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
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
	aside   map[string]time.Time // when it was said of a name that it cannot be read
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
		prober: network{o.Ports[0], o.Ports[1]}, wake: make(chan struct{}, 1), busy: map[string]bool{}, looked: map[string]time.Time{}, aside: map[string]time.Time{}, paused: map[string]time.Time{},
		slots: make(chan struct{}, maxOrders),
	}
	a.store.unreadable = a.setAside
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

// setAside says that a certificate cannot be read, once a day: nothing is ordered for the name, and the others go on.
func (a *acmeSource) setAside(name string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at, known := a.aside[name]; known && time.Since(at) < 24*time.Hour {
		return
	}
	a.aside[name] = time.Now()
	a.log.Error("a certificate cannot be read, and its name has none: was secret.key replaced? `postroom cert remove` forgets an added name", "name", name, "err", err)
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
	return r.renew || r.roll.use && r.state == Good || !now.Before(r.next)
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
