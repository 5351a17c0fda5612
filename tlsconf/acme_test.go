package tlsconf

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/postroom/postroom/internal/dane"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/resolve/zone"
)

// fakeCA issues in no time: it is the authority, its staging and the network between, in a bubble.
type fakeCA struct {
	key      *ecdsa.PrivateKey
	lifetime time.Duration

	mu     sync.Mutex // guards what follows
	orders []string   // directory and name
	fails  map[string]error
	serial int64
}

func (f *fakeCA) order(_ context.Context, directory string, _ []method, name string, key *ecdsa.PrivateKey) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.orders = append(f.orders, directory+" "+name)
	if err := f.fails[directory]; err != nil {
		return "", err
	}
	f.serial++
	template := &x509.Certificate{SerialNumber: big.NewInt(f.serial), DNSNames: []string{name}, NotBefore: time.Now(), NotAfter: time.Now().Add(f.lifetime)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), f.key)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), err
}

func (f *fakeCA) identities(context.Context) ([]string, error) { return []string{"ca.example"}, nil }

func (f *fakeCA) fail(directory string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails = map[string]error{directory: err}
}

// asked returns the orders since the last call.
func (f *fakeCA) asked() (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all, f.orders = f.orders, nil
	return all
}

// Probe reaches what is not marked as silent.
func (w *world) Probe(_ context.Context, _ method, _ string, ip netip.Addr, _ string) reach {
	if w.silent[ip] {
		return reach{err: "no answer in time"}
	}
	return reach{here: true}
}

// world is all around a source, in a bubble.
type world struct {
	ca     *fakeCA
	zone   *zone.Zone
	dns    *resolve.Resolver
	db     *database.DB
	silent map[netip.Addr]bool

	mu    sync.Mutex // guards what follows
	names []string
	alert []string
}

// told is what the operator was told.
func (w *world) told() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.alert)
}

func (w *world) tell(_ context.Context, title, _ string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alert = append(w.alert, title)
}

func (w *world) setNames(names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names = names
}

func (w *world) listNames(context.Context) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.names, nil
}

const testHost = "mail.example.org"

func newWorld(t *testing.T) *world {
	w := &world{
		ca: &fakeCA{key: testKey(t), lifetime: lifetime}, db: databasetest.Open(t), silent: map[netip.Addr]bool{},
		zone: zone.MustParse(`
			example.org. 60 IN SOA ns1.example.org. hostmaster.example.org. 1 60 60 60 60
			example.org. 60 IN NS ns1.example.org.
			ns1.example.org. 60 IN A 192.0.2.53
			mail.example.org. 60 IN A 192.0.2.1`),
	}
	w.dns = w.resolver(t)
	return w
}

func (w *world) resolver(t *testing.T) *resolve.Resolver {
	r, err := resolve.New(resolve.Options{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}, Exchange: w.zone})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// open opens a source that orders at the fake authority.
func (w *world) open(t *testing.T) *Source {
	t.Helper()
	s := &Source{log: slog.New(slog.DiscardHandler)}
	o := ACME{
		DB: w.db, Sealer: sealer(t), DNS: w.dns, HTTP: []string{":80"},
		Names: w.listNames,
		Alert: w.tell,
	}
	a, err := newACME(t.Context(), testHost, o, s.log)
	if err != nil {
		t.Fatal(err)
	}
	a.orders, a.prober, s.acme = w.ca, w, a
	ctx, cancel := context.WithCancel(t.Context())
	s.cancel = cancel
	s.running.Go(func() { a.run(ctx) })
	return s
}

func (w *world) status(t *testing.T, name string) Status {
	t.Helper()
	all, err := NewStore(w.db, sealer(t)).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("%s is not listed", name)
	return Status{}
}

// in runs a test in a bubble, with a source that is closed at its end.
func in(t *testing.T, prepare func(*testing.T, *world), test func(t *testing.T, w *world, s *Source)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		prepare(t, w)
		s := w.open(t)
		defer s.Close()
		synctest.Wait()
		test(t, w, s)
	})
}

// lifetime of certificates here: the database looks for changes of others twice a second, so that months would take minutes.
const lifetime = 3 * time.Hour

// TestLife follows a certificate for 15 hours: renewed in time, always with the same key, and nobody is ever told anything.
func TestLife(t *testing.T) {
	in(t, func(*testing.T, *world) {}, func(t *testing.T, w *world, s *Source) {
		first := w.status(t, testHost)
		for range 30 {
			time.Sleep(30 * time.Minute)
			synctest.Wait()
			if left := time.Until(s.Expires()); left < lifetime/3-time.Minute {
				t.Fatalf("%v left", left)
			}
		}
		last := w.status(t, testHost)
		if last.Keys[0].ID() != first.Keys[0].ID() {
			t.Error("the key changed")
		}
		if n := len(w.ca.asked()); n != 8 {
			t.Errorf("%d orders in 15 hours", n)
		}
		if len(w.told()) > 0 {
			t.Errorf("told %q", w.told())
		}
	})
}

// TestFails follows a renewal that fails: told at the first failure, tried again more and more slowly, told again when the certificate has
// ended, served all the time, and well again once the authority is.
func TestFails(t *testing.T) {
	in(t, func(*testing.T, *world) {}, func(t *testing.T, w *world, s *Source) {
		w.ca.asked()
		w.ca.fail(authorityOf("").directory, errors.New("out of paper"))
		time.Sleep(2*time.Hour + 35*time.Minute)
		synctest.Wait()
		got := w.status(t, testHost)
		if got.State != Failed || got.Reason != "out of paper" || got.Failures != 2 || !got.Next.After(time.Now()) || len(w.told()) != 1 {
			t.Errorf("%+v, told %q", got, w.told())
		}
		time.Sleep(90 * time.Minute)
		synctest.Wait()
		if n := len(w.ca.asked()); n != 4 || len(w.told()) != 2 || w.told()[1] != "The certificate of mail.example.org is not renewed, and ends in 0 days" {
			t.Errorf("%d orders, told %q", n, w.told())
		}
		if !s.Ready() {
			t.Error("the old certificate is not served on")
		}
		w.ca.fail("", nil)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if got := w.status(t, testHost); got.State != Good || got.Failures != 0 || time.Until(s.Expires()) < lifetime/3 {
			t.Errorf("not mended: %+v", got)
		}
	})
}

// TestStagingFirst shows that the authority that counts is not asked before somebody else has reached us.
func TestStagingFirst(t *testing.T) {
	le := authorityOf("")
	in(t, func(t *testing.T, w *world) {
		w.silent[netip.MustParseAddr("192.0.2.1")] = true
		w.ca.fail(le.staging, errors.New("timeout during connect"))
	}, func(t *testing.T, w *world, s *Source) {
		got := w.status(t, testHost)
		if asked := w.ca.asked(); fmt.Sprint(asked) != "["+le.staging+" "+testHost+"]" {
			t.Errorf("asked %v", asked)
		}
		if want := "port 80 of 192.0.2.1, an address of mail.example.org, cannot be reached from here (no answer in time), so the staging authority was asked first, in vain: timeout during connect"; got.Reason != want || len(w.told()) != 1 || w.told()[0] != "No certificate for mail.example.org" {
			t.Errorf("%+v, told %q", got, w.told())
		}
		w.ca.fail("", nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		if asked := w.ca.asked(); fmt.Sprint(asked) != "["+le.staging+" "+testHost+" "+le.directory+" "+testHost+"]" || !s.Ready() {
			t.Errorf("asked %v", asked)
		}
	})
}

// TestNames shows which names get certificates: those that lead here, as domains come and go.
func TestNames(t *testing.T) {
	in(t, func(t *testing.T, w *world) { w.setNames("MTA-STS.example.org", "autoconfig.example.org") }, func(t *testing.T, w *world, s *Source) {
		if got := w.status(t, "mta-sts.example.org"); got.State != Skipped || got.Reason != "mta-sts.example.org is not in the DNS" || len(w.told()) > 0 {
			t.Errorf("%+v, told %q", got, w.told())
		}
		if err := w.zone.Add("mta-sts.example.org. 60 IN A 192.0.2.1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(skipInterval + 2*time.Minute)
		synctest.Wait()
		if got := w.status(t, "mta-sts.example.org"); got.State != Good {
			t.Errorf("%+v", got)
		}
		for asked, want := range map[string]string{"mta-sts.example.org": "mta-sts.example.org", "MTA-STS.Example.ORG.": "mta-sts.example.org", "": testHost, "autoconfig.example.org": testHost, "x.example": testHost} {
			c, err := s.getCertificate(&tls.ClientHelloInfo{ServerName: asked})
			if err != nil || c.Leaf.DNSNames[0] != want {
				t.Errorf("asked for %q: %v, %v", asked, c, err)
			}
		}
		store := NewStore(w.db, sealer(t))
		if err := w.zone.Add("mail.customer.example. 60 IN A 192.0.2.1"); err != nil {
			t.Fatal(err)
		}
		if err := store.Add(t.Context(), "mail.customer.example"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if c, err := s.getCertificate(&tls.ClientHelloInfo{ServerName: "mail.customer.example"}); err != nil || c.Leaf.DNSNames[0] != "mail.customer.example" {
			t.Errorf("a name that was added: %v, %v", c, err)
		}
		for _, want := range []error{nil, ErrUnknownName} {
			if err := store.Remove(t.Context(), "mail.customer.example"); !errors.Is(err, want) {
				t.Errorf("removed: %v, want %v", err, want)
			}
		}
		time.Sleep(time.Second)
		if c, err := s.getCertificate(&tls.ClientHelloInfo{ServerName: "mail.customer.example"}); err != nil || c.Leaf.DNSNames[0] != testHost {
			t.Errorf("a name that was removed: %v, %v", c, err)
		}
		w.setNames()
		time.Sleep(2 * time.Minute)
		if c, err := s.getCertificate(&tls.ClientHelloInfo{ServerName: "mta-sts.example.org"}); err != nil || c.Leaf.DNSNames[0] != testHost {
			t.Errorf("a name that is gone: %v, %v", c, err)
		}
	})
}

// TestOtherNode shows that a node leaves alone what only another one asks for, and serves what that one got.
func TestOtherNode(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		if err := NewStore(w.db, sealer(t)).manage(t.Context(), "other.example", []string{"other.example"}); err != nil {
			t.Fatal(err)
		}
	}, func(t *testing.T, w *world, s *Source) {
		if got, asked := w.status(t, "other.example"), w.ca.asked(); got.State != Waiting || len(asked) != 1 {
			t.Errorf("%+v, asked %v", got, asked)
		}
		r, err := s.acme.store.row(t.Context(), "other.example")
		if err != nil {
			t.Fatal(err)
		}
		chain, err := w.ca.order(t.Context(), "", nil, "other.example", r.key)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.acme.store.keep(t.Context(), "other.example", chain, false, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if c, err := s.getCertificate(&tls.ClientHelloInfo{ServerName: "other.example"}); err != nil || c.Leaf.DNSNames[0] != "other.example" {
			t.Errorf("got %v, %v", c, err)
		}
	})
}

// TestNoCertificate shows what each kind of port does before there is one.
func TestNoCertificate(t *testing.T) {
	in(t, func(t *testing.T, w *world) { w.zone.Remove(testHost) }, func(t *testing.T, w *world, s *Source) {
		if got := w.status(t, testHost); s.Ready() || got.State != Failed || !strings.Contains(got.Reason, "has no address in the DNS") || len(w.ca.asked()) > 0 {
			t.Errorf("ready %t, %+v", s.Ready(), got)
		}
		for name, c := range map[string]*tls.Config{"logins": s.ForLogins(), "https": s.ForHTTPS()} {
			if got, err := c.GetCertificate(&tls.ClientHelloInfo{ServerName: testHost}); !errors.Is(err, ErrNoCertificate) {
				t.Errorf("%s shows %v, %v", name, got, err)
			}
		}
		made, err := s.ForMX().GetCertificate(&tls.ClientHelloInfo{ServerName: testHost})
		keys, keysErr := s.Keys(t.Context())
		if err != nil || keysErr != nil || dane.Verify([]*x509.Certificate{made.Leaf}, []dane.TLSA{keys[0].TLSA}, nil, time.Now()) != dane.Verified {
			t.Errorf("port 25 shows %v, %v", made, err)
		}
	})
}

// TestRollsUnderDANE rolls the key three times and renews in between, while a sender validates every minute with what its cache has.
func TestRollsUnderDANE(t *testing.T) {
	in(t, func(*testing.T, *world) {}, func(t *testing.T, w *world, s *Source) {
		const record = "_25._tcp.mail.example.org"
		store := NewStore(w.db, sealer(t))
		sender := w.resolver(t)
		publish := func(keys []Key) {
			w.zone.Remove(record)
			for _, k := range keys {
				if err := w.zone.Add(fmt.Sprintf("%s. 600 IN TLSA 3 1 1 %s", record, hex.EncodeToString(k.TLSA.Data))); err != nil {
					t.Fatal(err)
				}
			}
		}
		validations := 0
		pass := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Minute) {
				known, _, err := sender.TLSA(t.Context(), record)
				if err != nil {
					t.Fatal(err)
				}
				var records []dane.TLSA
				for _, k := range known {
					records = append(records, dane.TLSA(k))
				}
				c, err := s.getForMX(&tls.ClientHelloInfo{ServerName: testHost})
				if err != nil || dane.Verify([]*x509.Certificate{c.Leaf}, records, nil, time.Now()) != dane.Verified {
					t.Fatalf("at %v DANE fails, %v", time.Now(), err)
				}
				validations++
			}
		}
		for range 3 {
			old := w.status(t, testHost).Keys
			publish(old)
			pass(2 * time.Hour)
			if made, err := store.Roll(t.Context(), testHost); err != nil || !made {
				t.Fatal(made, err)
			}
			pass(30 * time.Minute)
			rolling := w.status(t, testHost)
			if len(rolling.Keys) != 2 || rolling.Keys[0].ID() != old[0].ID() || !strings.Contains(rolling.Roll, "does not show") {
				t.Fatalf("%+v", rolling)
			}
			publish(rolling.Keys)
			pass(8 * time.Minute)
			if len(w.status(t, testHost).Keys) != 2 {
				t.Error("used while the old records are remembered")
			}
			pass(30 * time.Minute)
			rolled := w.status(t, testHost)
			if len(rolled.Keys) != 1 || rolled.Keys[0].ID() != rolling.Keys[1].ID() {
				t.Fatalf("not used: %+v", rolled)
			}
		}
		t.Logf("%d validations, %d orders", validations, len(w.ca.asked()))
	})
}

// TestChallenges shows what the handler of port 80 answers itself, and that the rest passes.
func TestChallenges(t *testing.T) {
	in(t, func(*testing.T, *world) {}, func(t *testing.T, _ *world, s *Source) {
		if err := s.acme.storage.Store(t.Context(), probeAsset(testHost), []byte("NONCE")); err != nil {
			t.Fatal(err)
		}
		// What another node has begun is answered from the database.
		a, le := s.acme, authorityOf("")
		for _, c := range []struct{ name, token, directory, kind string }{
			{testHost, "production", le.directory, acme.ChallengeTypeHTTP01}, {"www.example.org", "staging", le.staging, acme.ChallengeTypeHTTP01},
			{"alpn.example.org", "alpn", le.directory, acme.ChallengeTypeTLSALPN01},
		} {
			challenge, err := json.Marshal(acme.Challenge{Type: c.kind, Token: c.token, KeyAuthorization: c.token + ".key", Identifier: acme.Identifier{Type: "dns", Value: c.name}})
			if err != nil {
				t.Fatal(err)
			}
			issuer := a.issuers.issuer(c.directory, []method{byHTTP, byALPN})
			if err := a.storage.Store(t.Context(), challengeAsset(issuer, c.name), challenge); err != nil {
				t.Fatal(err)
			}
		}
		for name, want := range map[string]string{"alpn.example.org": "ACME challenge", testHost: probePrefix + "NONCE"} {
			ours, theirs := net.Pipe()
			go func() { _ = tls.Server(theirs, s.ForHTTPS()).HandshakeContext(t.Context()); _ = theirs.Close() }() // the client sees how it went
			client := tls.Client(ours, &tls.Config{ServerName: name, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
			if err := client.HandshakeContext(t.Context()); err != nil || !strings.Contains(client.ConnectionState().PeerCertificates[0].Subject.CommonName, want) {
				t.Errorf("%s: %v, %v", name, client.ConnectionState().PeerCertificates, err)
			}
			_ = client.Close()
		}
		for name, want := range map[string]bool{"alpn.example.org": true, "stranger.example": false, "": false} {
			if got := a.issuers.pending(t.Context(), name); got != want {
				t.Errorf("a challenge for %q is pending: %t", name, got)
			}
		}
		next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "next") })
		for _, tc := range []struct{ host, path, want string }{
			{testHost, challengePath + probePrefix + "NONCE", "NONCE"},
			{testHost + ":80", challengePath + probePrefix + "NONCE", "NONCE"},
			{testHost, challengePath + probePrefix + "OTHER", "next"},
			{"other.example", challengePath + probePrefix + "NONCE", "next"},
			{testHost, challengePath + "token", "next"},
			{testHost, challengePath + "production", "production.key"},
			{testHost, challengePath + "unknown", "next"},
			{"www.example.org", challengePath + "staging", "staging.key"},
			{testHost, "/", "next"},
		} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+tc.host+tc.path, nil)
			w := httptest.NewRecorder()
			s.Challenges(next).ServeHTTP(w, r)
			if w.Body.String() != tc.want {
				t.Errorf("%s%s: %q, want %q", tc.host, tc.path, w.Body.String(), tc.want)
			}
		}
	})
}

// TestUnreadable: a row that cannot be read, such as after secret.key was replaced, keeps neither the server nor the other names from
// their certificates.
func TestUnreadable(t *testing.T) {
	const other = "mta-sts.example.org"
	for damaged, good := range map[string]string{testHost: other, other: testHost} {
		t.Run(damaged, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.setNames(other)
				if err := w.zone.Add(other + ". 60 IN A 192.0.2.1"); err != nil {
					t.Fatal(err)
				}
			}, func(t *testing.T, w *world, s *Source) {
				err := w.db.Write(t.Context(), func(tx *database.Tx) error {
					_, err := tx.Exec("UPDATE tls_certificates SET key = 'x' WHERE name = ?", damaged)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				again := w.open(t)
				defer again.Close()
				synctest.Wait()
				if c, err := again.getCertificate(&tls.ClientHelloInfo{ServerName: good}); err != nil || c.Leaf.DNSNames[0] != good {
					t.Errorf("%s: %v, %v", good, c, err)
				}
				if _, err := again.ForMX().GetCertificate(&tls.ClientHelloInfo{ServerName: testHost}); (err != nil) != (damaged == testHost) {
					t.Errorf("port 25: %v", err)
				}
			})
		})
	}
}
