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

func (w *world) alias(address string, targets ...string) error {
	var to []addr.Address
	for _, t := range targets {
		to = append(to, mailbox(t))
	}
	return w.s.AddAlias(w.Context(), mailbox(address), to)
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

// TestResolve has a row for every way that an address can be looked up.
func TestResolve(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"catch.example", "empty.example", "off.example", "bücher.example"} {
		w.check(w.s.AddDomain(t.Context(), domain(name)))
	}
	w.add("a%b@example.org")
	w.add("chief@off.example")
	w.add("jürgen@bücher.example")
	w.add("gone@example.org")
	w.add("asleep@example.org")
	w.check(w.alias("team@example.org", "anna@example.org", "ben@example.org"))
	w.check(w.alias("all@example.org", "team@example.org", "anna@example.org"))
	w.check(w.alias("tagged@example.org", "anna+x@example.org"))
	w.check(w.alias("postmaster@off.example", "ben@example.org"))
	catchAll, off := "team@example.org", ""
	w.check(w.s.SetDomain(t.Context(), domain("catch.example"), DomainSettings{CatchAll: &catchAll}))
	w.check(w.s.SetDomain(t.Context(), domain("off.example"), DomainSettings{Separator: &off}))
	_, err := w.s.Remove(t.Context(), mailbox("gone@example.org"))
	w.check(err)
	w.check(w.s.Disable(t.Context(), mailbox("asleep@example.org")))
	for _, tc := range []struct {
		path string
		kind RouteKind
		to   string // addresses of the targets
	}{
		{"<anna@example.org>", Deliver, "anna@example.org"},
		{"<ANNA@Example.ORG>", Deliver, "anna@example.org"},
		{`<"anna"@example.org>`, Deliver, "anna@example.org"},
		{"<@x.example:anna@example.org>", Deliver, "anna@example.org"},
		{"<anna+shop@example.org>", Deliver, "anna@example.org"},
		{"<anna+a+b@example.org>", Deliver, "anna@example.org"},
		{"<team@example.org>", Deliver, "anna@example.org ben@example.org"},
		{"<team+x@example.org>", Deliver, "anna@example.org ben@example.org"},
		{"<all@example.org>", Deliver, "anna@example.org ben@example.org"},
		{"<tagged@example.org>", Deliver, "anna@example.org"},
		{"<asleep@example.org>", Deliver, "asleep@example.org"},
		{"<jürgen@bücher.example>", Deliver, "jürgen@xn--bcher-kva.example"},
		{"<JÜRGEN@xn--bcher-kva.example>", Deliver, "jürgen@xn--bcher-kva.example"},
		{"<ju\u0308rgen@bücher.example>", Deliver, "jürgen@xn--bcher-kva.example"},
		{"<postmaster>", Deliver, "anna@example.org"},
		{"<POSTMASTER@example.org>", Deliver, "anna@example.org"},
		{"<abuse@example.org>", Deliver, "anna@example.org"},
		{"<postmaster@off.example>", Deliver, "ben@example.org"},
		{"<abuse@off.example>", Deliver, "chief@off.example"},
		{"<postmaster@empty.example>", NobodyYet, ""},
		{"<abuse@empty.example>", NobodyYet, ""},
		{"<abuse@catch.example>", NobodyYet, ""},
		{"<anything@catch.example>", Deliver, "anna@example.org ben@example.org"},
		{"<any+thing@catch.example>", Deliver, "anna@example.org ben@example.org"},
		{"<a%b@example.org>", Deliver, "a%b@example.org"},
		{"<a%b+c@example.org>", Deliver, "a%b@example.org"},
		{"<a%c@example.org>", Routing, ""},
		{`<"a@c"@example.org>`, Routing, ""},
		{"<a!c@catch.example>", Routing, ""},
		{"<a%c@catch.example>", Routing, ""},
		{"<nobody@example.org>", UnknownUser, ""},
		{"<gone@example.org>", UnknownUser, ""},
		{"<chief+x@off.example>", UnknownUser, ""},
		{"<+anna@example.org>", UnknownUser, ""},
		{"<nobody@empty.example>", UnknownUser, ""},
		{"<anna@sub.example.org>", NotOurs, ""},
		{"<anna@[127.0.0.1]>", NotOurs, ""},
		{"<a%b@elsewhere.example>", NotOurs, ""},
	} {
		p, _, err := addr.ParseForwardPath(tc.path)
		w.check(err)
		r, err := w.s.Resolve(t.Context(), p)
		var to []string
		for _, target := range r.Targets {
			to = append(to, target.Address)
		}
		if err != nil || r.Kind != tc.kind || strings.Join(to, " ") != tc.to {
			t.Errorf("%s: %v to %v, %v; want %v to %s (%q)", tc.path, r.Kind, to, err, tc.kind, tc.to, r.Steps)
		}
		if len(r.Steps) == 0 {
			t.Errorf("%s: no step says how", tc.path)
		}
	}
	if r, err := (&Service{db: databasetest.Open(t)}).Resolve(t.Context(), addr.Path{Postmaster: true}); err != nil || r.Kind != NobodyYet {
		t.Errorf("postmaster of a server without domains: %v, %v", r.Kind, err)
	}
}

// TestAliasLoops refuses every circle before it is saved, and names it.
func TestAliasLoops(t *testing.T) {
	w := newWorld(t)
	w.check(w.alias("a@example.org", "anna@example.org"))
	w.check(w.alias("b@example.org", "a@example.org"))
	for _, tc := range []struct {
		name, address string
		targets       []string
		want          string
	}{
		{"itself", "x@example.org", []string{"x@example.org"}, "x@example.org -> x@example.org"},
		{"itself with a tag", "x@example.org", []string{"x+y@example.org"}, "circle"},
		{"itself among others", "x@example.org", []string{"anna@example.org", "x@example.org"}, "circle"},
		{"an address of somebody else", "x@example.org", []string{"x@elsewhere.example"}, "not an address of this server"},
		{"nobody", "x@example.org", []string{"nobody@example.org"}, "leads to no account"},
		{"nothing", "x@example.org", nil, "at least one address"},
		{"taken by an alias", "a@example.org", []string{"ben@example.org"}, "taken"},
		{"taken by an account, in other letters", "ANNA@example.org", []string{"ben@example.org"}, "taken"},
		{"not our domain", "x@elsewhere.example", []string{"ben@example.org"}, "there is no domain elsewhere.example"},
	} {
		if err := w.alias(tc.address, tc.targets...); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	// A circle can only be closed by an address that exists already and is made anew.
	w.check(w.alias("c@example.org", "b@example.org"))
	for _, remove := range []string{"a@example.org", "b@example.org"} {
		if err := w.s.RemoveAlias(t.Context(), mailbox(remove)); err == nil || !strings.Contains(err.Error(), "leads to") {
			t.Errorf("removing the target of another alias: %v", err)
		}
	}
	all, err := w.s.Aliases(t.Context())
	if err != nil || len(all) != 3 || all[0].Address != "a@example.org" || all[0].Targets[0] != "anna@example.org" {
		t.Errorf("%v, %v", all, err)
	}
	w.check(w.s.RemoveAlias(t.Context(), mailbox("c@example.org")))
	if err := w.s.RemoveAlias(t.Context(), mailbox("c@example.org")); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

func TestLongChain(t *testing.T) {
	w := newWorld(t)
	last := "anna@example.org"
	for i := range maxHops - 1 {
		next := "hop" + strings.Repeat("x", i) + "@example.org"
		w.check(w.alias(next, last))
		last = next
	}
	r, err := w.s.Resolve(t.Context(), addr.Path{Address: mailbox(last)})
	if err != nil || r.Kind != Deliver {
		t.Errorf("%v, %v", r.Kind, err)
	}
	var chain error
	for range 5 {
		next := "y" + last
		if chain = w.alias(next, last); chain != nil {
			break
		}
		last = next
	}
	if chain == nil || !strings.Contains(chain.Error(), "too long") {
		t.Errorf("a chain without end: %v", chain)
	}
}

// TestRemove follows an account from its removal to the day when it is forgotten.
func TestRemove(t *testing.T) {
	w := newWorld(t)
	w.check(w.alias("team@example.org", "anna@example.org"))
	if _, err := w.s.Remove(t.Context(), mailbox("anna@example.org")); err == nil || !strings.Contains(err.Error(), "team@example.org leads to") {
		t.Errorf("an alias leads there: %v", err)
	}
	w.check(w.s.RemoveAlias(t.Context(), mailbox("team@example.org")))
	id, err := w.s.Remove(t.Context(), mailbox("anna@example.org"))
	if err != nil || id != w.id["anna@example.org"] {
		t.Fatalf("%d, %v", id, err)
	}
	if _, err := w.s.LogIn(t.Context(), peer("192.0.2.1"), "anna@example.org", password); !errors.Is(err, ErrBadCredentials) {
		t.Errorf("login of a removed account: %v", err)
	}
	w.add("anna@example.org") // somebody else, with another id
	if w.id["anna@example.org"] == id {
		t.Error("an id was used again")
	}
	for _, step := range []struct {
		ago     time.Duration
		expired int
	}{{keepRemoved - time.Minute, 0}, {keepRemoved + time.Minute, 1}} {
		w.check(w.db.Write(t.Context(), func(tx *database.Tx) error {
			_, err := tx.Exec("UPDATE accounts SET removed = ? WHERE id = ?", millis(time.Now().Add(-step.ago)), id)
			return err
		}))
		if ids, err := w.s.Expired(t.Context()); err != nil || len(ids) != step.expired {
			t.Errorf("removed %v ago: %v, %v", step.ago, ids, err)
		}
	}
	w.check(w.s.Forget(t.Context(), id))
	if ids, err := w.s.Expired(t.Context()); err != nil || len(ids) != 0 {
		t.Errorf("forgotten and still there: %v, %v", ids, err)
	}
	if err := w.s.Forget(t.Context(), w.id["ben@example.org"]); err == nil {
		t.Error("an account that was not removed was forgotten")
	}
	if err := w.s.RemoveDomain(t.Context(), domain("example.org")); err == nil || !strings.Contains(err.Error(), "has 2 accounts") {
		t.Errorf("a domain with accounts: %v", err)
	}
}

func TestDomains(t *testing.T) {
	w := newWorld(t)
	if err := w.s.AddDomain(t.Context(), domain("EXAMPLE.org")); !errors.Is(err, ErrExists) {
		t.Errorf("added twice: %v", err)
	}
	if _, err := w.s.AddAccount(t.Context(), NewAccount{Address: mailbox("x@elsewhere.example"), Password: password}); !errors.Is(err, ErrNotFound) {
		t.Errorf("an account elsewhere: %v", err)
	}
	for _, bad := range []string{"elsewhere@example.net", "nobody@example.org", "no address"} {
		if err := w.s.SetDomain(t.Context(), domain("example.org"), DomainSettings{CatchAll: &bad}); err == nil {
			t.Errorf("catch-all %q was accepted", bad)
		}
	}
	catchAll, separator, wrong := "anna@example.org", "-", "ab"
	w.check(w.s.SetDomain(t.Context(), domain("example.org"), DomainSettings{CatchAll: &catchAll, Separator: &separator}))
	if err := w.s.SetDomain(t.Context(), domain("example.org"), DomainSettings{Separator: &wrong}); err == nil {
		t.Error("a separator of two letters was accepted")
	}
	d, err := w.s.Domain(t.Context(), domain("example.org"))
	if err != nil || d.CatchAll != catchAll || d.Separator != "-" || d.Accounts != 2 {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := w.s.Remove(t.Context(), mailbox("anna@example.org")); err == nil || !strings.Contains(err.Error(), "catch-all") {
		t.Errorf("the catch-all was removed: %v", err)
	}
	w.check(w.s.AddDomain(t.Context(), domain("a.example")))
	w.check(w.s.RemoveDomain(t.Context(), domain("a.example")))
	if all, err := w.s.Domains(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
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

func TestLogIn(t *testing.T) {
	w := newWorld(t)
	w.check(w.alias("me@example.org", "anna@example.org"))
	w.check(w.alias("us@example.org", "anna@example.org", "ben@example.org"))
	receive, err := w.s.AddDevice(t.Context(), mailbox("anna@example.org"), "phone", Receive)
	w.check(err)
	send, err := w.s.AddDevice(t.Context(), mailbox("anna@example.org"), "printer", Send)
	w.check(err)
	for _, tc := range []struct {
		name, user, password string
		use                  Use
		device               string
		want                 error
	}{
		{"right", "anna@example.org", password, Receive, "", nil},
		{"other letters, blanks around", " ANNA@Example.org ", password, Send, "", nil},
		{"alias", "me@example.org", password, Receive, "", nil},
		{"alias of two", "us@example.org", password, Receive, "", ErrBadCredentials},
		{"device", "anna@example.org", receive, Receive, "phone", nil},
		{"device for the wrong service", "anna@example.org", receive, Send, "", ErrWrongUse},
		{"remembered device for the wrong service", "anna@example.org", receive, Send, "", ErrWrongUse},
		{"the other device", "anna@example.org", send, Send, "printer", nil},
		{"another account's device", "ben@example.org", send, Send, "", ErrBadCredentials},
		{"tag without the rest", "anna@example.org", send[:12], Send, "", ErrBadCredentials},
		{"wrong", "anna@example.org", "wrong", Receive, "", ErrBadCredentials},
		{"empty", "anna@example.org", "", Receive, "", ErrBadCredentials},
		{"unknown", "nobody@example.org", password, Receive, "", ErrBadCredentials},
		{"no address", "anna", password, Receive, "", ErrBadCredentials},
		{"no name", "", password, Receive, "", ErrBadCredentials},
	} {
		w.s.throttle = newThrottle()
		p := peer("192.0.2.1")
		p.Use = tc.use
		l, err := w.s.LogIn(t.Context(), p, tc.user, tc.password)
		if !errors.Is(err, tc.want) || err == nil && (l.Device != tc.device || l.AccountID != w.id["anna@example.org"]) {
			t.Errorf("%s: %+v, %v; want %v", tc.name, l, err, tc.want)
		}
	}
	devices, err := w.s.Devices(t.Context(), mailbox("anna@example.org"))
	if err != nil || len(devices) != 2 || devices[0].Name != "phone" || devices[0].Use != Receive || devices[0].Used.IsZero() || devices[0].Network != "192.0.2.0/24" {
		t.Errorf("%+v, %v", devices, err)
	}
	if _, err := w.s.AddDevice(t.Context(), mailbox("anna@example.org"), "phone", Receive); !errors.Is(err, ErrExists) {
		t.Errorf("two devices of one name: %v", err)
	}
	if err := w.s.RevokeDevice(t.Context(), mailbox("anna@example.org"), "tablet"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a device that is not there: %v", err)
	}
	if err := w.s.RevokeDevice(t.Context(), mailbox("anna@example.org"), ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("the account's own password was revoked: %v", err)
	}
}

// TestChangesCount shows that every change counts at once, for remembered logins and for sessions, in this process and
// within a second in another.
func TestChangesCount(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(w *world, s *Service) error
	}{
		{"password", func(w *world, s *Service) error {
			return s.SetPassword(w.Context(), mailbox("anna@example.org"), "something else")
		}},
		{"disabled", func(w *world, s *Service) error { return s.Disable(w.Context(), mailbox("anna@example.org")) }},
		{"removed", func(w *world, s *Service) error {
			_, err := s.Remove(w.Context(), mailbox("anna@example.org"))
			return err
		}},
	} {
		for _, elsewhere := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				l, err := w.s.LogIn(t.Context(), peer("192.0.2.1"), "anna@example.org", password)
				w.check(err)
				if valid, err := w.s.StillValid(t.Context(), l); !valid || err != nil {
					t.Fatalf("valid %t, %v", valid, err)
				}
				by := w.s
				if elsewhere {
					by = w.service()
				}
				changed, stop := w.s.Changed()
				defer stop()
				w.check(tc.change(w, by))
				if elsewhere {
					time.Sleep(time.Second)
					synctest.Wait()
				}
				select {
				case <-changed:
				default:
					t.Errorf("%s, elsewhere %t: nobody was told", tc.name, elsewhere)
				}
				if valid, err := w.s.StillValid(t.Context(), l); valid || err != nil {
					t.Errorf("%s, elsewhere %t: valid %t, %v", tc.name, elsewhere, valid, err)
				}
				if _, err := w.s.LogIn(t.Context(), peer("192.0.2.1"), "anna@example.org", password); !errors.Is(err, ErrBadCredentials) {
					t.Errorf("%s, elsewhere %t: %v", tc.name, elsewhere, err)
				}
			})
		}
	}
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
