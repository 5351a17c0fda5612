package retrieval

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/limit"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/mailbox"
	"github.com/postroom/postroom/pop3d"
)

const (
	anna     = "anna@example.org"
	password = "correct horse"
)

// world is a server with one account, whose maildrop has three letters.
type world struct {
	t        *testing.T
	db       *database.DB
	accounts *accounts.Service
	mailbox  *mailbox.Store
	handler  *Handler
	address  addr.Address
	id       int64
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, db: databasetest.Open(t), address: must(addr.Parse(anna))}
	w.accounts = must(accounts.New(t.Context(), w.db, accounts.Options{Cost: bcrypt.MinCost, Iterations: 1}))
	t.Cleanup(w.accounts.Close)
	w.mailbox = must(mailbox.New(w.db, mailbox.Options{}))
	t.Cleanup(func() { _ = w.mailbox.Close() })
	if err := w.accounts.AddDomain(t.Context(), must(addr.ParseDomain("example.org"))); err != nil {
		t.Fatal(err)
	}
	w.id = must(w.accounts.AddAccount(t.Context(), accounts.NewAccount{Address: w.address, Password: password})).ID
	for range 3 {
		w.deliver()
	}
	w.handler = New(t.Context(), w.accounts, w.mailbox, slog.New(slog.DiscardHandler))
	t.Cleanup(w.handler.Close)
	return w
}

func (w *world) deliver() {
	w.t.Helper()
	const letter = "Subject: x\r\n\r\nx\r\n"
	staged := must(w.mailbox.Stage(w.t.Context(), message.NewID(), int64(len(letter)), strings.NewReader(letter)))
	err := w.db.Write(w.t.Context(), func(tx *database.Tx) error {
		_, err := w.mailbox.Deliver(tx, staged, []mailbox.Delivery{{AccountID: w.id}})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// client is one connection.
type client struct {
	pop3d.Session
	mu    sync.Mutex // guards woken
	woken int
}

func (w *world) connect() *client {
	c := &client{}
	c.Session = must(w.handler.Connect(w.t.Context(), &pop3d.Client{
		ID: "x", Remote: netip.MustParseAddrPort("192.0.2.1:1234"), TLS: &tls.ConnectionState{},
		Wake: func() { c.mu.Lock(); defer c.mu.Unlock(); c.woken++ },
	}))
	return c
}

func (c *client) wasWoken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.woken > 0
}

func (w *world) logIn() (*client, pop3d.Maildrop) {
	w.t.Helper()
	c := w.connect()
	drop, err := c.LogIn(w.t.Context(), anna, password)
	if err != nil {
		w.t.Fatal(err)
	}
	return c, drop
}

func codeOf(err error) pop3d.Code {
	if r, ok := errors.AsType[*pop3d.Refusal](err); ok {
		return r.Code
	}
	return "none"
}

// TestMaildrop shows a session's view: a snapshot, deleted from all or nothing.
func TestMaildrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, drop := w.logIn()
		w.deliver() // belongs to the next session
		if drop.Len() != 3 {
			t.Fatalf("%d messages, want 3", drop.Len())
		}
		size, uidl := drop.Message(1)
		if size != 17 || len(uidl) != 26 {
			t.Errorf("size %d, unique-id %q", size, uidl)
		}
		if err := drop.Delete(t.Context(), []int{0, 2}); err != nil {
			t.Fatal(err)
		}
		if _, err := drop.Open(t.Context(), 0); codeOf(err) != pop3d.CodeSysTemp {
			t.Errorf("a message that is gone: %v", err)
		}
		drop.Close()
		_, drop = w.logIn()
		if _, again := drop.Message(0); drop.Len() != 2 || again != uidl {
			t.Errorf("%d messages, the first %q, want 2 and %q", drop.Len(), again, uidl)
		}
		// A client that goes away while its deletions are carried out does not stop them half-way.
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := drop.Delete(gone, []int{0, 1}); err != nil {
			t.Errorf("deletions of a client that is gone: %v", err)
		}
		drop.Close()
	})
}

// TestTakeOver has a row for each state that a session can be in when another one logs in.
func TestTakeOver(t *testing.T) {
	for _, tc := range []struct {
		name    string
		busy    bool
		idleFor time.Duration
		closes  time.Duration // the first session ends after so long; 0: it does not
		wait    time.Duration // what the second login waits
		code    pop3d.Code    // "" when it gets in
		taken   bool
	}{
		{"idle for long", false, 31 * time.Second, 0, 0, "", true},
		{"just idle for long enough", false, 30 * time.Second, 0, 0, "", true},
		{"idle, and long enough while waiting", false, 27 * time.Second, 0, 3 * time.Second, "", true},
		{"idle for a moment", false, time.Second, 0, 5 * time.Second, pop3d.CodeInUse, false},
		{"busy for ever", true, time.Hour, 0, 5 * time.Second, pop3d.CodeInUse, false},
		{"busy, and ends", true, time.Hour, 2 * time.Second, 2 * time.Second, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				one, first := w.logIn()
				first.Busy(tc.busy)
				time.Sleep(tc.idleFor)
				if tc.closes > 0 {
					time.AfterFunc(tc.closes, first.Close)
				}
				began := time.Now()
				second, err := w.connect().LogIn(t.Context(), anna, password)
				if waited := time.Since(began); waited != tc.wait {
					t.Errorf("waited %v, want %v", waited, tc.wait)
				}
				if (err == nil) != (tc.code == "") || err != nil && codeOf(err) != tc.code {
					t.Fatalf("got %v, want %q", err, tc.code)
				}
				if taken := !first.Busy(true); taken != tc.taken || one.wasWoken() != tc.taken {
					t.Errorf("taken %t, woken %t; want %t", taken, one.wasWoken(), tc.taken)
				}
				if tc.closes == 0 {
					first.Close() // harmless to the second
				}
				if second != nil {
					if !second.Busy(true) {
						t.Error("the second session lost the maildrop when the first one ended")
					}
					second.Close()
				}
				if _, err := w.connect().LogIn(t.Context(), anna, password); err != nil {
					t.Errorf("a login after all have ended: %v", err)
				}
			})
		})
	}
}

// TestWaiting shows that only a few logins wait, and that they get in one after the other.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, first := w.logIn()
		first.Busy(true)
		var in, refused int
		var mu sync.Mutex // guards in and refused
		var all sync.WaitGroup
		for range maxWaiting + 2 {
			all.Go(func() {
				drop, err := w.connect().LogIn(t.Context(), anna, password)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					refused++
					return
				}
				in++
				drop.Close()
			})
		}
		synctest.Wait()
		if refused != 2 {
			t.Errorf("%d logins were refused at once, want 2", refused)
		}
		first.Close()
		all.Wait()
		if in != maxWaiting {
			t.Errorf("%d logins got in, want %d", in, maxWaiting)
		}
		w.handler.drops.mu.Lock()
		defer w.handler.drops.mu.Unlock()
		if len(w.handler.drops.held) != 0 {
			t.Error("a lock is left behind")
		}
	})
}

// TestLoginEnds shows that sessions end when their login is no longer good, and others go on.
func TestLoginEnds(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(w *world) error
		ends   bool
	}{
		{"disabled", func(w *world) error { return w.accounts.Disable(w.t.Context(), w.address) }, true},
		{"password changed", func(w *world) error { return w.accounts.SetPassword(w.t.Context(), w.address, "another one") }, true},
		{"removed", func(w *world) error { _, err := w.accounts.Remove(w.t.Context(), w.address); return err }, true},
		{"quota changed", func(w *world) error { return w.accounts.SetQuota(w.t.Context(), w.address, 5) }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c, drop := w.logIn()
				drop.Busy(false)
				if err := tc.change(w); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if ended := !drop.Busy(true); ended != tc.ends || c.wasWoken() != tc.ends {
					t.Errorf("ended %t, woken %t; want %t", ended, c.wasWoken(), tc.ends)
				}
				drop.Close()
			})
		})
	}
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		sendOnly := must(w.accounts.AddDevice(t.Context(), w.address, "printer", accounts.Send))
		for _, tc := range []struct {
			name, user, password string
		}{
			{"wrong password", anna, "wrong"},
			{"nobody", "nobody@example.org", password},
			{"no address", "anna", password},
			{"send-only device", anna, sendOnly},
		} {
			if _, err := w.connect().LogIn(t.Context(), tc.user, tc.password); codeOf(err) != pop3d.CodeAuth {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
		for _, tc := range []struct {
			err  error
			want pop3d.Code
		}{
			{accounts.ErrThrottled, pop3d.CodeAuth},
			{accounts.ErrBusy, pop3d.CodeSysTemp},
			{accounts.ErrMalformed, ""},
		} {
			if r := refusalOf(tc.err); r == nil || r.Code != tc.want {
				t.Errorf("%v: %v", tc.err, r)
			}
		}
		if refusalOf(errors.New("disk on fire")) != nil {
			t.Error("an error of ours has words for the peer")
		}
	})
}

// TestSASL shows that an exchange opens the maildrop, and that an unfinished one does not.
func TestSASL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.connect()
		x := must(c.Auth(t.Context(), "PLAIN"))
		if _, err := x.Maildrop(t.Context()); err == nil {
			t.Error("an exchange that is not done opened the maildrop")
		}
		if _, done, err := x.Next(t.Context(), []byte("\x00"+anna+"\x00"+password)); !done || err != nil {
			t.Fatalf("done %t, %v", done, err)
		}
		drop, err := x.Maildrop(t.Context())
		if err != nil || drop.Len() != 3 {
			t.Fatalf("%v, %v", drop, err)
		}
		drop.Close()
		if _, err := c.Auth(t.Context(), "CRAM-MD5"); err == nil {
			t.Error("a mechanism that does not exist")
		}
		x = must(c.Auth(t.Context(), "PLAIN"))
		if _, _, err := x.Next(t.Context(), []byte("\x00"+anna+"\x00wrong")); codeOf(err) != pop3d.CodeAuth {
			t.Errorf("wrong password: %v", err)
		}
	})
}

// TestSessionsOfAccount shows that one account cannot take all connections.
func TestSessionsOfAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		connections := limit.NewConnections(limit.ConnectionLimits{PerAccount: 1})
		logIn := func() error {
			slot := must(connections.Acquire("pop3", netip.MustParseAddr("192.0.2.1")))
			session := must(w.handler.Connect(t.Context(), &pop3d.Client{Slot: slot, TLS: &tls.ConnectionState{}, Wake: func() {}}))
			drop, err := session.LogIn(t.Context(), anna, password)
			if err == nil {
				drop.Close()
			}
			return err
		}
		if err := logIn(); err != nil {
			t.Fatal(err)
		}
		if err := logIn(); codeOf(err) != pop3d.CodeSysTemp {
			t.Errorf("a second session of the account: %v", err)
		}
	})
}
