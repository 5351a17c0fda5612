package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/dane"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/pop3d"
	"github.com/postroom/postroom/smtpd"
	"github.com/postroom/postroom/tlsconf"
)

// nobody is a handler of engines whose TLS is all that counts here.
type nobody struct{}

func (nobody) Hello(context.Context) error { return nil }
func (nobody) Mail(context.Context, smtpd.Mail) (smtpd.Transaction, error) {
	return nil, errors.New("no mail here")
}
func (nobody) Mechanisms() []string { return nil }
func (nobody) Close()               {}
func (nobody) LogIn(context.Context, string, string) (pop3d.Maildrop, error) {
	return nil, errors.New("nobody is here")
}
func (nobody) Auth(context.Context, string) (pop3d.SASL, error) { return nil, errors.New("not here") }

type smtpNobody struct{}

func (smtpNobody) Connect(context.Context, *smtpd.Client) (smtpd.Session, error) {
	return nobody{}, nil
}

type popNobody struct{}

func (popNobody) Connect(context.Context, *pop3d.Client) (pop3d.Session, error) { return nobody{}, nil }

// door is a port with TLS.
type door struct {
	name, address string
	begin         string // what to say to begin TLS, and nothing where it is implicit
}

// openDoors runs every engine that serves TLS with the certificates of a source.
func openDoors(t *testing.T, s *tlsconf.Source) []door {
	t.Helper()
	var doors []door
	for _, d := range []struct {
		name, begin string
		server      interface {
			Serve(net.Listener) error
			Close()
		}
	}{
		{"smtp", "EHLO c.example\r\nSTARTTLS\r\n", &smtpd.Server{Hostname: hostname, Handler: smtpNobody{}, TLS: s.ForMX()}},
		{"submission", "EHLO c.example\r\nSTARTTLS\r\n", &smtpd.Server{Hostname: hostname, Handler: smtpNobody{}, TLS: s.ForLogins(), TLSReady: s.Ready, Submission: true}},
		{"submissions", "", &smtpd.Server{Hostname: hostname, Handler: smtpNobody{}, TLS: s.ForLogins(), Submission: true, ImplicitTLS: true}},
		{"pop3", "STLS\r\n", &pop3d.Server{Hostname: hostname, Handler: popNobody{}, TLS: s.ForLogins(), TLSReady: s.Ready}},
		{"pop3s", "", &pop3d.Server{Hostname: hostname, Handler: popNobody{}, TLS: s.ForLogins(), ImplicitTLS: true}},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { defer close(done); _ = d.server.Serve(l) }() // ends with Close
		t.Cleanup(func() { d.server.Close(); <-done })
		doors = append(doors, door{d.name, l.Addr().String(), d.begin})
	}
	return doors
}

// greet begins TLS and reads what the server says then, which it does where it is well.
func (d door) greet(c *tls.Config) (tls.ConnectionState, error) {
	conn, err := net.DialTimeout("tcp", d.address, 10*time.Second)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return tls.ConnectionState{}, err
	}
	if d.begin != "" {
		lines := bufio.NewReader(io.LimitReader(conn, 4096))
		for _, command := range append([]string{""}, strings.SplitAfter(strings.TrimSuffix(d.begin, "\r\n"), "\n")...) {
			if command != "" {
				if _, err := io.WriteString(conn, strings.TrimSpace(command)+"\r\n"); err != nil {
					return tls.ConnectionState{}, err
				}
			}
			if err := readReply(lines); err != nil {
				return tls.ConnectionState{}, fmt.Errorf("after %q: %w", command, err)
			}
		}
	}
	client := tls.Client(conn, c)
	if err := client.Handshake(); err != nil {
		return tls.ConnectionState{}, err
	}
	if d.begin == "" && d.name != "https" {
		if err := readReply(bufio.NewReader(client)); err != nil {
			return tls.ConnectionState{}, err
		}
	}
	return client.ConnectionState(), nil
}

// readReply reads one reply, of several lines or not, that must be a good one.
func readReply(r *bufio.Reader) error {
	for {
		line, err := r.ReadString('\n')
		switch {
		case err != nil:
			return err
		case line[0] != '2' && line[0] != '+':
			return errors.New(strings.TrimSpace(line))
		case len(line) < 4 || line[3] != '-':
			return nil
		}
	}
}

// load is clients that come without end.
type load struct {
	stop    chan struct{}
	clients sync.WaitGroup
	done    atomic.Int64
	failed  atomic.Int64
}

// come lets one client come again and again.
func (l *load) come(t *testing.T, visit func() error) {
	l.clients.Go(func() {
		for {
			select {
			case <-l.stop:
				return
			default:
			}
			if err := visit(); err != nil {
				l.failed.Add(1)
				t.Errorf("%v", err)
				return
			}
			l.done.Add(1)
			time.Sleep(15 * time.Millisecond) // the machine is to be left some time for the authority
		}
	})
}

func (l *load) end() { close(l.stop); l.clients.Wait() }

// TestACMERenewals renews 50 times while clients come to every port: no handshake fails, and no key changes.
func TestACMERenewals(t *testing.T) {
	const each = 10
	dns, _ := startChallengeServer(t)
	p := startPebble(t, dns.String(), nil)
	db := databasetest.Open(t)
	o := p.options(t, db, newResolver(t, dns))
	names := []string{hostname, "mta-sts.example.org", "autoconfig.example.org", "autodiscover.example.org", "mail.customer.example"}
	o.ACME.Names = func(context.Context) ([]string, error) { return names[1:], nil }
	s := openSource(t, o, p)
	store := tlsconf.NewStore(db, o.ACME.Sealer)
	await(t, "all names have a certificate", func() bool { return allGood(t, store, len(names)) })
	await(t, "they are served", s.Ready)

	doors := append(openDoors(t, s), door{"https", fmt.Sprintf("127.0.0.1:%d", p.https), ""})
	roots := p.issuedBy(t)
	keys, serials := &sync.Map{}, &sync.Map{}
	clients := &load{stop: make(chan struct{})}
	for i, d := range doors {
		clients.come(t, func() error {
			name := names[(int(clients.done.Load())+i)%len(names)]
			state, err := d.greet(&tls.Config{RootCAs: roots, ServerName: name, NextProtos: protocols(d)})
			if err != nil {
				return fmt.Errorf("%s as %s: %w", d.name, name, err)
			}
			leaf := state.PeerCertificates[0]
			serials.Store(leaf.SerialNumber.String(), true)
			if was, seen := keys.LoadOrStore(name, string(leaf.RawSubjectPublicKeyInfo)); seen && was != string(leaf.RawSubjectPublicKeyInfo) {
				return fmt.Errorf("%s has another key", name)
			}
			return nil
		})
	}
	before := p.issued()
	for range each {
		for _, name := range names {
			if err := store.Renew(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		await(t, "all are renewed", func() bool { return allGood(t, store, len(names)) })
	}
	clients.end()
	seen := 0
	serials.Range(func(any, any) bool { seen++; return true })
	t.Logf("%d certificates issued, %d of them seen in %d handshakes, %d of which failed", p.issued()-before, seen, clients.done.Load(), clients.failed.Load())
	if got := p.issued() - before; got != each*len(names) {
		t.Errorf("%d certificates were issued, want %d", got, each*len(names))
	}
	if clients.done.Load() < 100 || seen < each*len(names)/2 {
		t.Error("too few handshakes to tell")
	}
}

func protocols(d door) []string {
	if d.name == "https" {
		return []string{"h2", "http/1.1"}
	}
	return nil
}

// allGood tells whether all names have what was asked for.
func allGood(t *testing.T, store *tlsconf.Store, n int) bool {
	t.Helper()
	all, err := store.List(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.State == tlsconf.Failed || s.State == tlsconf.Skipped {
			t.Fatalf("%s: %s", s.Name, s.Reason)
		}
		if s.State != tlsconf.Good || s.Asked {
			return false
		}
	}
	return len(all) == n
}

// TestACMETwoNodes shows that two nodes on one database order once, and that both serve what came of it.
func TestACMETwoNodes(t *testing.T) {
	dns, _ := startChallengeServer(t)
	p := startPebble(t, dns.String(), nil)
	db := databasetest.Open(t)
	o := p.options(t, db, newResolver(t, dns))
	one, two := openSource(t, o, p), openSource(t, o, nil)
	store := tlsconf.NewStore(db, o.ACME.Sealer)
	awaitState(t, store, tlsconf.Good)
	await(t, "both serve the certificate", func() bool { return one.Ready() && two.Ready() })
	if err := store.Renew(t.Context(), hostname); err != nil {
		t.Fatal(err)
	}
	await(t, "it is renewed", func() bool { return allGood(t, store, 1) })
	want := awaitState(t, store, tlsconf.Good).Expires
	await(t, "both serve the new one", func() bool { return one.Expires().Equal(want) && two.Expires().Equal(want) })
	if got := p.issued(); got != 2 {
		t.Errorf("%d certificates were issued, want one and its renewal", got)
	}
}

// nameServer is knot with the zone example.org, which takes dynamic updates.
type nameServer struct {
	address netip.AddrPort
	secret  string
}

const zoneText = `$TTL 1
@ SOA ns1 hostmaster 1 3600 600 86400 1
@ NS ns1
@ CAA 0 issue "authority.example"
ns1 A 127.0.0.1
mail A 127.0.0.1
`

func startKnot(t *testing.T, port int) *nameServer {
	t.Helper()
	program(t, "knsupdate")
	dir := t.TempDir()
	n := &nameServer{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)), "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0cw=="}
	config := fmt.Sprintf(`
server:
  listen: 127.0.0.1@%d
  rundir: %s
database:
  storage: %s
key:
  - id: postroom
    algorithm: hmac-sha256
    secret: %s
acl:
  - id: postroom
    key: postroom
    action: update
zone:
  - domain: example.org
    storage: %s
    file: example.org.zone
    acl: postroom
    zonefile-sync: -1
    journal-content: all
`, n.address.Port(), dir, dir, n.secret, dir)
	for name, text := range map[string]string{"knot.conf": config, "example.org.zone": zoneText} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	daemon(t, n.address.String(), nil, "knotd", "-c", filepath.Join(dir, "knot.conf"))
	return n
}

// change runs lines of knsupdate.
func (n *nameServer) change(t *testing.T, lines ...string) {
	t.Helper()
	cmd := exec.Command("knsupdate", "-y", "hmac-sha256:postroom:"+n.secret)
	cmd.Stdin = strings.NewReader(fmt.Sprintf("server 127.0.0.1 %d\nzone example.org.\n%s\nsend\n", n.address.Port(), strings.Join(lines, "\n")))
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "error") {
		t.Fatalf("knsupdate: %v: %s", err, out)
	}
}

func tlsaLine(verb string, k tlsconf.Key) string {
	return fmt.Sprintf("%s _25._tcp.mail.example.org. 1 IN TLSA 3 1 1 %s", verb, hex.EncodeToString(k.TLSA.Data))
}

// TestACMEOverDNS gets a certificate by a record in the zone of a real name server, then rolls its key while senders that validate
// DANE come without end: none of them ever fails.
func TestACMEOverDNS(t *testing.T) {
	knot := startKnot(t, freePort(t))
	p := startPebble(t, knot.address.String(), nil)
	db := databasetest.Open(t)
	dns := newResolver(t, knot.address)
	o := p.options(t, db, dns)
	var err error
	o.ACME.Challenge = "dns-01"
	o.ACME.Provider, err = tlsconf.NewProvider(tlsconf.ProviderOptions{Kind: "rfc2136", Server: knot.address.String(), KeyName: "postroom", Secret: knot.secret})
	if err != nil {
		t.Fatal(err)
	}
	o.ACME.Pace = tlsconf.Pace{Round: 100 * time.Millisecond, Look: 200 * time.Millisecond, Margin: 500 * time.Millisecond}
	s := openSource(t, o, nil)
	store := tlsconf.NewStore(db, o.ACME.Sealer)

	// DANE holds before there is a certificate: what port 25 shows meanwhile has the key to come.
	first, err := store.Keys(t.Context(), hostname)
	if err != nil {
		t.Fatal(err)
	}
	knot.change(t, tlsaLine("add", first[0]))
	port25 := openDoors(t, s)[0]
	sender := newResolver(t, knot.address) // with a cache of its own
	clients := &load{stop: make(chan struct{})}
	for range 3 {
		clients.come(t, func() error {
			records, _, err := sender.TLSA(context.WithoutCancel(t.Context()), "_25._tcp."+hostname)
			if err != nil {
				return err
			}
			state, err := port25.greet(&tls.Config{ServerName: hostname, InsecureSkipVerify: true})
			if err != nil {
				return err
			}
			return danes(state.PeerCertificates, records)
		})
	}
	got := awaitState(t, store, tlsconf.Good)
	said, err := dns.AuthoritativeTXT(t.Context(), "_acme-challenge."+hostname)
	if err != nil || len(said) != 1 || !resolve.IsNotFound(said[0].Err) {
		t.Errorf("the challenge is still in the zone: %+v, %v", said, err)
	}

	if made, err := store.Roll(t.Context(), hostname); err != nil || !made {
		t.Fatalf("made %t, %v", made, err)
	}
	await(t, "the next key waits for its record", func() bool {
		return strings.Contains(awaitState(t, store, tlsconf.Good).Roll, "does not show its TLSA record yet")
	})
	keys, err := store.Keys(t.Context(), hostname)
	if err != nil || len(keys) != 2 || keys[0].ID() != got.Keys[0].ID() {
		t.Fatalf("keys %v, %v", keys, err)
	}
	knot.change(t, tlsaLine("add", keys[1]))
	before := clients.done.Load()
	await(t, "the next key is used", func() bool {
		now := awaitState(t, store, tlsconf.Good)
		return len(now.Keys) == 1 && now.Keys[0].ID() == keys[1].ID()
	})
	knot.change(t, tlsaLine("del", keys[0]))
	after := clients.done.Load()
	await(t, "senders have forgotten the old record", func() bool {
		records, _, err := sender.TLSA(t.Context(), "_25._tcp."+hostname)
		return err == nil && len(records) == 1
	})
	forgotten := clients.done.Load()
	await(t, "senders come after that", func() bool { return clients.done.Load() > forgotten+100 || t.Failed() })
	clients.end()
	state, err := port25.greet(&tls.Config{ServerName: hostname, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := danes(state.PeerCertificates, []resolve.TLSA{resolve.TLSA(keys[1].TLSA)}); err != nil {
		t.Errorf("the next key is not the one that is used: %v", err)
	}
	t.Logf("%d validations before the record, %d until the key changed, %d after; %d failed", before, after-before, clients.done.Load()-after, clients.failed.Load())
	if want := p.issued(); want != 2 {
		t.Errorf("%d certificates were issued, want 2", want)
	}
}

// danes holds a chain against TLSA records, as a sender does.
func danes(chain []*x509.Certificate, records []resolve.TLSA) error {
	var all []dane.TLSA
	for _, r := range records {
		all = append(all, dane.TLSA(r))
	}
	if result := dane.Verify(chain, all, []string{hostname}, time.Now()); result != dane.Verified {
		return fmt.Errorf("DANE %s with %d records", result, len(all))
	}
	return nil
}
