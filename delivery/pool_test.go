package delivery

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/queue"
)

// TestReuse shows what is said on a connection that serves several letters.
func TestReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		k := &sink{replies: map[string]string{"": "220 here"}}
		w.serve("192.0.2.1", k.serve)
		d, end := w.deliverer()
		for range 3 {
			checkMatch(t, "outcome", "delivered 2.0.0 | *", describeOutcome(send(t, d, "ben@remote.example")))
		}
		end()
		if w.calls() != "192.0.2.1" || len(k.letters) != 3 {
			t.Errorf("%d letters over %s", len(k.letters), w.calls())
		}
		for _, l := range k.letters {
			if l != letterText {
				t.Errorf("got the letter %q", l)
			}
		}
		var verbs []string
		for _, line := range k.lines {
			verbs = append(verbs, line[:4])
		}
		if got := strings.Join(verbs, " "); got != "EHLO MAIL RCPT DATA MAIL RCPT DATA MAIL RCPT DATA QUIT" {
			t.Errorf("said %s", got)
		}
	})
}

// TestResetAfterRefusal shows that a transaction that was left in the middle does not touch the next letter.
func TestResetAfterRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		k := &sink{replies: map[string]string{"RCPT": "550 5.1.1 nobody"}}
		w.serve("192.0.2.1", k.serve)
		d, end := w.deliverer()
		for range 2 {
			checkMatch(t, "outcome", "failed 5.1.1 | *", describeOutcome(send(t, d, "ben@remote.example")))
		}
		end()
		if got := strings.Join(k.lines, "; "); got != "EHLO mail.example.org; MAIL FROM:<anna@example.org>; RCPT TO:<ben@remote.example>; RSET; MAIL FROM:<anna@example.org>; RCPT TO:<ben@remote.example>; QUIT" {
			t.Errorf("said %s", got)
		}
	})
}

// TestWideRecipient shows that an address that needs SMTPUTF8 fails alone where a host does not offer it, and asks for it where one does.
func TestWideRecipient(t *testing.T) {
	for _, tc := range []struct {
		offers []string
		to     []string
		want   []string
		said   string
	}{
		{nil, []string{"ben@remote.example", "jürgen@remote.example"}, []string{"delivered *", "failed 5.6.7 *"}, "MAIL FROM:<anna@example.org>"},
		{nil, []string{"jürgen@remote.example", "ben@remote.example"}, []string{"failed 5.6.7 *", "delivered *"}, "MAIL FROM:<anna@example.org>"},
		{nil, []string{"jürgen@remote.example"}, []string{"failed 5.6.7 *"}, ""},
		{[]string{"SMTPUTF8"}, []string{"ben@remote.example", "jürgen@remote.example"}, []string{"delivered *", "delivered *"}, "MAIL FROM:<anna@example.org> SMTPUTF8"},
		{[]string{"SMTPUTF8"}, []string{"ben@remote.example"}, []string{"delivered *"}, "MAIL FROM:<anna@example.org>"},
	} {
		t.Run(strings.Join(append(tc.to, tc.offers...), " "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				k := &sink{offers: tc.offers}
				w.serve("192.0.2.1", k.serve)
				d, end := w.deliverer()
				outcomes := d.Deliver(t.Context(), letter(t), recipients(t, tc.to...), opens(letterText))
				end()
				for i, o := range outcomes {
					checkMatch(t, tc.to[i], tc.want[i], describeOutcome(o))
				}
				said := ""
				for _, line := range k.lines {
					if strings.HasPrefix(line, "MAIL") {
						said = line
					}
				}
				if said != tc.said {
					t.Errorf("said %q, want %q", said, tc.said)
				}
			})
		})
	}
}

// TestTarpit shows that a server that takes its time for each recipient gets the letter.
func TestTarpit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("192.0.2.1", func(_ *testing.T, c net.Conn) {
			_, _ = io.WriteString(c, "220 here\r\n")
			r := bufio.NewReader(c)
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				switch {
				case strings.HasPrefix(line, "RCPT"):
					time.Sleep(25 * time.Second)
				case strings.HasPrefix(line, "DATA"):
					_, _ = io.WriteString(c, "354 go\r\n")
					readDots(r)
				}
				_, _ = io.WriteString(c, "250 2.0.0 ok\r\n")
			}
		})
		d, end := w.deliverer()
		defer end()
		var to []string
		for i := range 100 {
			to = append(to, fmt.Sprintf("u%d@remote.example", i))
		}
		for i, o := range d.Deliver(t.Context(), letter(t), recipients(t, to...), opens(letterText)) {
			checkMatch(t, to[i], "delivered *", describeOutcome(o))
		}
	})
}

// TestStale shows that an idle connection that the server has ended costs no attempt.
func TestStale(t *testing.T) {
	for _, tc := range []struct {
		name string
		last string // words of the server before it closes
	}{{"closed", ""}, {"closed with 421", "421 4.4.2 idle\r\n"}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				n := 0
				w.serve("192.0.2.1", func(t *testing.T, c net.Conn) {
					if n++; n > 1 {
						(&sink{}).serve(t, c)
						return
					}
					if err := playServer(c, []string{"S: 220 mx", "C: EHLO *", "S: 250 mx", "C: MAIL *", "S: 250 ok", "C: RCPT *", "S: 250 ok", "C: DATA", "S: 354 go", "C: <content>", "S: 250 kept"}); err != nil {
						t.Error(err)
					}
					if tc.last != "" {
						_ = playServer(c, []string{"C: MAIL *"})
						_, _ = io.WriteString(c, tc.last)
					}
					_ = c.Close()
				})
				d, end := w.deliverer()
				for range 2 {
					checkMatch(t, "outcome", "delivered 2.0.0 | *", describeOutcome(send(t, d, "ben@remote.example")))
					time.Sleep(time.Second)
				}
				end()
				if w.calls() != "192.0.2.1 192.0.2.1" {
					t.Errorf("called %s", w.calls())
				}
			})
		})
	}
}

// TestIdleEnds shows how long, how often and how many connections are kept.
func TestIdleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("192.0.2.1", (&sink{}).serve)
		d, end := w.deliverer()
		send(t, d, "ben@remote.example")
		time.Sleep(idleTime + time.Second)
		send(t, d, "ben@remote.example")
		if n := w.count(); n != 2 {
			t.Errorf("after the idle time: %d connections, want 2", n)
		}
		for range maxTransactions {
			send(t, d, "ben@remote.example")
		}
		if n := w.count(); n != 3 {
			t.Errorf("after %d letters: %d connections, want 3", maxTransactions, n)
		}
		d.pool.mu.Lock()
		idle := d.pool.total
		d.pool.mu.Unlock()
		if idle != 1 {
			t.Errorf("%d connections are idle, want 1", idle)
		}
		end()
		if d.pool.total != 0 || len(d.pool.idle) != 0 {
			t.Errorf("%d connections are idle after Close", d.pool.total)
		}
		send(t, d, "ben@remote.example")
		if d.pool.total != 0 {
			t.Error("a connection was kept after Close")
		}
		w.running.Wait()
	})
}

// TestIdleBound shows that the number of idle connections has a bound.
func TestIdleBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d, end := w.deliverer()
		for i := range maxIdle + 10 {
			ours, theirs := net.Pipe()
			w.running.Go(func() { _, _ = io.Copy(io.Discard, theirs) })
			d.pool.put(&session{conn: newConn(ours), since: time.Now(), key: poolKey{host: fmt.Sprint(i)}})
		}
		if d.pool.total != maxIdle {
			t.Errorf("%d idle connections, want %d", d.pool.total, maxIdle)
		}
		end()
	})
}

// TestCancel shows that an attempt ends soon after its context, whatever the server does, and says what is known.
func TestCancel(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		lines      []string // before the server falls silent
	}{
		{"before the greeting", "deferred 4.4.2 local | the attempt was stopped*", nil},
		{"after EHLO", "deferred 4.4.2 local | the attempt was stopped*", []string{"S: 220 mx", "C: EHLO *"}},
		{"after MAIL", "deferred 4.4.2 local | the attempt was stopped*", []string{"S: 220 mx", "C: EHLO *", "S: 250 mx", "C: MAIL *"}},
		{"in the content", "deferred 4.4.2 local * | the attempt was stopped*", []string{"S: 220 mx", "C: EHLO *", "S: 250 mx", "C: MAIL *", "S: 250 ok", "C: RCPT *", "S: 250 ok", "C: DATA", "S: 354 go"}},
		{"after the content", "deferred 4.4.2 local unclear | the attempt was stopped after the content", []string{"S: 220 mx", "C: EHLO *", "S: 250 mx", "C: MAIL *", "S: 250 ok", "C: RCPT *", "S: 250 ok", "C: DATA", "S: 354 go", "C: <content>"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve("192.0.2.1", func(t *testing.T, c net.Conn) {
					if err := playServer(c, append(tc.lines, "S: <wait 10s>")); err != nil {
						t.Error(err)
					}
				})
				d, end := w.deliverer()
				ctx, cancel := context.WithCancel(t.Context())
				start := time.Now()
				time.AfterFunc(time.Second, cancel)
				outcomes := d.Deliver(ctx, letter(t), recipients(t, "ben@remote.example"), opens(letterText))
				if took := time.Since(start); took > time.Second {
					t.Errorf("it took %v", took)
				}
				checkMatch(t, "outcome", tc.want, describeOutcome(outcomes[0]))
				end()
			})
		})
	}
}

// TestCancelWhileCalling shows the same for a call that nobody takes, and for one that was not begun.
func TestCancelWhileCalling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("192.0.2.1", hole)
		d, end := w.deliverer()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 2 {
			o := d.Deliver(ctx, letter(t), recipients(t, "ben@remote.example"), opens(letterText))[0]
			if o.Status != queue.Deferred || o.Enhanced == "" {
				t.Errorf("outcome %+v", o)
			}
		}
		end()
		if w.calls() != "192.0.2.1" {
			t.Errorf("called %q", w.calls())
		}
	})
}

// TestManyRecipients shows that a pipeline longer than any buffer on the way does not get stuck.
func TestManyRecipients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		k := &sink{offers: []string{"PIPELINING", "LIMITS RCPTMAX=5000 RCPTDOMAINMAX=1"}}
		w.serve("192.0.2.1", k.serve)
		d, end := w.deliverer()
		var to []string
		for i := range 2500 {
			to = append(to, fmt.Sprintf("somebody%d@remote.example", i))
		}
		for i, o := range d.Deliver(t.Context(), letter(t), recipients(t, to...), opens(letterText)) {
			if o.Status != queue.Delivered {
				t.Fatalf("recipient %d: %+v", i, o)
			}
		}
		end()
		if len(k.letters) != 3 {
			t.Errorf("%d transactions, want 3", len(k.letters))
		}
	})
}
