package e2e

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"
)

// TestBigMaildrop measures how long a client with a remembered login waits for its first UIDL line, and what the
// listing costs in memory. The limits hold for 100,000 letters, so they are asserted for any smaller number too.
func TestBigMaildrop(t *testing.T) {
	letters := setting(t, "POSTROOM_E2E_MAILDROP", 5000)
	s := newServer(t)
	s.serve(t)
	s.fill(t, letters)
	s.stop(t)
	s.serve(t)
	config := s.tls(t)
	first, err := openBox(s.ports["pop3s"], config, anna, password) // pays for bcrypt; the login is remembered now
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.command("QUIT"); err != nil {
		t.Fatal(err)
	}
	first.close()

	before, _ := s.memory(t)
	best := time.Hour
	for range 3 {
		if waited := s.firstLine(t, letters); waited < best {
			best = waited
		}
	}
	_, peak := s.memory(t)
	t.Logf("%d letters: first UIDL line %v after the login began, %.1f MB more memory", letters, best, float64(peak-before)/1e6)
	if best > 200*time.Millisecond {
		t.Errorf("the first UIDL line took %v, want at most 200 ms", best)
	}
	if peak-before > 30e6 {
		t.Errorf("memory grew by %d octets, want at most 30 MB", peak-before)
	}
}

// firstLine logs in, asks for UIDL, and returns the time from PASS to the first line of the list.
func (s *server) firstLine(t *testing.T, letters int) time.Duration {
	t.Helper()
	c, err := dial(s.ports["pop3s"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.upgrade(s.tls(t)); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"", "USER " + anna} {
		if _, err := c.command(line); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	for _, line := range []string{"PASS " + password, "UIDL"} {
		if _, err := c.command(line); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.line(); err != nil {
		t.Fatal(err)
	}
	waited := time.Since(began)
	rest, err := readToDot(c)
	if err != nil {
		t.Fatal(err)
	}
	if rest != letters-1 {
		t.Fatalf("UIDL lists %d letters, want %d", rest+1, letters)
	}
	if _, err := c.command("QUIT"); err != nil {
		t.Fatal(err)
	}
	return waited
}

// readToDot counts the lines up to the final dot.
func readToDot(c *client) (lines int, err error) {
	for {
		line, err := c.line()
		if err != nil || line == "." {
			return lines, err
		}
		lines++
	}
}

// fill delivers small letters over a few connections.
func (s *server) fill(t *testing.T, letters int) {
	t.Helper()
	var clients sync.WaitGroup
	const connections = 10
	for i := range connections {
		clients.Go(func() {
			c, err := greet(s.ports["smtp"], nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.close()
			for n := i; n < letters; n += connections {
				if _, err := c.deliver(anna, fmt.Appendf(nil, "From: ben@client.example\r\nSubject: %d\r\n\r\nshort\r\n", n)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
}

// TestManyBigLetters delivers letters of 25 MB at the same time: the server's memory does not grow with them.
func TestManyBigLetters(t *testing.T) {
	parallel := setting(t, "POSTROOM_E2E_PARALLEL", 10)
	s := newServer(t, "[limits]\nconnections_per_address = 1000\n")
	s.serve(t)
	line := append(bytes.Repeat([]byte("y"), 998), "\r\n"...)
	var clients sync.WaitGroup
	for i := range parallel {
		clients.Go(func() {
			if err := s.deliverBig(fmt.Sprintf("From: ben@client.example\r\nSubject: big %d\r\n\r\n", i), line, 25_000); err != nil {
				t.Errorf("letter %d: %v", i, err)
			}
		})
	}
	clients.Wait()
	_, peak := s.memory(t)
	t.Logf("%d letters of 25 MB at once: peak memory %.0f MB", parallel, float64(peak)/1e6)
	if peak > 400e6 {
		t.Errorf("peak memory %d octets, want at most 400 MB", peak)
	}
	c, err := openBox(s.ports["pop3s"], s.tls(t), anna, password)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	list, err := c.multi("LIST")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(list, []byte("\r\n")); n != parallel {
		t.Errorf("%d letters in the maildrop, want %d", n, parallel)
	}
}

// deliverBig streams a letter of many equal lines, with the whole of it in flight at once and none of it in memory.
func (s *server) deliverBig(header string, line []byte, lines int) error {
	c, err := greet(s.ports["smtp"], nil)
	if err != nil {
		return err
	}
	defer c.close()
	for _, step := range [][2]string{{"250", "MAIL FROM:<ben@client.example>"}, {"250", "RCPT TO:<" + anna + ">"}, {"354", "DATA"}} {
		if _, err := c.ask(step[0], "%s", step[1]); err != nil {
			return err
		}
	}
	if err := c.conn.SetDeadline(time.Now().Add(10 * time.Minute)); err != nil {
		return err
	}
	block := bytes.Repeat(line, 50)
	if _, err := io.WriteString(c.conn, header); err != nil {
		return err
	}
	for range lines / 50 {
		if _, err := c.conn.Write(block); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(c.conn, ".\r\n"); err != nil {
		return err
	}
	reply, err := c.line()
	if err == nil && reply[:3] != "250" {
		err = fmt.Errorf("the final reply is %q", reply)
	}
	return err
}
