package resolve

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Defaults and bounds.
const (
	defaultTimeout = 10 * time.Second // a whole look-up
	defaultEntries = 20_000           // in the cache
	maxCacheOctets = 64 << 20         // of all answers in the cache
	maxOutstanding = 512              // queries at once; more wait
)

// Options are a resolver's surroundings. Only Servers is required.
type Options struct {
	Servers       []netip.AddrPort
	TrustAD       bool          // the AD bit of these servers counts: only where the way to them is safe
	Timeout       time.Duration // of a whole look-up
	CacheEntries  int
	Exchange      Exchanger // nil: the network
	AuthorityPort uint16    // of authoritative servers: 53
	Log           *slog.Logger
}

// Resolver answers questions to the DNS. It may be used by many goroutines.
type Resolver struct {
	Options
	servers serverList
	slots   chan struct{} // one for each query that is under way

	mu      sync.Mutex // guards what follows
	cache   cache
	flights map[key]*flight
	running sync.WaitGroup
	closed  bool

	delegations map[string]delegation
}

// key is a question.
type key struct {
	name  string // lower-case, without the final dot
	qtype uint16
}

// Answer is what was found: at least one record.
type Answer struct {
	Records []dns.RR      // of the type that was asked for
	Name    string        // where they are, at the end of the CNAMEs
	Secure  bool          // a trusted resolver validated it
	TTL     time.Duration // how long it may be kept
}

// outcome is an answer or an error, as it is kept.
type outcome struct {
	answer  Answer
	err     *Error
	octets  int
	expires time.Time
}

// flight is a question that is being asked, for all who wait for it.
type flight struct {
	done    chan struct{}
	outcome outcome // after done
	waiting int
	cancel  context.CancelFunc
}

// New returns a resolver.
func New(o Options) (*Resolver, error) {
	switch {
	case len(o.Servers) == 0:
		return nil, errors.New("resolve: no server to ask")
	case o.Timeout <= 0:
		o.Timeout = defaultTimeout
	}
	if o.CacheEntries <= 0 {
		o.CacheEntries = defaultEntries
	}
	if o.AuthorityPort == 0 {
		o.AuthorityPort = 53
	}
	if o.Exchange == nil {
		o.Exchange = network{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Resolver{Options: o, slots: make(chan struct{}, maxOutstanding), flights: map[key]*flight{}}
	r.servers.all = make([]serverState, len(o.Servers))
	for i, s := range o.Servers {
		r.servers.all[i].addr = s
	}
	r.cache.limit(o.CacheEntries, maxCacheOctets)
	return r, nil
}

// Close ends all queries that are under way and waits for them. Look-ups after it fail.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.closed = true
	for _, f := range r.flights {
		f.cancel()
	}
	r.mu.Unlock()
	r.running.Wait()
}

// Lookup asks for the records of a type. Its errors are *Error.
func (r *Resolver) Lookup(ctx context.Context, name string, qtype uint16) (Answer, error) {
	k := key{strings.ToLower(strings.TrimSuffix(name, ".")), qtype}
	if !validName(k.name) {
		return Answer{}, k.fail(ErrNotFound, "not a name") // such a name cannot exist
	}
	r.mu.Lock()
	if o, ok := r.cache.get(k); ok {
		r.mu.Unlock()
		return o.result()
	}
	if r.closed {
		r.mu.Unlock()
		return Answer{}, k.fail(ErrServer, "the resolver is closed")
	}
	f := r.join(ctx, k)
	r.mu.Unlock()
	select {
	case <-f.done:
		return f.outcome.result()
	case <-ctx.Done():
		r.leave(k, f)
		return Answer{}, k.fail(ErrTimeout, ctx.Err().Error())
	}
}

// join returns the flight of a question, which it starts where there is none. The caller holds mu.
func (r *Resolver) join(ctx context.Context, k key) *flight {
	f := r.flights[k]
	if f == nil {
		// The query serves everybody who asks meanwhile: it does not end with the first who asked.
		queryCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Timeout)
		f = &flight{done: make(chan struct{}), cancel: cancel}
		r.flights[k] = f
		r.running.Go(func() { r.fly(queryCtx, k, f) })
	}
	f.waiting++
	return f
}

// leave gives up waiting; the last one ends the query.
func (r *Resolver) leave(k key, f *flight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.waiting--
	if f.waiting == 0 {
		f.cancel()
		if r.flights[k] == f {
			delete(r.flights, k)
		}
	}
}

// fly asks the question and gives everybody the outcome.
func (r *Resolver) fly(ctx context.Context, k key, f *flight) {
	defer f.cancel()
	o := r.ask(ctx, k)
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.waiting > 0 && !r.closed { // an end that nobody waits for is our own doing
		r.cache.put(k, o)
	}
	if r.flights[k] == f {
		delete(r.flights, k)
	}
	f.outcome = o
	close(f.done)
}

// ask follows CNAMEs from answer to answer.
func (r *Resolver) ask(ctx context.Context, k key) outcome {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return k.failed(ErrTimeout, "too many queries")
	}
	chain := chain{question: k, name: k.name, secure: true, ttl: maxTTL}
	for range maxAnswers {
		reply, err := r.exchange(ctx, key{chain.name, k.qtype})
		if err != nil {
			return outcome{err: k.fail(err.Kind, err.Detail), expires: time.Now().Add(failureTTL)}
		}
		if done := chain.follow(reply, r.TrustAD); done {
			return chain.outcome()
		}
	}
	return k.failed(ErrServer, "too many CNAMEs")
}

func (k key) fail(kind error, detail string) *Error {
	return &Error{Kind: kind, Name: k.name, Type: dns.TypeToString[k.qtype], Detail: detail}
}

// failed is a temporary failure, which is kept for a moment so that a burst of questions does not become a burst of queries.
func (k key) failed(kind error, detail string) outcome {
	return outcome{err: k.fail(kind, detail), expires: time.Now().Add(failureTTL)}
}

func (o outcome) result() (Answer, error) {
	if o.err != nil {
		return Answer{}, o.err
	}
	return o.answer, nil
}

// validName tells whether a name can be asked for: RFC 1035 section 2.3.4. Blanks, backslashes and what is not printable would
// need escapes, and no name of mail has them.
func validName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	label := 0
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.':
			if label == 0 {
				return false
			}
			label = 0
			continue
		case c <= ' ' || c >= 0x7f || c == '\\' || c == '"' || c == '(' || c == ')' || c == ';' || c == '@' || c == '$':
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	return label > 0
}
