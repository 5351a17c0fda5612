package inbound

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/auth"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/limit"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/mailtest"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/resolve/zone"
	"github.com/postroom/postroom/mailbox"
	"github.com/postroom/postroom/smtpd"
)

// world is a server with a few accounts, as testdata/rcpt.txt describes it.
type world struct {
	t        *testing.T
	db       *database.DB
	accounts *accounts.Service
	mailbox  *mailbox.Store
	handler  *Handler
	dns      *zone.Zone
	id       map[string]int64
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, db: databasetest.Open(t), id: map[string]int64{}}
	ctx := t.Context()
	w.accounts = must(accounts.New(ctx, w.db, accounts.Options{Cost: bcrypt.MinCost, Iterations: 1}))
	t.Cleanup(w.accounts.Close)
	w.mailbox = must(mailbox.New(w.db, mailbox.Options{}))
	t.Cleanup(func() { _ = w.mailbox.Close() })
	for _, name := range []string{"example.org", "other.example", "catch.example", "empty.example"} {
		if err := w.accounts.AddDomain(ctx, must(addr.ParseDomain(name))); err != nil {
			t.Fatal(err)
		}
	}
	for address, quota := range map[string]int64{"anna@example.org": 0, "ben@other.example": 0} {
		w.add(address, quota)
	}
	w.add("small@example.org", 1000)
	w.add("full@example.org", 1)
	w.fill("full@example.org")
	err := w.accounts.AddAlias(ctx, must(addr.Parse("team@example.org")), []addr.Address{must(addr.Parse("anna@example.org")), must(addr.Parse("ben@other.example"))})
	if err != nil {
		t.Fatal(err)
	}
	catchAll := "anna@example.org"
	if err := w.accounts.SetDomain(ctx, must(addr.ParseDomain("catch.example")), accounts.DomainSettings{CatchAll: &catchAll}); err != nil {
		t.Fatal(err)
	}
	w.dns = outside()
	w.handler = must(New(Options{
		Hostname: "mail.example.org", Accounts: w.accounts, Mailbox: w.mailbox, DB: w.db, SpoolDir: t.TempDir(),
		Auth: &auth.Verifier{DNS: resolver(t, w.dns)},
	}))
	return w
}

// remote is where the letters of the tests come from.
const remote = "192.0.2.1"

// outside is the DNS of the rest of the world.
func outside() *zone.Zone {
	return zone.MustParse(`
		outside.example. 60 IN MX 10 mail.outside.example.
		mail.outside.example. 60 IN A 192.0.2.1
		1.2.0.192.in-addr.arpa. 60 IN PTR mail.outside.example.
	`)
}

func resolver(t testing.TB, z *zone.Zone) *resolve.Resolver {
	r := must(resolve.New(resolve.Options{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}, Exchange: z}))
	t.Cleanup(r.Close)
	return r
}

// fromOutside is a connection from remote.
type fromOutside struct{ net.Conn }

func (fromOutside) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(remote + ":1025"))
}

func (w *world) add(address string, quota int64) {
	w.t.Helper()
	a, err := w.accounts.AddAccount(w.t.Context(), accounts.NewAccount{Address: must(addr.Parse(address)), Password: "correct horse", Quota: quota})
	if err != nil {
		w.t.Fatal(err)
	}
	w.id[address] = a.ID
}

// fill puts one small letter into a mailbox.
func (w *world) fill(address string) {
	w.t.Helper()
	staged := must(w.mailbox.Stage(w.t.Context(), message.NewID(), 4, strings.NewReader("x\r\n\r\n"[:4])))
	err := w.db.Write(w.t.Context(), func(tx *database.Tx) error {
		_, err := w.mailbox.Deliver(tx, staged, []mailbox.Delivery{{AccountID: w.id[address]}})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// letters returns what an account has.
func (w *world) letters(address string) (all []string) {
	w.t.Helper()
	snapshot := must(w.mailbox.Snapshot(w.t.Context(), w.id[address]))
	for _, e := range snapshot.All() {
		r, size, err := w.mailbox.Open(w.t.Context(), w.id[address], e.UID)
		if err != nil {
			w.t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || int64(len(b)) != size || size != e.Size {
			w.t.Errorf("%d octets read, %d announced, %v", len(b), size, err)
		}
		all = append(all, string(b))
	}
	return all
}

func (w *world) server() *smtpd.Server {
	return &smtpd.Server{Hostname: "mail.example.org", Handler: w.handler}
}

func TestRcpt(t *testing.T) {
	mailtest.RunDialogue(t, "testdata/rcpt.txt", func(t *testing.T, conn net.Conn) {
		newWorld(t).server().ServeConn(fromOutside{conn})
	})
}

// send hands a letter over and returns the last reply.
func (w *world) send(script string) {
	w.t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); w.server().ServeConn(fromOutside{server}) }()
	if err := mailtest.Play(client, script); err != nil {
		w.t.Error(err)
	}
	_ = client.Close()
	<-done
}

// TestKept shows what is kept of a letter: once per mailbox, octet for octet behind the trace fields, without forged
// Return-Path fields, with a line end at the end, and with its ledger rows.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.send(`C! "EHLO <evil>\r\nMAIL FROM:<ben@outside.example>\r\nRCPT TO:<anna+tag@example.org>\r\nRCPT TO:<team@example.org>\r\nRCPT TO:<nobody@example.org>\r\n"
			S~ 550 5.1.1 *
			C: DATA
			S: 354 *
			C: return-path: <forged@example.net>
			C: From: Ben <ben@outside.example>
			C: Authentication-Results: mail.example.org; dmarc=pass (forged) header.from=bank.example
			C: Subject: one
			C:
			C: ..body
			C: .
			S: 250 2.0.0 * is kept
			C! "MAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nBDAT 31 LAST\r\nFrom: b@outside.example\r\n\r\nlast"
			S~ 250 2.0.0 * is kept`)
		anna := w.letters("anna@example.org")
		if len(anna) != 2 {
			t.Fatalf("anna has %d letters: %q", len(anna), anna)
		}
		for _, want := range []string{"Return-Path: <ben@outside.example>\r\nDelivered-To: anna+tag@example.org\r\nAuthentication-Results: mail.example.org;",
			"\r\nReceived: from ", "From: Ben <ben@outside.example>\r\nSubject: one\r\n\r\n.body\r\n"} {
			if !strings.Contains(anna[0], want) {
				t.Errorf("no %q in %q", want, anna[0])
			}
		}
		if strings.Contains(anna[0], "forged") || strings.Contains(anna[0], "from <evil>") || strings.Contains(anna[0], "for <") {
			t.Errorf("kept %q", anna[0])
		}
		if !strings.HasPrefix(anna[1], "Return-Path: <>\r\nDelivered-To: anna@example.org\r\n") || !strings.HasSuffix(anna[1], "\r\nlast\r\n") {
			t.Errorf("kept %q", anna[1])
		}
		if ben := w.letters("ben@other.example"); len(ben) != 1 || !strings.Contains(ben[0], "Delivered-To: team@example.org\r\n") {
			t.Errorf("ben has %q", ben)
		}
		rows := must(maillog.OfAccount(t.Context(), w.db, w.id["anna@example.org"], 10))
		if len(rows) != 2 || rows[1].Kind != maillog.KindStored || rows[1].ReversePath != "<ben@outside.example>" || rows[1].Recipient != "anna+tag@example.org" {
			t.Errorf("ledger %+v", rows)
		}
	})
}

// TestRefusedAfterData shows that what is refused, and what fails, leaves nothing behind.
func TestRefusedAfterData(t *testing.T) {
	const envelope = `C! "EHLO c\r\nMAIL FROM:<ben@outside.example>\r\nRCPT TO:<anna@example.org>\r\nDATA\r\n"
		S~ 354 *
		`
	for _, tc := range []struct {
		name, script string
		prepare      func(w *world)
	}{
		{"loop", envelope + fmt.Sprintf("C! %q\nS: 554 5.4.6 *\nC: NOOP\nS: 250 *", strings.Repeat("Received: x\r\n", 101)+"\r\n.\r\n"), nil},
		{"header too large", envelope + fmt.Sprintf("C! %q\nS: 552 5.3.4 *\nC: NOOP\nS: 250 *", strings.Repeat("X: "+strings.Repeat("y", 990)+"\r\n", 300)+"\r\n.\r\n"), nil},
		{"too many fields", envelope + fmt.Sprintf("C! %q\nS: 552 5.3.4 *", strings.Repeat("X:\r\n", 2001)+"\r\n.\r\n"), nil},
		{"bare LF", envelope + `C! "Subject: x\n\r\n.\r\n"
			S: 550 5.5.2 *`, nil},
		{"the database is closed", envelope + `C! "From: b@outside.example\r\n\r\nx\r\n.\r\n"
			S: 451 4.3.0 local error, try again later (session *)`, func(w *world) { w.handler.DB = closedDB(w.t) }},
		{"the account is removed meanwhile", envelope + "C: <wait 2s>\n" + `C! "From: b@outside.example\r\n\r\nx\r\n.\r\n"
			S: 451 4.2.1 *`, func(w *world) {
			time.AfterFunc(time.Second, func() {
				for _, alias := range []string{"team@example.org"} {
					must(0, w.accounts.RemoveAlias(w.t.Context(), must(addr.Parse(alias))))
				}
				none := ""
				must(0, w.accounts.SetDomain(w.t.Context(), must(addr.ParseDomain("catch.example")), accounts.DomainSettings{CatchAll: &none}))
				must(w.accounts.Remove(w.t.Context(), must(addr.Parse("anna@example.org"))))
			})
		}},
		{"the spool cannot be written", envelope + fmt.Sprintf("C! %q\nS: 451 4.3.0 *", strings.Repeat(strings.Repeat("z", 70)+"\r\n", 5000)+".\r\n"),
			func(w *world) { w.handler.SpoolDir += "/not-there" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				if tc.prepare != nil {
					tc.prepare(w)
				}
				w.send(tc.script)
				if all := w.letters("anna@example.org"); len(all) > 0 {
					t.Errorf("kept %.300q", all)
				}
			})
		})
	}
}

func closedDB(t *testing.T) *database.DB {
	db := must(database.Open(t.Context(), database.Options{DataDir: t.TempDir()}))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return db
}

// TestDiskReserve shows that mail is told to come back below the reserve.
func TestDiskReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.handler.disk = limit.Reserve{Octets: 1000, Free: func() (int64, error) { return 0, nil }}
		w.send("C! \"EHLO c\\r\\nMAIL FROM:<a@b.example>\\r\\n\"\nS~ 452 4.3.1 *")
	})
}

func TestRouteReply(t *testing.T) {
	for kind, want := range map[accounts.RouteKind]int{
		accounts.Deliver: 250, accounts.UnknownUser: 550, accounts.NotOurs: 550, accounts.Routing: 550, accounts.NobodyYet: 451, 200: 451,
	} {
		if got := RouteReply(kind); got.Code != want {
			t.Errorf("%v: %v, want %d", kind, got, want)
		}
	}
}

func TestHasRoom(t *testing.T) {
	for _, tc := range []struct {
		quota, used, announced int64
		want                   bool
	}{
		{0, 1 << 40, 1 << 40, true},
		{100, 0, 0, true},
		{100, 99, 0, true}, // may overshoot by its own size
		{100, 100, 0, false},
		{100, 50, 50, true},
		{100, 50, 51, false},
		{100, 0, 101, false},
	} {
		if got := (accounts.Target{Quota: tc.quota}).HasRoom(tc.used, tc.announced); got != tc.want {
			t.Errorf("quota %d, used %d, announced %d: %t", tc.quota, tc.used, tc.announced, got)
		}
	}
}

func TestNew(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("a handler with nothing to work with")
	}
}

// BenchmarkReceive is the whole receive story without a network: envelope, spool, header, checks, one durable write of 10 KB.
// "checked" is signed with RSA-2048, and has SPF, DMARC and iprev that pass; "plain" is the same letter from a domain that
// publishes nothing, its signature's domain among them, so that nothing is hashed.
func BenchmarkReceive(b *testing.B) {
	letter, record := signedLetter(b)
	for _, checked := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "checked"}[checked], func(b *testing.B) { benchmarkReceive(b, letter, record, checked) })
	}
}

func benchmarkReceive(b *testing.B, letter, record string, checked bool) {
	db := databasetest.Open(b)
	ctx := context.Background()
	a := must(accounts.New(ctx, db, accounts.Options{Cost: bcrypt.MinCost, Iterations: 1}))
	defer a.Close()
	m := must(mailbox.New(db, mailbox.Options{}))
	defer m.Close()
	if err := a.AddDomain(ctx, must(addr.ParseDomain("example.org"))); err != nil {
		b.Fatal(err)
	}
	anna := must(addr.Parse("anna@example.org"))
	must(a.AddAccount(ctx, accounts.NewAccount{Address: anna, Password: "correct horse"}))
	z := outside()
	if checked {
		z = zone.MustParse(hostile)
		z.AddTXT("s._domainkey.evil.example", record)
	} else {
		letter = strings.Replace(letter, "DKIM-Signature:", "X-Signature:", 1)
	}
	h := must(New(Options{Hostname: "mail.example.org", Accounts: a, Mailbox: m, DB: db, SpoolDir: b.TempDir(), Auth: &auth.Verifier{DNS: resolver(b, z)}}))
	session := must(h.Connect(ctx, &smtpd.Client{ID: "x", Hello: "c", Remote: netip.MustParseAddrPort("192.0.2.1:1")}))
	from := addr.Path{Null: !checked}
	if checked {
		from.Address = must(addr.Parse("a@evil.example"))
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(letter)))
	start := cpu(b)
	n := 0
	for b.Loop() {
		n++
		tx := must(session.Mail(ctx, smtpd.Mail{From: from}))
		if err := tx.Rcpt(ctx, smtpd.Rcpt{To: addr.Path{Address: anna}}); err != nil {
			b.Fatal(err)
		}
		if reply := must(tx.Data(ctx, strings.NewReader(letter))); reply.Code != 250 {
			b.Fatal(reply)
		}
		tx.Close()
	}
	b.ReportMetric(float64((cpu(b)-start).Microseconds())/float64(n), "cpu-µs/op")
}
