// Package accountstest is the conformance suite of package accounts: what its callers rely on, whatever the database
// behind it is. It is imported by tests only.
package accountstest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/mtasts"
)

const (
	password    = "correct horse"
	maxHops     = 10 // of a chain of aliases
	keepRemoved = 30 * 24 * time.Hour
)

// Open returns a fresh database, closed by a cleanup.
type Open func(t *testing.T) *database.DB

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, open Open)
	}{
		{"routes", testResolve},
		{"alias loops", testAliasLoops},
		{"long chains of aliases", testLongChain},
		{"removal", testRemove},
		{"domains", testDomains},
		{"logins", testLogIn},
		{"changes count at once", testChangesCount},
		{"DKIM keys", testKeys},
		{"who may send as whom", testGrants},
		{"sending limits", testLimits},
		{"sending on hold", testHold},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open) })
	}
}

// world is a service with the accounts anna and ben at example.org.
type world struct {
	*testing.T
	db *database.DB
	s  *accounts.Service
	id map[string]int64
}

func newWorld(t *testing.T, open Open) *world {
	t.Helper()
	w := &world{T: t, db: open(t), id: map[string]int64{}}
	w.s = w.service()
	w.check(w.s.AddDomain(t.Context(), domain("example.org")))
	w.add("anna@example.org")
	w.add("ben@example.org")
	return w
}

// empty is a service without any domain.
func empty(t *testing.T, open Open) *accounts.Service {
	t.Helper()
	return (&world{T: t, db: open(t)}).service()
}

// service returns one more service on the same database, as another process has.
func (w *world) service() *accounts.Service {
	w.Helper()
	s, err := accounts.New(w.Context(), w.db, accounts.Options{Cost: bcrypt.MinCost, Iterations: 4096})
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
	a, err := w.s.AddAccount(w.Context(), accounts.NewAccount{Address: mailbox(address), Password: password})
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

func peer(ip string) accounts.Peer {
	return accounts.Peer{Remote: netip.MustParseAddr(ip), TLS: &tls.ConnectionState{}, Use: accounts.Receive}
}

// testResolve has a row for every way that an address can be looked up.
func testResolve(t *testing.T, open Open) {
	w := newWorld(t, open)
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
	w.check(w.s.SetDomain(t.Context(), domain("catch.example"), accounts.DomainSettings{CatchAll: &catchAll}))
	w.check(w.s.SetDomain(t.Context(), domain("off.example"), accounts.DomainSettings{Separator: &off}))
	_, err := w.s.Remove(t.Context(), mailbox("gone@example.org"))
	w.check(err)
	w.check(w.s.Disable(t.Context(), mailbox("asleep@example.org")))
	for _, tc := range []struct {
		path string
		kind accounts.RouteKind
		to   string // addresses of the targets
	}{
		{"<anna@example.org>", accounts.Deliver, "anna@example.org"},
		{"<ANNA@Example.ORG>", accounts.Deliver, "anna@example.org"},
		{`<"anna"@example.org>`, accounts.Deliver, "anna@example.org"},
		{"<@x.example:anna@example.org>", accounts.Deliver, "anna@example.org"},
		{"<anna+shop@example.org>", accounts.Deliver, "anna@example.org"},
		{"<anna+a+b@example.org>", accounts.Deliver, "anna@example.org"},
		{"<team@example.org>", accounts.Deliver, "anna@example.org ben@example.org"},
		{"<team+x@example.org>", accounts.Deliver, "anna@example.org ben@example.org"},
		{"<all@example.org>", accounts.Deliver, "anna@example.org ben@example.org"},
		{"<tagged@example.org>", accounts.Deliver, "anna@example.org"},
		{"<asleep@example.org>", accounts.Deliver, "asleep@example.org"},
		{"<jürgen@bücher.example>", accounts.Deliver, "jürgen@xn--bcher-kva.example"},
		{"<JÜRGEN@xn--bcher-kva.example>", accounts.Deliver, "jürgen@xn--bcher-kva.example"},
		{"<ju\u0308rgen@bücher.example>", accounts.Deliver, "jürgen@xn--bcher-kva.example"},
		{"<postmaster>", accounts.Deliver, "anna@example.org"},
		{"<POSTMASTER@example.org>", accounts.Deliver, "anna@example.org"},
		{"<abuse@example.org>", accounts.Deliver, "anna@example.org"},
		{"<postmaster@off.example>", accounts.Deliver, "ben@example.org"},
		{"<abuse@off.example>", accounts.Deliver, "chief@off.example"},
		{"<postmaster@empty.example>", accounts.NobodyYet, ""},
		{"<abuse@empty.example>", accounts.NobodyYet, ""},
		{"<abuse@catch.example>", accounts.NobodyYet, ""},
		{"<anything@catch.example>", accounts.Deliver, "anna@example.org ben@example.org"},
		{"<any+thing@catch.example>", accounts.Deliver, "anna@example.org ben@example.org"},
		{"<a%b@example.org>", accounts.Deliver, "a%b@example.org"},
		{"<a%b+c@example.org>", accounts.Deliver, "a%b@example.org"},
		{"<a%c@example.org>", accounts.Routing, ""},
		{`<"a@c"@example.org>`, accounts.Routing, ""},
		{"<a!c@catch.example>", accounts.Routing, ""},
		{"<a%c@catch.example>", accounts.Routing, ""},
		{"<nobody@example.org>", accounts.UnknownUser, ""},
		{"<gone@example.org>", accounts.UnknownUser, ""},
		{"<chief+x@off.example>", accounts.UnknownUser, ""},
		{"<+anna@example.org>", accounts.UnknownUser, ""},
		{"<nobody@empty.example>", accounts.UnknownUser, ""},
		{"<anna@sub.example.org>", accounts.NotOurs, ""},
		{"<anna@[127.0.0.1]>", accounts.NotOurs, ""},
		{"<a%b@elsewhere.example>", accounts.NotOurs, ""},
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
	if r, err := empty(t, open).Resolve(t.Context(), addr.Path{Postmaster: true}); err != nil || r.Kind != accounts.NobodyYet {
		t.Errorf("postmaster of a server without domains: %v, %v", r.Kind, err)
	}
}

// testAliasLoops refuses every circle before it is saved, and names it.
func testAliasLoops(t *testing.T, open Open) {
	w := newWorld(t, open)
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
	if err := w.s.RemoveAlias(t.Context(), mailbox("c@example.org")); !errors.Is(err, accounts.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

func testLongChain(t *testing.T, open Open) {
	w := newWorld(t, open)
	last := "anna@example.org"
	for i := range maxHops - 1 {
		next := "hop" + strings.Repeat("x", i) + "@example.org"
		w.check(w.alias(next, last))
		last = next
	}
	r, err := w.s.Resolve(t.Context(), addr.Path{Address: mailbox(last)})
	if err != nil || r.Kind != accounts.Deliver {
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

// testRemove follows an account from its removal to the day when it is forgotten.
func testRemove(t *testing.T, open Open) {
	w := newWorld(t, open)
	w.check(w.alias("team@example.org", "anna@example.org"))
	if _, err := w.s.Remove(t.Context(), mailbox("anna@example.org")); err == nil || !strings.Contains(err.Error(), "team@example.org leads to") {
		t.Errorf("an alias leads there: %v", err)
	}
	w.check(w.s.RemoveAlias(t.Context(), mailbox("team@example.org")))
	id, err := w.s.Remove(t.Context(), mailbox("anna@example.org"))
	if err != nil || id != w.id["anna@example.org"] {
		t.Fatalf("%d, %v", id, err)
	}
	if _, err := w.s.LogIn(t.Context(), peer("192.0.2.1"), "anna@example.org", password); !errors.Is(err, accounts.ErrBadCredentials) {
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
			_, err := tx.Exec("UPDATE accounts SET removed = ? WHERE id = ?", time.Now().Add(-step.ago).UnixMilli(), id)
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

func testDomains(t *testing.T, open Open) {
	w := newWorld(t, open)
	if err := w.s.AddDomain(t.Context(), domain("EXAMPLE.org")); !errors.Is(err, accounts.ErrExists) {
		t.Errorf("added twice: %v", err)
	}
	if _, err := w.s.AddAccount(t.Context(), accounts.NewAccount{Address: mailbox("x@elsewhere.example"), Password: password}); !errors.Is(err, accounts.ErrNotFound) {
		t.Errorf("an account elsewhere: %v", err)
	}
	for _, bad := range []string{"elsewhere@example.net", "nobody@example.org", "no address"} {
		if err := w.s.SetDomain(t.Context(), domain("example.org"), accounts.DomainSettings{CatchAll: &bad}); err == nil {
			t.Errorf("catch-all %q was accepted", bad)
		}
	}
	catchAll, separator, wrong := "anna@example.org", "-", "ab"
	w.check(w.s.SetDomain(t.Context(), domain("example.org"), accounts.DomainSettings{CatchAll: &catchAll, Separator: &separator}))
	if err := w.s.SetDomain(t.Context(), domain("example.org"), accounts.DomainSettings{Separator: &wrong}); err == nil {
		t.Error("a separator of two letters was accepted")
	}
	d, err := w.s.Domain(t.Context(), domain("example.org"))
	if err != nil || d.CatchAll != catchAll || d.Separator != "-" || d.Accounts != 2 {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := w.s.Remove(t.Context(), mailbox("anna@example.org")); err == nil || !strings.Contains(err.Error(), "catch-all") {
		t.Errorf("the catch-all was removed: %v", err)
	}
	if d.STS != mtasts.Testing {
		t.Errorf("a new domain has the MTA-STS mode %q", d.STS)
	}
	enforce, report := mtasts.Enforce, mtasts.Mode("report")
	w.check(w.s.SetDomain(t.Context(), domain("example.org"), accounts.DomainSettings{STS: &enforce}))
	if err := w.s.SetDomain(t.Context(), domain("example.org"), accounts.DomainSettings{STS: &report}); err == nil {
		t.Error("a mode that does not exist was accepted")
	}
	if d, err := w.s.Domain(t.Context(), domain("example.org")); err != nil || d.STS != enforce || d.CatchAll != catchAll {
		t.Errorf("with a policy: %+v, %v", d, err)
	}
	other := w.service()
	for name, want := range map[string]mtasts.Mode{"example.org": enforce, "www.example.org": "", "a.example": ""} {
		for range 2 { // the second time from memory
			if got, served, err := other.Served(t.Context(), domain(name)); err != nil || got != want || served != (want != "") {
				t.Errorf("%s is served with %q, %t, %v; want %q", name, got, served, err, want)
			}
		}
	}
	w.check(w.s.AddDomain(t.Context(), domain("a.example")))
	if got, served, err := other.Served(t.Context(), domain("a.example")); err != nil || got != mtasts.Testing || !served {
		t.Errorf("a new domain is served with %q, %t, %v", got, served, err)
	}
	w.check(w.s.RemoveDomain(t.Context(), domain("a.example")))
	if all, err := w.s.Domains(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}

func testLogIn(t *testing.T, open Open) {
	w := newWorld(t, open)
	w.check(w.alias("me@example.org", "anna@example.org"))
	w.check(w.alias("us@example.org", "anna@example.org", "ben@example.org"))
	receive, err := w.s.AddDevice(t.Context(), mailbox("anna@example.org"), "phone", accounts.Receive)
	w.check(err)
	send, err := w.s.AddDevice(t.Context(), mailbox("anna@example.org"), "printer", accounts.Send)
	w.check(err)
	for i, tc := range []struct {
		name, user, password string
		use                  accounts.Use
		device               string
		want                 error
	}{
		{"right", "anna@example.org", password, accounts.Receive, "", nil},
		{"other letters, blanks around", " ANNA@Example.org ", password, accounts.Send, "", nil},
		{"alias", "me@example.org", password, accounts.Receive, "", nil},
		{"alias of two", "us@example.org", password, accounts.Receive, "", accounts.ErrBadCredentials},
		{"device", "anna@example.org", receive, accounts.Receive, "phone", nil},
		{"device for the wrong service", "anna@example.org", receive, accounts.Send, "", accounts.ErrWrongUse},
		{"remembered device for the wrong service", "anna@example.org", receive, accounts.Send, "", accounts.ErrWrongUse},
		{"the other device", "anna@example.org", send, accounts.Send, "printer", nil},
		{"another account's device", "ben@example.org", send, accounts.Send, "", accounts.ErrBadCredentials},
		{"tag without the rest", "anna@example.org", send[:12], accounts.Send, "", accounts.ErrBadCredentials},
		{"wrong", "anna@example.org", "wrong", accounts.Receive, "", accounts.ErrBadCredentials},
		{"empty", "anna@example.org", "", accounts.Receive, "", accounts.ErrBadCredentials},
		{"unknown", "nobody@example.org", password, accounts.Receive, "", accounts.ErrBadCredentials},
		{"no address", "anna", password, accounts.Receive, "", accounts.ErrBadCredentials},
		{"no name", "", password, accounts.Receive, "", accounts.ErrBadCredentials},
	} {
		p := peer(fmt.Sprintf("192.0.2.%d", 10*i)) // the failures of one row are not those of the next
		p.Use = tc.use
		l, err := w.s.LogIn(t.Context(), p, tc.user, tc.password)
		if !errors.Is(err, tc.want) || err == nil && (l.Device != tc.device || l.AccountID != w.id["anna@example.org"]) {
			t.Errorf("%s: %+v, %v; want %v", tc.name, l, err, tc.want)
		}
	}
	devices, err := w.s.Devices(t.Context(), mailbox("anna@example.org"))
	if err != nil || len(devices) != 2 || devices[0].Name != "phone" || devices[0].Use != accounts.Receive || devices[0].Used.IsZero() || devices[0].Network != "192.0.2.0/24" {
		t.Errorf("%+v, %v", devices, err)
	}
	if _, err := w.s.AddDevice(t.Context(), mailbox("anna@example.org"), "phone", accounts.Receive); !errors.Is(err, accounts.ErrExists) {
		t.Errorf("two devices of one name: %v", err)
	}
	if err := w.s.RevokeDevice(t.Context(), mailbox("anna@example.org"), "tablet"); !errors.Is(err, accounts.ErrNotFound) {
		t.Errorf("a device that is not there: %v", err)
	}
	if err := w.s.RevokeDevice(t.Context(), mailbox("anna@example.org"), ""); !errors.Is(err, accounts.ErrNotFound) {
		t.Errorf("the account's own password was revoked: %v", err)
	}
}

// testChangesCount shows that every change counts at once, for remembered logins and for sessions, in this process and
// within a second in another.
func testChangesCount(t *testing.T, open Open) {
	for _, tc := range []struct {
		name   string
		change func(w *world, s *accounts.Service) error
	}{
		{"password", func(w *world, s *accounts.Service) error {
			return s.SetPassword(w.Context(), mailbox("anna@example.org"), "something else")
		}},
		{"disabled", func(w *world, s *accounts.Service) error { return s.Disable(w.Context(), mailbox("anna@example.org")) }},
		{"removed", func(w *world, s *accounts.Service) error {
			_, err := s.Remove(w.Context(), mailbox("anna@example.org"))
			return err
		}},
	} {
		for _, elsewhere := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, open)
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
				}
				synctest.Wait()
				select {
				case <-changed:
				default:
					t.Errorf("%s, elsewhere %t: nobody was told", tc.name, elsewhere)
				}
				if valid, err := w.s.StillValid(t.Context(), l); valid || err != nil {
					t.Errorf("%s, elsewhere %t: valid %t, %v", tc.name, elsewhere, valid, err)
				}
				if _, err := w.s.LogIn(t.Context(), peer("192.0.2.1"), "anna@example.org", password); !errors.Is(err, accounts.ErrBadCredentials) {
					t.Errorf("%s, elsewhere %t: %v", tc.name, elsewhere, err)
				}
			})
		}
	}
}
