package delivery

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/mailtest"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/resolve/zone"
	"github.com/postroom/postroom/queue"
)

const hostname = "mail.example.org"

// server is one end of a connection that a test plays.
type server func(t *testing.T, c net.Conn)

// world is the Internet of a test: a zone, and servers at addresses. It lives in a bubble of synctest.
type world struct {
	*testing.T
	zone    *zone.Zone
	options Options
	log     bytes.Buffer
	seen    queue.Outcome // of tlsCell

	mu      sync.Mutex // guards what follows
	servers map[string]server
	dialed  []string
	sources []netip.Addr
	running sync.WaitGroup
}

// newWorld returns a world with the domain remote.example, whose exchanger is mx.remote.example at 192.0.2.1. close must be
// called before the end of the bubble.
func newWorld(t *testing.T) *world {
	w := &world{T: t, servers: map[string]server{}}
	w.zone = zone.MustParse(`
		remote.example.    300 IN MX 10 mx.remote.example.
		mx.remote.example. 300 IN A  192.0.2.1
	`)
	resolver, err := resolve.New(resolve.Options{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}, Exchange: w.zone, TrustAD: true})
	if err != nil {
		t.Fatal(err)
	}
	w.options = Options{Hostname: hostname, Resolver: resolver, Dial: w.dial, Log: slog.New(slog.NewTextHandler(&w.log, nil))}
	return w
}

// serve puts a server at an address.
func (w *world) serve(ip string, s server) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.servers[ip] = s
}

// hole is at an address that never answers a call.
var hole server

func (w *world) dial(ctx context.Context, source netip.Addr, to netip.AddrPort) (net.Conn, error) {
	ip := to.Addr().String()
	w.mu.Lock()
	s, known := w.servers[ip]
	w.dialed, w.sources = append(w.dialed, ip), append(w.sources, source)
	w.mu.Unlock()
	switch {
	case !known:
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	case s == nil:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	ours, theirs := net.Pipe()
	w.mu.Lock()
	defer w.mu.Unlock() // so that wait sees all who were called
	w.running.Go(func() {
		defer theirs.Close()
		s(w.T, theirs)
		_, _ = io.Copy(io.Discard, theirs) // until the client has gone
	})
	return ours, nil
}

// wait waits for the end of all servers.
func (w *world) wait() {
	_ = w.calls() // takes the lock: all who were called before are seen
	w.running.Wait()
}

// calls are the addresses that were called so far.
func (w *world) calls() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.dialed, " ")
}

func (w *world) count() int { return len(strings.Fields(w.calls())) }

// deliverer is one in this world. Its end, and that of all servers, is the test's to wait for with close.
func (w *world) deliverer() (*Deliverer, func()) {
	d := New(w.options)
	return d, func() {
		d.Close()
		w.wait()
		w.options.Resolver.(*resolve.Resolver).Close()
	}
}

const letterText = "From: anna@example.org\r\nSubject: x\r\n\r\n.dots\r\nend\r\n"

func path(t testing.TB, s string) addr.Path {
	t.Helper()
	p, _, err := addr.ParsePath("<" + s + ">")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func letter(t testing.TB) queue.Letter {
	return queue.Letter{ID: message.NewID(), From: path(t, "anna@example.org"), Size: int64(len(letterText))}
}

func recipients(t testing.TB, to ...string) (all []queue.Recipient) {
	for _, s := range to {
		all = append(all, queue.Recipient{To: path(t, s)})
	}
	return all
}

func opens(text string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
}

// send delivers the ordinary letter to one recipient.
func send(t testing.TB, d *Deliverer, to string) queue.Outcome {
	t.Helper()
	return d.Deliver(t.Context(), letter(t), recipients(t, to), opens(letterText))[0]
}

// describeOutcome is an outcome on one line.
func describeOutcome(o queue.Outcome) string {
	words := []string{map[queue.Status]string{queue.Delivered: "delivered", queue.Deferred: "deferred", queue.Failed: "failed"}[o.Status], o.Enhanced}
	for _, mark := range []struct {
		word string
		set  bool
	}{{"local", !o.Remote}, {"unclear", o.Unclear}, {"silent", o.Silent}, {"dsn", o.DSN}} {
		if mark.set {
			words = append(words, mark.word)
		}
	}
	return strings.Join(words, " ") + " | " + o.Reply
}

func checkMatch(t *testing.T, what, want, got string) {
	t.Helper()
	if !mailtest.Match(want, got) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}
