package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/message"
)

// world is a queue with a store in memory and other sides that do as they are told.
type world struct {
	*testing.T
	db  *database.DB
	q   *Queue
	log bytes.Buffer

	mu       sync.Mutex // guards what follows
	content  map[int64][]byte
	boxes    map[string][]string // notices, by recipient here
	here     map[string]bool
	next     int64
	calls    []call
	answer   func(ctx context.Context, c call) []Outcome
	released []int64
	broken   time.Time // until then nothing can be written down
}

// call is one Deliver.
type call struct {
	at     time.Duration // since the world began
	letter Letter
	to     []string
	open   func(context.Context) (io.ReadCloser, error)
}

var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // when bubbles begin

func newWorld(t *testing.T, o Options) *world {
	t.Helper()
	w := &world{T: t, db: databasetest.Open(t), content: map[int64][]byte{}, boxes: map[string][]string{}, here: map[string]bool{"<anna@example.org>": true, "<postmaster>": true}}
	o.Hostname, o.DB, o.Deliverer, o.Store = "mail.example.org", w.db, w, w
	o.Log = slog.New(slog.NewTextHandler(&lockedWriter{w: &w.log}, nil))
	var err error
	if w.q, err = New(o); err != nil {
		t.Fatal(err)
	}
	return w
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// sleep lets time pass, and what it brings end.
func (w *world) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// run runs the queue until stop is called.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.q.Run(ctx) }()
	return func() { cancel(); <-done }
}

func path(s string) addr.Path {
	p, err := parsePath(s)
	if err != nil {
		panic(err)
	}
	return p
}

const letterText = "From: Anna <anna@example.org>\r\nSubject: hello\r\n\r\nbody\r\n"

// add puts a letter into the queue, as submission does.
func (w *world) add(l Letter, to ...Recipient) message.ID {
	w.Helper()
	if l.ID.IsZero() {
		l.ID = message.NewID()
	}
	if l.From == (addr.Path{}) {
		l.From, l.Account = path("<anna@example.org>"), 1
	}
	if l.Created.IsZero() {
		l.Created = time.Now()
	}
	l.Size = int64(len(letterText))
	blob := w.keep([]byte(letterText))
	if err := w.db.Write(w.Context(), func(tx *database.Tx) error { return w.q.Add(tx, l, blob, to) }); err != nil {
		w.Fatal(err)
	}
	return l.ID
}

func to(addresses ...string) (all []Recipient) {
	for _, a := range addresses {
		all = append(all, Recipient{To: path("<" + a + ">")})
	}
	return all
}

func (w *world) keep(content []byte) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	w.content[w.next] = content
	return w.next
}

func (w *world) Destination(_ context.Context, _ Letter, to addr.Path) (string, error) {
	return to.Address.Domain.ASCII(), nil
}

func (w *world) Deliver(ctx context.Context, l Letter, to []Recipient, open func(context.Context) (io.ReadCloser, error)) []Outcome {
	c := call{at: time.Since(epoch), letter: l, open: open}
	for _, r := range to {
		c.to = append(c.to, r.To.Address.String())
	}
	w.mu.Lock()
	w.calls = append(w.calls, c)
	answer := w.answer
	w.mu.Unlock()
	if answer == nil {
		return all(c, delivered)
	}
	return answer(ctx, c)
}

var (
	delivered = Outcome{Status: Delivered, Reply: "250 2.0.0 ok", Enhanced: "2.0.0", Remote: true, Host: "mx.example.net", Address: "192.0.2.1", TLS: "TLS 1.3", Policy: "dane"}
	deferred  = Outcome{Status: Deferred, Reply: "451 4.7.1 later", Enhanced: "4.7.1", Remote: true, Host: "mx.example.net", Address: "192.0.2.1", Policy: "opportunistic"}
	failed    = Outcome{Status: Failed, Reply: "550 5.1.1 nobody here", Enhanced: "5.1.1", Remote: true, Host: "mx.example.net", Address: "192.0.2.1", Policy: "opportunistic"}
)

func all(c call, o Outcome) []Outcome { return slices.Repeat([]Outcome{o}, len(c.to)) }

func (w *world) Open(_ context.Context, blob int64, _ message.ID) (io.ReadCloser, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	content, ok := w.content[blob]
	if !ok {
		return nil, ErrNoContent
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}

func (w *world) Release(_ *database.Tx, blob int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Now().Before(w.broken) {
		return errors.New("the disk is full")
	}
	delete(w.content, blob)
	w.released = append(w.released, blob)
	return nil
}

func (w *world) Keep(_ context.Context, _ message.ID, to addr.Path, content []byte) (func(*database.Tx) error, bool, error) {
	if !w.here[to.String()] {
		return nil, false, nil
	}
	return func(*database.Tx) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.boxes[to.String()] = append(w.boxes[to.String()], string(content))
		return nil
	}, true, nil
}

func (w *world) Hold(_ context.Context, _ message.ID, content []byte) (func(*database.Tx) (int64, error), error) {
	return func(*database.Tx) (int64, error) { return w.keep(content), nil }, nil
}

// count is how many rows a table has.
func (w *world) count(table string) (n int) {
	w.Helper()
	if err := w.db.ReadRow(w.Context(), "SELECT count(*) FROM "+table, nil, &n); err != nil {
		w.Fatal(err)
	}
	return n
}

// empty sees that nothing is left of any letter.
func (w *world) empty() {
	w.Helper()
	for _, table := range []string{"queue_letters", "queue_recipients", "queue_attempts"} {
		if n := w.count(table); n != 0 {
			w.Errorf("%d rows are left in %s", n, table)
		}
	}
	if len(w.content) != 0 {
		w.Errorf("%d contents are left", len(w.content))
	}
}

// TestSent: a letter leaves at once, in one batch for each domain, and nothing of it stays but its ledger rows.
func TestSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.run()()
		w.add(Letter{UTF8: true, EightBit: true, RequireTLS: true, TLSOptional: true, Return: "FULL", EnvelopeID: "x"}, to("a@one.example", "b@two.example", "c@one.example")...)
		synctest.Wait()
		w.sleep(time.Second)
		if len(w.calls) != 2 {
			t.Fatalf("%+v", w.calls)
		}
		for _, c := range w.calls {
			if n := len(c.to); c.at > time.Second || n != map[bool]int{true: 2, false: 1}[strings.HasSuffix(c.to[0], "@one.example")] {
				t.Errorf("%v", c)
			}
			if l := c.letter; !l.UTF8 || !l.EightBit || !l.RequireTLS || !l.TLSOptional || l.Return != "FULL" || l.EnvelopeID != "x" || l.Account != 1 || l.From.String() != "<anna@example.org>" {
				t.Errorf("%+v", l)
			}
		}
		w.empty()
		if n := w.count("ledger WHERE kind = 'sent'"); n != 3 {
			t.Errorf("%d rows in the ledger", n)
		}
		if len(w.boxes) != 0 {
			t.Errorf("notices: %v", w.boxes)
		}
	})
}

// TestSchedule: a letter that is not taken is tried until it is too old, its sender hears after four hours that it is late, and at the
// end that it failed.
func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{GiveUp: 5 * time.Hour})
		w.answer = func(_ context.Context, c call) []Outcome { return all(c, deferred) }
		defer w.run()()
		w.add(Letter{}, to("a@one.example")...)
		w.sleep(8 * time.Hour)
		last := time.Duration(0)
		for i, c := range w.calls[1 : len(w.calls)-1] {
			d := schedule[min(i, len(schedule)-1)]
			if gap := c.at - last; gap < d*9/10-time.Second || gap > d*11/10+time.Minute {
				t.Errorf("try %d after %v, want about %v", i+2, gap, d)
			}
			last = c.at
		}
		if last = w.calls[len(w.calls)-1].at; last < 5*time.Hour || last > 5*time.Hour+time.Minute {
			t.Errorf("given up after %v", last)
		}
		box := w.boxes["<anna@example.org>"]
		if len(box) != 2 || !strings.Contains(box[0], "Action: delayed\r\nStatus: 4.7.1\r\n") || !strings.Contains(box[0], "Will-Retry-Until: ") ||
			!strings.Contains(box[1], "Action: failed\r\nStatus: 5.4.7\r\n") {
			t.Errorf("notices: %q", box)
		}
		w.empty()
	})
}

// TestPartly: each recipient has its own fate, and only those that were not taken are tried again.
func TestPartly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		tries := 0
		w.answer = func(_ context.Context, c call) []Outcome {
			tries++
			if tries > 1 {
				return all(c, delivered)
			}
			return []Outcome{delivered, deferred, failed}
		}
		defer w.run()()
		w.add(Letter{}, to("a@one.example", "b@one.example", "c@one.example")...)
		w.sleep(time.Hour)
		if len(w.calls) != 2 || !slices.Equal(w.calls[1].to, []string{"b@one.example"}) {
			t.Errorf("%+v", w.calls)
		}
		box := w.boxes["<anna@example.org>"]
		if len(box) != 1 || !strings.Contains(box[0], "Final-Recipient: rfc822; c@one.example\r\nAction: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.example.net\r\nDiagnostic-Code: smtp; 550 5.1.1 nobody here\r\n") ||
			strings.Contains(box[0], "b@one.example") {
			t.Errorf("notices: %q", box)
		}
		w.empty()
	})
}

// TestNotify has a row for each combination of what was asked for and what happened.
func TestNotify(t *testing.T) {
	for _, tc := range []struct {
		notify  string
		outcome Outcome
		dsn     bool
		want    string // the action that is told
	}{
		{"", failed, false, "failed"}, {"FAILURE", failed, false, "failed"}, {"SUCCESS,FAILURE", failed, false, "failed"}, {"SUCCESS", failed, false, ""},
		{"DELAY", failed, false, ""}, {"NEVER", failed, false, ""},
		{"", delivered, false, ""}, {"SUCCESS", delivered, false, "relayed"}, {"SUCCESS", delivered, true, ""}, {"FAILURE", delivered, false, ""}, {"NEVER", delivered, false, ""},
		{"", deferred, false, "delayed"}, {"DELAY", deferred, false, "delayed"}, {"FAILURE", deferred, false, ""}, {"SUCCESS", deferred, false, ""}, {"NEVER", deferred, false, ""},
	} {
		t.Run(fmt.Sprintf("%s %d %v", tc.notify, tc.outcome.Status, tc.dsn), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Options{Late: 20 * time.Minute})
				w.answer = func(_ context.Context, c call) []Outcome {
					o := tc.outcome
					o.DSN = tc.dsn
					return all(c, o)
				}
				defer w.run()()
				r := to("a@one.example")
				if tc.notify != "" {
					r[0].Notify = strings.Split(tc.notify, ",")
				}
				w.add(Letter{}, r...)
				w.sleep(time.Hour)
				got := ""
				for _, n := range w.boxes["<anna@example.org>"] {
					_, after, _ := strings.Cut(n, "Action: ")
					got, _, _ = strings.Cut(after, "\r\n")
				}
				if got != tc.want || len(w.boxes["<anna@example.org>"]) > 1 {
					t.Errorf("told %q, want %q", got, tc.want)
				}
			})
		})
	}
}

// TestNoLoop: a notice that nobody takes goes to postmaster and no further, and a letter with a null reverse-path has none.
func TestNoLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.answer = func(_ context.Context, c call) []Outcome { return all(c, failed) }
		defer w.run()()
		w.add(Letter{From: path("<other@elsewhere.example>"), Account: 1}, to("a@one.example")...)
		w.add(Letter{From: addr.Path{Null: true}, Account: 1}, to("b@one.example")...)
		w.sleep(time.Hour)
		if len(w.calls) != 3 { // the two letters, and the notice to elsewhere
			t.Errorf("%+v", w.calls)
		}
		if box := w.boxes["<postmaster>"]; len(box) != 1 || !strings.Contains(box[0], "Final-Recipient: rfc822; other@elsewhere.example\r\n") {
			t.Errorf("postmaster has %q", box)
		}
		if len(w.boxes) != 1 {
			t.Errorf("%v", w.boxes)
		}
		w.empty()
	})
}

// TestNobody: a letter that no account handed in has no sender, so that no notice can reach anybody who did not ask for one.
func TestNobody(t *testing.T) {
	w := newWorld(t, Options{})
	add := func(l Letter) error {
		l.ID, l.Created = message.NewID(), time.Now()
		return w.db.Write(t.Context(), func(tx *database.Tx) error { return w.q.Add(tx, l, 1, to("a@one.example")) })
	}
	if err := add(Letter{From: path("<victim@elsewhere.example>")}); !errors.Is(err, errNobody) {
		t.Errorf("taken: %v", err)
	}
	if err := add(Letter{From: addr.Path{Null: true}}); err != nil {
		t.Errorf("one of our own is not taken: %v", err)
	}
	for account, want := range map[int64]bool{0: false, 1: true} {
		s := &settlement{q: w.q, letter: queued{Letter: Letter{From: path("<victim@elsewhere.example>"), Account: account}}}
		if _, ok := s.addressee(failure); ok != want {
			t.Errorf("a notice for account %d: %t", account, ok)
		}
	}
}

// TestBadRow: what cannot be read, and what makes the other side's code fail, is set aside, and the rest goes on.
func TestBadRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.answer = func(_ context.Context, c call) []Outcome {
			switch c.to[0] {
			case "panics@one.example":
				panic("mine")
			case "none@one.example":
				return nil
			}
			return all(c, delivered)
		}
		w.add(Letter{}, to("bad@one.example")...)
		err := w.db.Write(t.Context(), func(tx *database.Tx) error {
			_, err := tx.Exec("UPDATE queue_recipients SET recipient = 'no path'")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer w.run()()
		w.add(Letter{}, to("panics@one.example")...)
		w.add(Letter{}, to("none@one.example")...)
		w.add(Letter{}, to("good@one.example")...)
		w.sleep(time.Hour)
		if n := w.count("queue_recipients WHERE state = 3 AND reason <> ''"); n != 3 {
			t.Errorf("%d are set aside", n)
		}
		if n := w.count("ledger WHERE kind = 'sent'"); n != 1 {
			t.Errorf("%d were sent", n)
		}
		if n := strings.Count(w.log.String(), "level=ERROR"); n != 3 {
			t.Errorf("%d errors are logged: %s", n, w.log.String())
		}
		if box := w.boxes["<postmaster>"]; len(box) != 1 || !strings.Contains(box[0], "Subject: [postroom] A letter in the queue is set aside\r\n") {
			t.Errorf("postmaster has %q", box)
		}
	})
}

// TestRestart: what was not handed over when the queue stopped is handed over after the next start, and was not tried in between.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.answer = func(ctx context.Context, c call) []Outcome {
			<-ctx.Done()
			return all(c, deferred)
		}
		stop := w.run()
		w.add(Letter{}, to("a@one.example")...)
		w.sleep(time.Minute)
		stop()
		if n := w.count("queue_recipients WHERE attempts = 0"); n != 1 || len(w.calls) != 1 {
			t.Errorf("%d recipients, %d calls", n, len(w.calls))
		}
		w.answer = nil
		defer w.run()()
		w.sleep(time.Second)
		if len(w.calls) != 2 {
			t.Errorf("%+v", w.calls)
		}
		w.empty()
	})
}

// TestUnwritable: what was taken is written down once the database lets us, even while the queue is told to stop, and the letter is
// not sent again; meanwhile no other letter is begun.
func TestUnwritable(t *testing.T) {
	for name, tc := range map[string]struct {
		broken time.Duration
		stop   bool
		sent   int // in the ledger
	}{
		"for a while":                  {time.Minute, false, 2},
		"for long":                     {20 * time.Minute, false, 2},
		"while it is stopping":         {5 * time.Second, true, 1},
		"for longer than stopping may": {time.Minute, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Options{})
				w.answer = func(_ context.Context, c call) []Outcome { return all(c, delivered) }
				w.broken = time.Now().Add(tc.broken)
				stop := w.run()
				w.add(Letter{}, to("a@one.example")...)
				w.sleep(time.Second)
				w.add(Letter{}, to("b@two.example")...)
				if !tc.stop {
					w.sleep(tc.broken - 2*time.Second)
					if n := w.tries(); n != 1 {
						t.Errorf("%d calls while nothing can be written down", n)
					}
					w.sleep(time.Hour)
				}
				began := time.Now()
				stop()
				if took := time.Since(began); took > 31*time.Second {
					t.Errorf("stopping took %v", took)
				}
				if n := w.count("ledger WHERE kind = 'sent'"); n != tc.sent || len(w.calls) != max(1, tc.sent) {
					t.Errorf("%d sent, %d calls", n, len(w.calls))
				}
				if !strings.Contains(w.log.String(), "queue cannot be written") {
					t.Error("nothing is logged")
				}
			})
		})
	}
}

// slow is a destination that takes a while for each letter.
func slow(d time.Duration) func(context.Context, call) []Outcome {
	return func(ctx context.Context, c call) []Outcome {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
		return all(c, delivered)
	}
}

// tries is how many there were so far.
func (w *world) tries() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.calls)
}

// firstTry is when a recipient was tried first.
func (w *world) firstTry(t *testing.T, recipient string) time.Duration {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.calls, func(c call) bool { return slices.Contains(c.to, recipient) })
	if i < 0 {
		t.Fatalf("%s was not tried", recipient)
	}
	return w.calls[i].at
}

// TestTurns: two domains with many letters do not keep others waiting, whether these were there before or come later.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{Slots: 8})
		w.answer = slow(5 * time.Second)
		for i := range 300 {
			for _, d := range []string{"a", "b"} {
				w.add(Letter{}, to(fmt.Sprintf("u%d@%s.example", i, d))...)
			}
		}
		w.add(Letter{}, to("old@z1.example")...)
		defer w.run()()
		w.sleep(20 * time.Second)
		w.add(Letter{}, to("new@z2.example")...)
		w.sleep(20 * time.Minute)
		if at := w.firstTry(t, "old@z1.example"); at > 6*time.Second {
			t.Errorf("the letter that waited was tried after %v", at)
		}
		if at := w.firstTry(t, "new@z2.example"); at > 26*time.Second {
			t.Errorf("the new letter was tried after %v", at-20*time.Second)
		}
		w.empty()
	})
}

// routed chooses destinations.
type routed struct {
	*world
	to func(l Letter, to addr.Path) string
}

func (r routed) Destination(_ context.Context, l Letter, to addr.Path) (string, error) {
	return r.to(l, to), nil
}

// TestSmarthost: many domains behind one smarthost use all that it takes.
func TestSmarthost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.q.Deliverer = routed{w, func(Letter, addr.Path) string { return "relay smart:587" }}
		w.answer = slow(100 * time.Millisecond)
		var all []Recipient
		for i := range 200 {
			all = append(all, to(fmt.Sprintf("u@n%03d.example", i))...)
		}
		w.add(Letter{}, all...)
		defer w.run()()
		w.sleep(5 * time.Second)
		if len(w.calls) != 200 {
			t.Errorf("%d of 200 after 5 s", len(w.calls))
		}
		w.empty()
	})
}

// TestHeadOfLine: a smarthost of one sender that is down does not keep another's letters to the same domain.
func TestHeadOfLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.q.Deliverer = routed{w, func(l Letter, to addr.Path) string {
			if l.From.Domain.ASCII() == "relayed.example" {
				return "relay down:587"
			}
			return to.Address.Domain.ASCII()
		}}
		w.answer = func(ctx context.Context, c call) []Outcome {
			if c.letter.From.Domain.ASCII() != "relayed.example" {
				return all(c, delivered)
			}
			o := slow(30*time.Second)(ctx, c)
			for i := range o {
				o[i] = deferred
				o[i].Silent, o[i].Remote = true, false
			}
			return o
		}
		for i := range 200 {
			w.add(Letter{From: path("<x@relayed.example>"), Account: 2}, to(fmt.Sprintf("u%d@big.example", i))...)
		}
		defer w.run()()
		w.sleep(time.Minute)
		w.add(Letter{}, to("friend@big.example")...)
		w.sleep(time.Second)
		w.firstTry(t, "friend@big.example")
	})
}

// TestTooLong: an attempt that takes too long counts as one, waits its time, and bounces in the end.
func TestTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{GiveUp: 12 * time.Hour})
		w.answer = func(ctx context.Context, c call) []Outcome {
			<-ctx.Done()
			return all(c, deferred)
		}
		defer w.run()()
		w.add(Letter{}, to("a@one.example")...)
		w.sleep(14 * time.Hour)
		if n := len(w.calls); n < 3 || n > 5 {
			t.Errorf("%d tries", n)
		}
		if box := w.boxes["<anna@example.org>"]; len(box) != 2 {
			t.Errorf("%d notices, want a delay and a failure", len(box))
		}
		w.empty()
	})
}

// badSigner has lost its keys.
type badSigner struct{}

func (badSigner) Sign(context.Context, addr.Domain, []byte) ([]byte, error) {
	return nil, errors.New("the key cannot be opened")
}

// TestPoorNotice: a notice that cannot be signed, or whose letter cannot be read, leaves all the same, and what was delivered stays so.
func TestPoorNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{Signer: badSigner{}})
		w.answer = func(_ context.Context, c call) []Outcome {
			if len(c.to) == 2 {
				w.mu.Lock()
				clear(w.content)
				w.mu.Unlock()
				return []Outcome{delivered, failed}
			}
			return all(c, delivered)
		}
		defer w.run()()
		w.add(Letter{From: path("<gone@elsewhere.example>"), Account: 1}, to("a@one.example", "b@one.example")...)
		w.sleep(time.Hour)
		if len(w.calls) != 2 || w.calls[1].to[0] != "gone@elsewhere.example" {
			t.Errorf("%+v", w.calls)
		}
		w.empty()
	})
}

// TestClock: what a clock that was wrong has put off is tried soon.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.add(Letter{Created: time.Now().Add(365 * 24 * time.Hour)}, to("a@one.example")...)
		defer w.run()()
		w.sleep(time.Second)
		if len(w.calls) != 1 {
			t.Errorf("%d calls", len(w.calls))
		}
	})
}

// TestSilent: 500 destinations that never answer do not keep a letter from one that does for more than 5 seconds, before and after
// they are known for it.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.answer = func(ctx context.Context, c call) []Outcome {
			if strings.HasSuffix(c.to[0], ".silent.example") {
				select {
				case <-ctx.Done():
				case <-time.After(5 * time.Minute):
				}
				o := deferred
				o.Silent, o.Remote = true, false
				return all(c, o)
			}
			return all(c, delivered)
		}
		for i := range 500 {
			w.add(Letter{}, to(fmt.Sprintf("a@n%d.silent.example", i))...)
		}
		defer w.run()()
		for range 2 {
			w.sleep(500 * time.Millisecond)
			began := time.Now()
			w.add(Letter{}, to(fmt.Sprintf("a@z%d.example", began.Unix()))...)
			w.sleep(5 * time.Second)
			w.mu.Lock()
			last := w.calls[len(w.calls)-1]
			found := slices.ContainsFunc(w.calls, func(c call) bool { return strings.HasPrefix(c.to[0], "a@z") && c.at >= began.Sub(epoch) })
			w.mu.Unlock()
			if !found {
				t.Errorf("not tried within 5 s; the last one was %v", last)
			}
			w.sleep(time.Minute)
		}
	})
}

// TestHold: what is held waits, and goes on when it is released.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.add(Letter{}, to("a@one.example")...)
		w.add(Letter{From: path("<ben@example.org>"), Account: 2}, to("b@one.example")...)
		move := func(fn func(*database.Tx, int64) (int, error)) {
			t.Helper()
			err := w.db.Write(t.Context(), func(tx *database.Tx) error {
				if n, err := fn(tx, 1); err != nil || n != 1 {
					return fmt.Errorf("%d, %w", n, err)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		move(w.q.HoldAccount)
		defer w.run()()
		w.sleep(time.Hour)
		if len(w.calls) != 1 || w.calls[0].to[0] != "b@one.example" {
			t.Errorf("%+v", w.calls)
		}
		move(w.q.ReleaseAccount)
		w.sleep(time.Second)
		if len(w.calls) != 2 {
			t.Errorf("%+v", w.calls)
		}
		w.empty()
	})
}

// TestNamedTooEarly: a turn that is named before its letter is there is looked at again after the next write.
func TestNamedTooEarly(t *testing.T) {
	q, err := New(Options{Hostname: "mail.example.org", DB: databasetest.Open(t), Store: &world{}})
	if err != nil {
		t.Fatal(err)
	}
	d := newDispatcher(t.Context(), q)
	d.again = false
	one := turn{"one.example", "example.org"}
	q.fresh.add(one)
	for i, want := range []int{1, 1, 0} {
		d.added()
		if len(d.turns.order) != want || d.again {
			t.Errorf("tick %d: %v, want %d", i+1, d.turns.order, want)
		}
		d.turns = line{}
	}
	for i := range maxFresh + 1 {
		q.fresh.add(turn{fmt.Sprint(i), ""})
	}
	if d.added(); !d.again {
		t.Error("more than are remembered, and no round")
	}
}

// TestFreshPath: a new letter is found without looking through the whole queue.
func TestFreshPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		changed, stop := w.db.Watch(additions)
		defer stop()
		all, stopAll := w.db.Watch(changes)
		defer stopAll()
		w.add(Letter{}, to("a@one.example")...)
		synctest.Wait()
		select {
		case <-changed:
		default:
			t.Error("no tick of additions")
		}
		select {
		case <-all:
			t.Error("a tick that begins a round")
		default:
		}
	})
}
