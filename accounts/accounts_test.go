package accounts

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
)

const password = "correct horse"

// world is a service with the accounts anna and ben at example.org.
type world struct {
	*testing.T
	db *database.DB
	s  *Service
	id map[string]int64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, db: databasetest.Open(t), id: map[string]int64{}}
	w.s = w.service()
	w.check(w.s.AddDomain(t.Context(), domain("example.org")))
	w.add("anna@example.org")
	w.add("ben@example.org")
	return w
}

// service returns one more service on the same database, as another process has.
func (w *world) service() *Service {
	w.Helper()
	s, err := New(w.Context(), w.db, Options{Cost: bcrypt.MinCost, Iterations: 4096})
	w.check(err)
	w.Cleanup(s.Close)
	return s
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) add(address string) {
	w.Helper()
	a, err := w.s.AddAccount(w.Context(), NewAccount{Address: mailbox(address), Password: password})
	w.check(err)
	w.id[address] = a.ID
}

func domain(s string) addr.Domain {
	d, err := addr.ParseDomain(s)
	if err != nil {
		panic(err)
	}
	return d
}

func mailbox(s string) addr.Address {
	a, err := addr.Parse(s)
	if err != nil {
		panic(err)
	}
	return a
}

func TestPasswords(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct {
		name, password string
		ok             bool
	}{
		{"eight letters", "12345678", true},
		{"seven letters", "1234567", false},
		{"72 octets", strings.Repeat("x", 72), true},
		{"73 octets", strings.Repeat("x", 73), false},
		{"36 letters of two octets", strings.Repeat("ü", 36), true},
		{"37 letters of two octets", strings.Repeat("ü", 37), false},
		{"NUL", "correct\x00horse", false},
		{"control character", "correct\nhorse", false},
		{"empty", "", false},
		{"a megabyte", strings.Repeat("x", 1<<20), false},
		{"blanks", "correct horse battery", true},
	} {
		err := w.s.SetPassword(t.Context(), mailbox("ben@example.org"), tc.password)
		if (err == nil) != tc.ok {
			t.Errorf("%s: set: %v, want success %t", tc.name, err, tc.ok)
		}
		_, err = w.s.LogIn(t.Context(), peer("192.0.2.1"), "ben@example.org", tc.password)
		if (err == nil) != tc.ok {
			t.Errorf("%s: login: %v, want success %t", tc.name, err, tc.ok)
		}
		w.s.throttle = newThrottle() // many wrong passwords on purpose
	}
	// RFC 8265 section 4.2.2: other blanks are blanks, and the form is NFC.
	w.check(w.s.SetPassword(t.Context(), mailbox("ben@example.org"), "gru\u0308n\u00a0horse"))
	if _, err := w.s.LogIn(t.Context(), peer("192.0.2.1"), "ben@example.org", "gr\u00fcn horse"); err != nil {
		t.Errorf("another spelling: %v", err)
	}
}

func peer(ip string) Peer {
	return Peer{Remote: netip.MustParseAddr(ip), TLS: &tls.ConnectionState{}, Use: Receive}
}

// TestRemembered shows that a second login costs no hash, for five minutes, and that the memory is bounded.
func TestRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		logIn := func() error {
			_, err := w.s.LogIn(t.Context(), peer("192.0.2.1"), "anna@example.org", password)
			return err
		}
		synctest.Wait() // until the service has heard of the accounts that were added
		w.check(logIn())
		for range cap(w.s.hashing.slots) { // nobody can hash now
			w.s.hashing.slots <- struct{}{}
		}
		for range maxHashWaiting {
			w.s.hashing.waiting <- struct{}{}
		}
		w.check(logIn())
		time.Sleep(rememberFor - time.Second)
		w.check(logIn())
		time.Sleep(time.Second)
		if err := logIn(); !errors.Is(err, ErrBusy) {
			t.Errorf("after five minutes: %v, want a hash and so ErrBusy", err)
		}
		m := newMemory()
		for i := range 2 * maxMemory {
			m.remember(m.index("x", string(rune(i))), m.now(), Login{}, Receive)
		}
		if len(m.logins) > maxMemory {
			t.Errorf("%d logins in memory", len(m.logins))
		}
		epoch := m.now()
		m.forget()
		m.remember(m.index("a", "b"), epoch, Login{}, Receive)
		if len(m.logins) != 0 {
			t.Error("a login that began before a change was remembered after it")
		}
		if m.index("ab", "c") == m.index("a", "bc") {
			t.Error("a name ran into a password")
		}
	})
}

// TestDummyHash shows that a made-up hash is compared like a real one: same cost, wrong password.
func TestDummyHash(t *testing.T) {
	h := dummyHash(5)
	if cost, err := bcrypt.Cost(h); err != nil || cost != 5 {
		t.Errorf("cost %d, %v", cost, err)
	}
	if err := bcrypt.CompareHashAndPassword(h, []byte("x")); !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkResolve(b *testing.B) {
	db := databasetest.Open(b)
	s, err := New(b.Context(), db, Options{Cost: bcrypt.MinCost, Iterations: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.AddDomain(b.Context(), domain("example.org")); err != nil {
		b.Fatal(err)
	}
	if _, err := s.AddAccount(b.Context(), NewAccount{Address: mailbox("anna@example.org"), Password: password}); err != nil {
		b.Fatal(err)
	}
	p := addr.Path{Address: mailbox("anna@example.org")}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Resolve(b.Context(), p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLogInRemembered(b *testing.B) {
	db := databasetest.Open(b)
	s, err := New(b.Context(), db, Options{Cost: bcrypt.MinCost, Iterations: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.AddDomain(b.Context(), domain("example.org")); err != nil {
		b.Fatal(err)
	}
	if _, err := s.AddAccount(b.Context(), NewAccount{Address: mailbox("anna@example.org"), Password: password}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.LogIn(b.Context(), peer("192.0.2.1"), "anna@example.org", password); err != nil {
			b.Fatal(err)
		}
	}
}

// TestChangesByOthers: what another process adds or takes away counts at once, although routes are remembered, and whether a domain
// is served here within half a second.
func TestChangesByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w := &world{T: t, db: databasetest.OpenIn(t, dir), id: map[string]int64{}}
		w.s = w.service()
		w.check(w.s.AddDomain(t.Context(), domain("example.org")))
		w.add("anna@example.org")
		other := (&world{T: t, db: databasetest.OpenIn(t, dir)}).service()
		route := func(address string) RouteKind {
			r, err := w.s.Resolve(t.Context(), addr.Path{Address: mailbox(address)})
			w.check(err)
			return r.Kind
		}
		for range 2 {
			if got := route("anna@example.org"); got != Deliver {
				t.Fatalf("anna: %v", got)
			}
		}
		if got := route("ben@example.org"); got == Deliver {
			t.Fatalf("ben: %v", got)
		}
		_, err := other.AddAccount(t.Context(), NewAccount{Address: mailbox("ben@example.org"), Password: password})
		w.check(err)
		if got := route("ben@example.org"); got != Deliver {
			t.Errorf("ben was added, and is %v", got)
		}
		_, err = other.Remove(t.Context(), mailbox("anna@example.org"))
		w.check(err)
		if got := route("anna@example.org"); got == Deliver {
			t.Error("anna was removed, and gets mail")
		}
		hosts := func() bool {
			yes, err := w.s.Hosts(t.Context(), domain("example.net"))
			w.check(err)
			return yes
		}
		if hosts() {
			t.Error("example.net is served")
		}
		w.check(other.AddDomain(t.Context(), domain("example.net")))
		time.Sleep(mayBeOld)
		if !hosts() {
			t.Error("example.net was added, and is not served")
		}
	})
}
