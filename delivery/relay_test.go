package delivery

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/mailtest"
	"github.com/postroom/postroom/internal/secret"
	"github.com/postroom/postroom/queue"
)

func sealer(t *testing.T, octet byte) Sealer {
	t.Helper()
	k, err := secret.New(bytes.Repeat([]byte{octet}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k.For("relay")
}

func domain(t *testing.T, s string) addr.Domain {
	t.Helper()
	if s == "" {
		return addr.Domain{}
	}
	d, err := addr.ParseDomain(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRelayCheck(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   Relay
		want string // host port mode, or a part of the error
	}{
		{"starttls", Relay{Host: "Smart.Example", TLS: RelayStartTLS}, "smart.example 587 starttls"},
		{"tls", Relay{Host: "smart.example", TLS: RelayTLS}, "smart.example 465 tls"},
		{"mode not told", Relay{Host: "smart.example", Login: "a", Password: "b"}, "smart.example 587 starttls"},
		{"port", Relay{Host: "192.0.2.1", Port: 2525}, "192.0.2.1 2525 starttls"},
		{"IPv6", Relay{Host: "2001:db8::1"}, "2001:db8::1 587 starttls"},
		{"clear text", Relay{Host: "smart.example", TLS: "none"}, "neither starttls nor tls"},
		{"no host", Relay{}, "smarthost"},
		{"a host that is none", Relay{Host: "a b"}, "smarthost"},
		{"a name without a password", Relay{Host: "smart.example", Login: "a"}, "password"},
		{"a password without a name", Relay{Host: "smart.example", Password: "a"}, "password"},
		{"NUL", Relay{Host: "smart.example", Login: "a\x00b", Password: "c"}, "NUL"},
		{"line end", Relay{Host: "smart.example", Login: "a", Password: "c\r\nQUIT"}, "line end"},
		{"too long", Relay{Host: "smart.example", Login: strings.Repeat("a", 256), Password: "c"}, "too long"},
		{"both", Relay{Host: "smart.example", Sender: domain(t, "a.example"), Destination: domain(t, "b.example")}, "not for both"},
	} {
		err := tc.in.check()
		got := fmt.Sprint(tc.in.Host, " ", tc.in.Port, " ", tc.in.TLS)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, tc.want) {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestChooseRelay(t *testing.T) {
	all := []Relay{{Host: "all"}, {Sender: domain(t, "us.example"), Host: "sender"}, {Destination: domain(t, "them.example"), Host: "destination"}}
	for _, tc := range []struct {
		relays           []Relay
		from, to, expect string
	}{
		{nil, "us.example", "them.example", ""},
		{all, "us.example", "them.example", "destination"},
		{all, "us.example", "other.example", "sender"},
		{all, "other.example", "other.example", "all"},
		{all, "", "other.example", "all"},
		{all[1:], "other.example", "other.example", ""},
		{all[1:], "", "", ""},
		{all[2:], "us.example", "us.example", ""},
	} {
		got := ""
		if r := choose(tc.relays, domain(t, tc.from), domain(t, tc.to)); r != nil {
			got = r.Host
		}
		if got != tc.expect {
			t.Errorf("%s to %s: %q, want %q", tc.from, tc.to, got, tc.expect)
		}
	}
}

// TestSmarthosts is the conformance test of what is kept.
func TestSmarthosts(t *testing.T) {
	db := databasetest.Open(t)
	s := NewSmarthosts(db, sealer(t, 1))
	defer s.Close()
	ctx, them := t.Context(), domain(t, "them.example")
	list := func() string {
		all, err := s.Relays(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, r := range all {
			if r.Password != "" {
				t.Errorf("the list shows the password of %s", r.Host)
			}
			lines = append(lines, strings.Join(strings.Fields(fmt.Sprint(r.Destination, " ", r.Sender, " ", r.name(), " ", r.Login)), " "))
		}
		return strings.Join(lines, "; ")
	}
	steps := []struct {
		do   func() error
		want string
	}{
		{func() error { return s.SetRelay(ctx, Relay{Host: "one.example", Login: "anna", Password: "pw"}) }, "relay one.example:587 anna"},
		{func() error { return s.SetRelay(ctx, Relay{Host: "two.example", Destination: them, TLS: RelayTLS}) }, "relay one.example:587 anna; them.example relay two.example:465"},
		{func() error { return s.SetRelay(ctx, Relay{Host: "2001:db8::1"}) }, "relay [2001:db8::1]:587; them.example relay two.example:465"},
		{func() error { return s.RemoveRelay(ctx, addr.Domain{}, them) }, "relay [2001:db8::1]:587"},
		{func() error { return s.RemoveRelay(ctx, addr.Domain{}, addr.Domain{}) }, ""},
	}
	for i, step := range steps {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got := list(); got != step.want {
			t.Errorf("after step %d: %s, want %s", i, got, step.want)
		}
		current, err := s.current(ctx)
		if err != nil || len(current) != strings.Count(step.want, "relay ") {
			t.Errorf("after step %d: %d are used, %v", i, len(current), err)
		}
	}
	if err := s.RemoveRelay(ctx, addr.Domain{}, them); !errors.Is(err, ErrNoRelay) {
		t.Errorf("removing what is not there: %v", err)
	}
	if err := s.SetRelay(ctx, Relay{Host: "x", TLS: "no"}); err == nil || list() != "" {
		t.Errorf("a wrong smarthost: %v", err)
	}
}

// TestSealed shows that the database holds no login that can be read.
func TestSealed(t *testing.T) {
	db := databasetest.Open(t)
	s := NewSmarthosts(db, sealer(t, 1))
	defer s.Close()
	if err := s.SetRelay(t.Context(), Relay{Host: "one.example", Login: "anna", Password: "hunter2"}); err != nil {
		t.Fatal(err)
	}
	var kept []byte
	err := db.Read(t.Context(), func(tx *database.Tx) error { return tx.QueryRow("SELECT login FROM relays").Scan(&kept) })
	if err != nil || len(kept) == 0 || bytes.Contains(kept, []byte("hunter2")) || bytes.Contains(kept, []byte("anna")) {
		t.Errorf("kept %q, %v", kept, err)
	}
	if all, err := s.current(t.Context()); err != nil || all[0].Login != "anna" || string(all[0].Password) != "hunter2" {
		t.Errorf("opened %q, %v", all[0].Login, err)
	}
}

// TestRelayDelivery hands letters to a smarthost that behaves in different ways.
func TestRelayDelivery(t *testing.T) {
	cert, roots := mailtest.Certificate(t, "smart.example")
	other, _ := mailtest.Certificate(t, "smart.example")
	starttls := []string{"STARTTLS", "AUTH PLAIN LOGIN"}
	for _, tc := range []struct {
		name  string
		relay Relay
		smart *sink
		want  string
		auth  string // what is said in AUTH
	}{
		{"PLAIN", Relay{Login: "anna", Password: "pw"}, &sink{offers: starttls}, "delivered 2.0.0 | 250 2.0.0 kept", "AUTH PLAIN AGFubmEAcHc="},
		{"over TLS from the start", Relay{TLS: RelayTLS, Login: "anna", Password: "pw"}, &sink{offers: starttls, implicit: true}, "delivered 2.0.0 | 250 2.0.0 kept", "AUTH PLAIN AGFubmEAcHc="},
		{"no login", Relay{}, &sink{offers: starttls}, "delivered 2.0.0 | 250 2.0.0 kept", ""},
		{"expired credential", Relay{Login: "anna", Password: "pw"}, &sink{offers: starttls, replies: map[string]string{"AUTH": "535 5.7.8 expired"}}, "deferred 4.7.8 | 535 5.7.8 expired", "AUTH PLAIN AGFubmEAcHc="},
		{"the login repeated", Relay{Login: "anna", Password: "pw"}, &sink{offers: starttls, replies: map[string]string{"AUTH": "500 5.5.1 unknown: AUTH PLAIN AGFubmEAcHc="}},
			"deferred 4.7.8 | 500 5.5.1 unknown: AUTH PLAIN ***", "AUTH PLAIN AGFubmEAcHc="},
		{"its beginning repeated", Relay{Login: "anna", Password: "pw"}, &sink{offers: starttls, replies: map[string]string{"AUTH": "500 5.5.1 unknown \"AGFubmEAcH\""}},
			"deferred 4.7.8 | 500 5.5.1 unknown ***", "AUTH PLAIN AGFubmEAcHc="},
		{"busy", Relay{Login: "anna", Password: "pw"}, &sink{offers: starttls, replies: map[string]string{"AUTH": "454 4.7.0 later"}}, "deferred 4.7.0 | 454 4.7.0 later", "AUTH PLAIN AGFubmEAcHc="},
		{"another answer", Relay{Login: "anna", Password: "pw"}, &sink{offers: starttls, replies: map[string]string{"AUTH": "250 ok"}}, "deferred 4.4.2 local | *", "AUTH PLAIN AGFubmEAcHc="},
		{"no AUTH offered", Relay{Login: "anna", Password: "pw"}, &sink{offers: []string{"STARTTLS"}}, "deferred 4.7.8 local | the smarthost offers no login*", ""},
		{"only CRAM-MD5", Relay{Login: "anna", Password: "pw"}, &sink{offers: []string{"STARTTLS", "AUTH CRAM-MD5"}}, "deferred 4.7.8 local | the smarthost offers no login*", ""},
		{"no TLS: no login", Relay{Login: "anna", Password: "pw"}, &sink{offers: []string{"AUTH PLAIN"}}, "deferred 4.7.10 local | the host does not offer TLS", ""},
		{"TLS refused: no login", Relay{Login: "anna", Password: "pw"}, &sink{offers: starttls, replies: map[string]string{"STARTTLS": "454 no"}}, "deferred 4.7.10 local | the host refused to start TLS", ""},
		{"a certificate of somebody else: no login", Relay{Login: "anna", Password: "pw"}, &sink{offers: starttls, cert: &other}, "deferred 4.7.5 local | the certificate comes from nobody*", ""},
		{"the same over TLS from the start", Relay{TLS: RelayTLS, Login: "anna", Password: "pw"}, &sink{offers: starttls, cert: &other, implicit: true}, "deferred 4.7.5 local | the certificate comes from nobody*", ""},
		{"550 to RCPT", Relay{}, &sink{offers: starttls, replies: map[string]string{"RCPT": "550 5.1.1 nobody"}}, "failed 5.1.1 | 550 5.1.1 nobody", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, smart := newWorld(t), tc.smart
				w.options.DB, w.options.Sealer, w.options.Roots = databasetest.Open(t), sealer(t, 1), roots
				if err := w.zone.Add("smart.example. 300 IN A 192.0.2.99"); err != nil {
					t.Fatal(err)
				}
				if smart.cert == nil {
					smart.cert = &cert
				}
				w.serve("192.0.2.99", smart.serve)
				d, end := w.deliverer()
				tc.relay.Host = "smart.example"
				if err := d.relays.SetRelay(t.Context(), tc.relay); err != nil {
					t.Fatal(err)
				}
				o := send(t, d, "ben@remote.example")
				end()
				checkMatch(t, "outcome", tc.want, describeOutcome(o))
				if o.Policy != "relay" || o.Host != "smart.example" || w.calls() != "192.0.2.99" {
					t.Errorf("outcome %+v, called %s", o, w.calls())
				}
				said := ""
				for _, line := range smart.lines {
					if strings.HasPrefix(line, "AUTH") {
						said = line
					}
				}
				if said != tc.auth {
					t.Errorf("said %q, want %q", said, tc.auth)
				}
			})
		})
	}
}

// TestRelayLOGIN plays the mechanism that is a dialogue.
func TestRelayLOGIN(t *testing.T) {
	cert, roots := mailtest.Certificate(t, "smart.example")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.DB, w.options.Sealer, w.options.Roots = databasetest.Open(t), sealer(t, 1), roots
		if err := w.zone.Add("smart.example. 300 IN A 192.0.2.99"); err != nil {
			t.Fatal(err)
		}
		k := &sink{cert: &cert, implicit: true, offers: []string{"AUTH LOGIN"}, replies: map[string]string{"AUTH": "334 VXNlcm5hbWU6", "YW5UYQ==": "334 x"}}
		k.replies[strings.ToUpper(encode("anna"))] = "334 UGFzc3dvcmQ6"
		k.replies[strings.ToUpper(encode("pw"))] = "235 2.7.0 welcome"
		w.serve("192.0.2.99", k.serve)
		d, end := w.deliverer()
		if err := d.relays.SetRelay(t.Context(), Relay{Host: "smart.example", TLS: RelayTLS, Login: "anna", Password: "pw"}); err != nil {
			t.Fatal(err)
		}
		o := send(t, d, "ben@remote.example")
		end()
		checkMatch(t, "outcome", "delivered 2.0.0 | *", describeOutcome(o))
		if got := strings.Join(k.lines[1:4], " "); got != "AUTH LOGIN "+encode("anna")+" "+encode("pw") {
			t.Errorf("said %q", got)
		}
		if !strings.HasPrefix(o.TLS, tls.VersionName(tls.VersionTLS13)+" TLS_") {
			t.Errorf("TLS %q", o.TLS)
		}
	})
}

// TestRelayChanges shows that a change counts at once, that a connection with another login is not used again, and that mail
// never takes another way because a login cannot be opened.
func TestRelayChanges(t *testing.T) {
	cert, roots := mailtest.Certificate(t, "smart.example")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.DB, w.options.Sealer, w.options.Roots = databasetest.Open(t), sealer(t, 1), roots
		if err := w.zone.Add("smart.example. 300 IN A 192.0.2.99"); err != nil {
			t.Fatal(err)
		}
		w.serve("192.0.2.99", (&sink{cert: &cert, implicit: true, offers: []string{"AUTH PLAIN"}}).serve)
		w.serve("192.0.2.1", (&sink{}).serve)
		d, end := w.deliverer()
		l, to := letter(t), path(t, "ben@remote.example")
		check := func(destination, calls string) {
			t.Helper()
			if got, err := d.Destination(t.Context(), l, to); got != destination || err != nil {
				t.Errorf("destination %q, %v; want %q", got, err, destination)
			}
			if o := send(t, d, "ben@remote.example"); o.Status != queue.Delivered {
				t.Errorf("outcome %+v", o)
			}
			if w.calls() != calls {
				t.Errorf("called %s, want %s", w.calls(), calls)
			}
		}
		set := func(s Sealer, password string) {
			t.Helper()
			other := NewSmarthosts(w.options.DB, s)
			defer other.Close()
			if err := other.SetRelay(t.Context(), Relay{Host: "smart.example", TLS: RelayTLS, Login: "anna", Password: maillog.Secret(password)}); err != nil {
				t.Fatal(err)
			}
		}
		check("remote.example", "192.0.2.1")
		set(sealer(t, 1), "one")
		check("relay smart.example:465", "192.0.2.1 192.0.2.99")
		check("relay smart.example:465", "192.0.2.1 192.0.2.99")
		set(sealer(t, 1), "two")
		check("relay smart.example:465", "192.0.2.1 192.0.2.99 192.0.2.99")
		set(sealer(t, 2), "sealed with another key")
		o := send(t, d, "ben@remote.example")
		checkMatch(t, "outcome", "deferred 4.3.5 local | the login at the smarthost cannot be opened*", describeOutcome(o))
		if err := d.relays.RemoveRelay(t.Context(), addr.Domain{}, addr.Domain{}); err != nil {
			t.Fatal(err)
		}
		check("remote.example", "192.0.2.1 192.0.2.99 192.0.2.99")
		end()
	})
}

// TestMixedRoutes shows that recipients whose ways part are each sent their own way.
func TestMixedRoutes(t *testing.T) {
	cert, roots := mailtest.Certificate(t, "smart.example")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.DB, w.options.Sealer, w.options.Roots = databasetest.Open(t), sealer(t, 1), roots
		if err := w.zone.Add("smart.example. 300 IN A 192.0.2.99"); err != nil {
			t.Fatal(err)
		}
		smart, direct := &sink{cert: &cert, offers: []string{"STARTTLS", "LIMITS RCPTDOMAINMAX=1"}}, &sink{}
		w.serve("192.0.2.99", smart.serve)
		w.serve("192.0.2.1", direct.serve)
		d, end := w.deliverer()
		for _, name := range []string{"a.example", "b.example"} {
			if err := d.relays.SetRelay(t.Context(), Relay{Host: "smart.example", Destination: domain(t, name)}); err != nil {
				t.Fatal(err)
			}
		}
		all := recipients(t, "1@a.example", "2@remote.example", "3@b.example", "4@a.example")
		for i, o := range d.Deliver(t.Context(), letter(t), all, opens(letterText)) {
			if o.Status != queue.Delivered {
				t.Errorf("recipient %d: %+v", i, o)
			}
		}
		end()
		// RCPTDOMAINMAX=1: one transaction for each domain at the smarthost.
		if len(smart.letters) != 2 || len(direct.letters) != 1 {
			t.Errorf("%d letters at the smarthost, %d directly", len(smart.letters), len(direct.letters))
		}
	})
}
