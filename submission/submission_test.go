package submission

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/auth/dkim"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/mailtest"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/internal/secret"
	"github.com/postroom/postroom/mailbox"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/smtpd"
)

const password = "correct horse battery"

// world is a submission server with the accounts anna and ben at example.org, and other.example, which is here, too.
type world struct {
	*testing.T
	db       *database.DB
	accounts *accounts.Service
	mailbox  *mailbox.Store
	queue    *queue.Queue
	id       map[string]int64
	server   *smtpd.Server
	roots    *x509.CertPool
	alerts   []string
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// store is the queue's: nothing is delivered in these tests, and alerts are kept.
type store struct {
	queue.Store
	alerts *[]string
}

func (s store) Keep(_ context.Context, _ message.ID, _ addr.Path, content []byte) (func(*database.Tx) error, bool, error) {
	return func(*database.Tx) error { *s.alerts = append(*s.alerts, string(content)); return nil }, true, nil
}

func newWorld(t *testing.T, limits accounts.SendingLimits) *world {
	t.Helper()
	w := &world{T: t, db: databasetest.Open(t), id: map[string]int64{}}
	ctx := t.Context()
	key := must(secret.New(make([]byte, 32)))
	w.accounts = must(accounts.New(ctx, w.db, accounts.Options{Cost: bcrypt.MinCost, Iterations: 4096, Seal: key.For("accounts")}))
	t.Cleanup(w.accounts.Close)
	w.mailbox = must(mailbox.New(w.db, mailbox.Options{}))
	t.Cleanup(func() { _ = w.mailbox.Close() })
	w.queue = must(queue.New(queue.Options{Hostname: "mail.example.org", DB: w.db, Store: store{alerts: &w.alerts}}))
	for _, name := range []string{"example.org", "other.example"} {
		if err := w.accounts.AddDomain(ctx, must(addr.ParseDomain(name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, address := range []string{"anna@example.org", "ben@example.org", "carl@other.example"} {
		a := must(w.accounts.AddAccount(ctx, accounts.NewAccount{Address: must(addr.Parse(address)), Password: password}))
		w.id[address] = a.ID
	}
	handler := must(New(Options{Hostname: "mail.example.org", Accounts: w.accounts, Mailbox: w.mailbox, Queue: w.queue, DB: w.db, SpoolDir: t.TempDir(), Limits: limits}))
	certificate, roots := mailtest.Certificate(t, "mail.example.org")
	w.roots = roots
	w.server = &smtpd.Server{Hostname: "mail.example.org", Handler: handler, TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}, ImplicitTLS: true, Submission: true}
	return w
}

// fromHome is a connection from the address of a client, which must not leave.
type fromHome struct{ net.Conn }

const home = "198.51.100.77"

func (fromHome) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(home + ":1025"))
}

// send plays a conversation with a client that has not logged in.
func (w *world) send(script string) {
	w.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); w.server.ServeConn(fromHome{server}) }()
	secure := tls.Client(client, &tls.Config{RootCAs: w.roots, ServerName: "mail.example.org"})
	if err := mailtest.Play(secure, script); err != nil {
		w.Error(err)
	}
	_ = client.Close()
	<-done
	w.private()
}

// private holds every letter that leaves against what nobody outside may learn. It is part of every test.
func (w *world) private() {
	w.Helper()
	entries, contents := w.queued()
	for i, content := range contents {
		for _, secret := range []string{home, "laptop.home.example", password} {
			if strings.Contains(content, secret) {
				w.Errorf("a letter tells %q:\n%s", secret, content)
			}
		}
		if entries[i].Account == 0 {
			w.Errorf("a letter of nobody: %+v", entries[i])
		}
	}
}

// login is the beginning of a conversation.
func login(address string) string {
	return "S: 220 *\nC: EHLO laptop.home.example\nS~ 250 *\nC: AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+address+"\x00"+password)) + "\nS: 235 2.7.0 *\n"
}

// mails is a letter from anna to one recipient.
func mails(to, text string) string {
	return "C: MAIL FROM:<anna@example.org>\nS: 250 *\nC: RCPT TO:<" + to + ">\nS: 250 *\nC: DATA\nS: 354 *\n" + text + "C: .\n"
}

const plain = "C: From: Anna <anna@example.org>\nC: Subject: hello\nC:\nC: body\n"

// letters are those in the mailbox of an address.
func (w *world) letters(address string) (all []string) {
	w.Helper()
	snap := must(w.mailbox.Snapshot(w.Context(), w.id[address]))
	for _, e := range snap.All() {
		r, _, err := w.mailbox.Open(w.Context(), w.id[address], e.UID)
		if err != nil {
			w.Fatal(err)
		}
		all = append(all, string(must(io.ReadAll(r))))
		_ = r.Close()
	}
	return all
}

// queued are the contents of the letters in the queue.
func (w *world) queued() (entries []queue.Entry, contents []string) {
	w.Helper()
	entries = must(w.queue.List(w.Context(), queue.Filter{}, 100))
	for _, e := range entries {
		var blob int64
		if err := w.db.ReadRow(w.Context(), "SELECT blob_id FROM queue_letters WHERE message = ?", []any{e.Message.String()}, &blob); err != nil {
			w.Fatal(err)
		}
		r := must(w.mailbox.OpenHeld(w.Context(), blob, e.Message))
		contents = append(contents, string(must(io.ReadAll(r))))
		_ = r.Close()
	}
	return entries, contents
}

// TestRefused has a row for each thing that is not taken.
func TestRefused(t *testing.T) {
	w := newWorld(t, accounts.SendingLimits{})
	for name, script := range map[string]string{
		"no login":         "S: 220 *\nC: EHLO x\nS~ 250 *\nC: MAIL FROM:<anna@example.org>\nS: 530 5.7.0 *",
		"wrong password":   "S: 220 *\nC: EHLO x\nS~ 250 *\nC: AUTH PLAIN AGFubmFAZXhhbXBsZS5vcmcAd3Jvbmc=\nS: 535 5.7.8 *\nC: MAIL FROM:<anna@example.org>\nS: 530 5.7.0 *",
		"another's sender": login("anna@example.org") + "C: MAIL FROM:<ben@example.org>\nS: 553 5.7.1 *ben@example.org*",
		"a foreign sender": login("anna@example.org") + "C: MAIL FROM:<anna@elsewhere.example>\nS: 553 5.7.1 *anna@elsewhere.example*",
		"another's From":   login("anna@example.org") + mails("x@far.example", "C: From: ben@example.org\nC:\nC: x\n") + "S: 550 5.7.1 *ben@example.org*",
		"one of two From":  login("anna@example.org") + mails("x@far.example", "C: From: anna@example.org, ben@example.org\nC:\nC: x\n") + "S: 550 5.7.1 *ben@example.org*",
		"another's Sender": login("anna@example.org") + mails("x@far.example", "C: From: anna@example.org\nC: Sender: ben@example.org\nC:\nC: x\n") + "S: 550 5.7.1 *ben@example.org*",
		"another's Resent": login("anna@example.org") + mails("x@far.example", "C: From: anna@example.org\nC: Resent-From: x@elsewhere.example\nC:\nC: x\n") + "S: 550 5.7.1 *x@elsewhere.example*",
		"no such Sender":   login("anna@example.org") + mails("x@far.example", "C: From: anna@example.org\nC: Sender: <<\nC:\nC: x\n") + "S: 550 5.6.0 *",
		"two From fields":  login("anna@example.org") + mails("x@far.example", "C: From: anna@example.org\nC: From: anna@example.org\nC:\nC: x\n") + "S: 550 5.6.0 *",
		"no From":          login("anna@example.org") + mails("x@far.example", "C: Subject: x\nC:\nC: x\n") + "S: 550 5.6.0 *",
		"malformed header": login("anna@example.org") + mails("x@far.example", "C: From: anna@example.org\nC: what is this\nC:\nC: x\n") + "S: 550 5.6.0 *",
		"nobody here":      login("anna@example.org") + "C: MAIL FROM:<anna@example.org>\nS: 250 *\nC: RCPT TO:<nobody@other.example>\nS: 550 5.1.1 *",
		"a literal":        login("anna@example.org") + "C: MAIL FROM:<anna@example.org>\nS: 250 *\nC: RCPT TO:<x@[192.0.2.1]>\nS: 550 5.1.2 *",
	} {
		t.Run(name, func(t *testing.T) {
			w.T = t
			w.send(script)
		})
	}
	w.T = t
	if entries, _ := w.queued(); len(entries) != 0 || len(w.letters("ben@example.org")) != 0 {
		t.Errorf("kept: %v", entries)
	}
}

// TestKept follows a letter to a mailbox here and to two servers elsewhere: what it lacked is there, it is signed with both keys,
// and nothing tells where it came from.
func TestKept(t *testing.T) {
	w := newWorld(t, accounts.SendingLimits{})
	w.send(login("anna@example.org") + `C: MAIL FROM:<anna@example.org> RET=HDRS ENVID=x1
		S: 250 *
		C: RCPT TO:<carl@other.example>
		S: 250 *
		C: RCPT TO:<zoe@far.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;zoe@far.example
		S: 250 *
		C: RCPT TO:<yan@near.example>
		S: 250 *
		C: DATA
		S: 354 *
		C: From: Anna <anna@example.org>
		C: Bcc: secret@far.example
		C: Return-Path: <x@y.example>
		C: Subject: hello
		C:
		C: ..body
		C: .
		S: 250 2.0.0 * is kept
		C: QUIT
		S: 221 *`)
	entries, contents := w.queued()
	if len(entries) != 2 || entries[0].Recipient != "<zoe@far.example>" || entries[1].Recipient != "<yan@near.example>" || entries[0].From != "<anna@example.org>" || entries[0].Account != w.id["anna@example.org"] {
		t.Fatalf("queued: %+v", entries)
	}
	carl := w.letters("carl@other.example")
	if len(carl) != 1 || !strings.HasPrefix(carl[0], "Return-Path: <anna@example.org>\r\nDelivered-To: carl@other.example\r\n") || !strings.HasSuffix(carl[0], contents[0]) {
		t.Fatalf("carl has %q, queued is %q", carl, contents[0])
	}
	letter := contents[0]
	for _, must := range []string{"\r\nDate: ", "\r\nMessage-ID: <", "@example.org>\r\n", "\r\nFrom: Anna <anna@example.org>\r\nSubject: hello\r\n\r\n.body\r\n", "DKIM-Signature: "} {
		if !strings.Contains(letter, must) {
			t.Errorf("no %q in %q", must, letter)
		}
	}
	for _, never := range []string{home, "laptop", "home.example", "Bcc", "secret@", "x@y.example", "anna@example.org\r\n\tby", "from "} {
		if strings.Contains(letter, never) {
			t.Errorf("%q leaves: %q", never, letter)
		}
	}
	w.verified(letter, 2)
	for _, table := range []string{"queue_recipients WHERE notify = 'SUCCESS,FAILURE' AND original = 'rfc822;zoe@far.example'", "queue_letters WHERE ret = 'HDRS' AND envid = 'x1' AND pending = 2", "ledger WHERE kind = 'stored'"} {
		var n int
		if err := w.db.ReadRow(t.Context(), "SELECT count(*) FROM "+table, nil, &n); err != nil || n != 1 {
			t.Errorf("%s: %d, %v", table, n, err)
		}
	}
}

// verified wants so many good signatures, of the keys that the domain publishes.
func (w *world) verified(letter string, want int) {
	w.Helper()
	records := map[string]string{}
	for _, k := range must(w.accounts.DKIMKeys(w.Context(), must(addr.ParseDomain("example.org")))) {
		kind, _, _ := strings.Cut(k.Algorithm, "-")
		records[k.Selector+"._domainkey.example.org"] = "v=DKIM1; k=" + kind + "; p=" + k.Public
	}
	header := must(message.ReadHeader(strings.NewReader(letter), message.HeaderLimits{}))
	results := dkim.Verify(w.Context(), dkim.Letter{Content: bytes.NewReader([]byte(letter)), Size: int64(len(letter)), Header: header},
		dkim.Options{TXT: func(_ context.Context, name string) ([]string, error) { return []string{records[name]}, nil }})
	good := 0
	for _, r := range results {
		if r.Status == dkim.Pass {
			good++
		}
	}
	if good != want || len(results) != want {
		w.Errorf("%d good signatures of %d, want %d: %+v", good, len(results), want, results)
	}
}

// TestNormalised: line ends of one octet become two, and a letter that is only for mailboxes here is not queued.
func TestNormalised(t *testing.T) {
	w := newWorld(t, accounts.SendingLimits{})
	w.send(login("anna@example.org") + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<ben@example.org>\nS: 250 *\nC: DATA\nS: 354 *\n" +
		`C! "From: anna@example.org\nDate: Thu, 01 Oct 2026 10:00:00 +0000\nMessage-ID: <1@example.org>\n\none\rtwo\r\n.\r\n"` + "\nS: 250 *")
	ben := w.letters("ben@example.org")
	if len(ben) != 1 || !strings.HasPrefix(ben[0], "Return-Path: <>\r\n") || !strings.HasSuffix(ben[0], "From: anna@example.org\r\nDate: Thu, 01 Oct 2026 10:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n\r\none\r\ntwo\r\n") {
		t.Errorf("%q", ben)
	}
	if entries, _ := w.queued(); len(entries) != 0 {
		t.Errorf("queued: %v", entries)
	}
}

// TestLimits: an account that sends too much is stopped: nothing bounces, what is queued waits, and one command lets it go on.
func TestLimits(t *testing.T) {
	w := newWorld(t, accounts.SendingLimits{Hour: 3, Day: 100, Strangers: 100})
	for range 3 {
		w.send(login("anna@example.org") + mails("x@far.example", plain) + "S: 250 *")
	}
	w.send(login("anna@example.org") + mails("x@far.example", plain) + "S: 450 4.7.1 *")
	w.send(login("anna@example.org") + mails("ben@example.org", plain) + "S: 450 4.7.1 *")
	w.send(login("ben@example.org") + strings.ReplaceAll(mails("x@far.example", plain), "anna@", "ben@") + "S: 250 *")
	held := map[queue.State]int{}
	entries, _ := w.queued()
	for _, e := range entries {
		held[e.State]++
	}
	if held[queue.AccountHeld] != 3 || held[queue.Waiting] != 1 {
		t.Errorf("%v", held)
	}
	if all := must(w.accounts.HeldAccounts(t.Context())); len(all) != 1 || all[0].Account != w.id["anna@example.org"] || time.Since(all[0].Since) > time.Hour {
		t.Errorf("held accounts: %+v", all)
	}
	if len(w.alerts) != 1 || !strings.Contains(w.alerts[0], "Subject: [postroom] Sending is on hold for anna@example.org\r\n") ||
		!strings.Contains(w.alerts[0], "queue release --account anna@example.org\r\n") || !strings.Contains(w.alerts[0], "3 recipients in the queue wait") ||
		!strings.Contains(w.alerts[0], "came from "+home) {
		t.Errorf("alerts: %q", w.alerts)
	}
	err := w.db.Write(t.Context(), func(tx *database.Tx) error {
		if was, err := accounts.ReleaseSending(tx, w.id["anna@example.org"]); err != nil || !was {
			t.Errorf("%v, %v", was, err)
		}
		_, err := w.queue.ReleaseAccount(tx, w.id["anna@example.org"])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w.send(login("anna@example.org") + mails("x@far.example", plain) + "S: 250 *")
	if entries, _ := w.queued(); len(entries) != 5 || entries[0].State != queue.Waiting {
		t.Errorf("%+v", entries)
	}
}

// TestHeaderOnly: a letter without a body, and without the empty line, gets that line, and is signed.
func TestHeaderOnly(t *testing.T) {
	w := newWorld(t, accounts.SendingLimits{})
	w.send(login("anna@example.org") + mails("x@far.example", "C: From: anna@example.org\nC: Subject: alarm\n") + "S: 250 *")
	w.send(login("anna@example.org") + mails("x@far.example", "C: From: anna@example.org\nC: Subject: alarm\nC:\n") + "S: 250 *")
	_, contents := w.queued()
	for _, content := range contents {
		if !strings.HasSuffix(content, "Subject: alarm\r\n\r\n") || strings.Count(content, "DKIM-Signature:") != 2 {
			t.Errorf("%q", content)
		}
	}
	header := []byte("From: anna@example.org\r\nSubject: x")
	for content, want := range map[string]string{
		string(header): "\r\n\r\n", string(header) + "\r\n": "\r\n", string(header) + "\r\n\r\n": "", string(header) + "\r\n\r\nbody": "", "\r\nbody": "", "": "",
	} {
		r := strings.NewReader(content)
		h := must(message.ReadHeader(r, message.HeaderLimits{}))
		if got := must(missingEnd(r, int64(len(content)), h)); string(got) != want {
			t.Errorf("%q lacks %q, not %q", content, want, got)
		}
	}
}

// TestConfirm: who asks for it is told that a letter has reached mailboxes here.
func TestConfirm(t *testing.T) {
	for notify, want := range map[string]int{"": 0, " NOTIFY=FAILURE": 0, " NOTIFY=NEVER": 0, " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;ben+2B1@example.org": 1} {
		t.Run(notify, func(t *testing.T) {
			w := newWorld(t, accounts.SendingLimits{})
			w.send(login("anna@example.org") + "C: MAIL FROM:<anna@example.org> ENVID=QQ1\nS: 250 *\nC: RCPT TO:<ben@example.org>" + notify + "\nS: 250 *\nC: DATA\nS: 354 *\n" +
				plain + "C: .\nS: 250 *")
			if len(w.alerts) != want {
				t.Fatalf("%d notices, want %d", len(w.alerts), want)
			}
			if want == 0 {
				return
			}
			for _, line := range []string{"Subject: Delivered: hello", "Original-Envelope-Id: QQ1", "Original-Recipient: rfc822; ben+1@example.org", "Final-Recipient: rfc822; ben@example.org",
				"Action: delivered", "Status: 2.0.0"} {
				if !strings.Contains(w.alerts[0], "\r\n"+line+"\r\n") {
					t.Errorf("%q is not in\n%s", line, w.alerts[0])
				}
			}
		})
	}
}

// TestLineEnds: what programs on this machine write gets the line ends of mail.
func TestLineEnds(t *testing.T) {
	for in, want := range map[string]string{"": "", "a\nb": "a\r\nb", "a\r\nb\n": "a\r\nb\r\n", "a\rb": "a\r\nb", "\n\n": "\r\n\r\n", "a\r\r\n": "a\r\n\r\n", "a\r": "a\r\n"} {
		for _, piece := range []int{1, 3, 100} {
			r := &crlf{r: bufio.NewReader(strings.NewReader(in))}
			var got []byte
			buffer := make([]byte, piece)
			for {
				n, err := r.Read(buffer)
				got = append(got, buffer[:n]...)
				if err != nil {
					break
				}
			}
			if string(got) != want {
				t.Errorf("%q in pieces of %d: %q, want %q", in, piece, got, want)
			}
		}
	}
}
