package e2e

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net/smtp"
	"testing"
	"time"
)

// handIn hands letters in on one connection, one for each recipient.
func (s *server) handIn(t *testing.T, account string, recipients []string) {
	t.Helper()
	conn, err := tls.Dial("tcp", s.ports["submissions"], s.tls(t))
	if err != nil {
		t.Fatal(err)
	}
	c, err := smtp.NewClient(conn, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Auth(smtp.PlainAuth("", account, password, "localhost")))
	for _, to := range recipients {
		must(c.Mail(account))
		must(c.Rcpt(to))
		w, err := c.Data()
		must(err)
		_, err = fmt.Fprintf(w, "From: %s\r\nTo: %s\r\nSubject: one of many\r\n\r\nbody\r\n", account, to)
		must(err)
		must(w.Close())
	}
	must(c.Quit())
}

// TestKillQueue kills the server while letters are on their way to a slow server: each arrives, and few of them twice.
func TestKillQueue(t *testing.T) {
	kills := setting(t, "POSTROOM_E2E_QUEUE_KILLS", 4)
	letters := setting(t, "POSTROOM_E2E_QUEUE_LETTERS", 100)
	out := startSink(t)
	out.slow = 200 * time.Millisecond
	s := newServer(t)
	s.run(t, "", "relay", "set", "sink.example", "--port", out.port)
	const each = 250 // below what an account may send in an hour
	s.serve(t)
	var all []string
	for from := 0; from < letters; from += each {
		account := fmt.Sprintf("sender%d@%s", from/each, domain)
		s.run(t, password+"\n", "account", "add", account, "--password-stdin")
		var some []string
		for i := from; i < min(from+each, letters); i++ {
			some = append(some, fmt.Sprintf("r%d@far.example", i))
		}
		s.handIn(t, account, some)
		all = append(all, some...)
	}
	for range kills {
		time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
		s.kill()
		s.serve(t)
	}
	out.mu.Lock()
	out.slow = 0
	out.mu.Unlock()
	twice := 0
	for _, to := range all {
		if n := len(out.has(t, to, 1)); n > 1 {
			twice += n - 1
		}
	}
	s.waitEmpty(t)
	t.Logf("%d letters, %d kills: all arrived, %d of them once more", letters, kills, twice)
	if most := kills * 20; twice > most { // as many as are on their way at one moment
		t.Errorf("%d letters arrived twice, want at most %d", twice, most)
	}
}

// waitEmpty waits until nothing is in the queue.
func (s *server) waitEmpty(t *testing.T) {
	t.Helper()
	list := ""
	for range 300 {
		if list = s.run(t, "", "queue", "list", "--json"); list == "[]\n" {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("still in the queue:\n%.2000s", list)
}
