package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// history is what clients know of their letters, by the number in each one's subject.
type history struct {
	mu      sync.Mutex   // guards what follows
	kept    map[int]bool // its 250 was read
	gone    map[int]bool // the +OK of the QUIT that deleted it was read
	unclear map[int]bool // deleted by a QUIT whose answer never came: both fates are right
	next    int
}

func (h *history) number() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	return h.next
}

func (h *history) mark(in map[int]bool, numbers ...int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range numbers {
		in[n] = true
	}
}

// clear takes back what was unclear until the answer came.
func (h *history) clear(numbers []int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range numbers {
		delete(h.unclear, n)
	}
}

// crashLetter has a body that betrays a missing or foreign piece: its number on every line, and its length.
func crashLetter(n int) []byte {
	lines := 1 + n%400
	if n%97 == 0 {
		lines = 40_000 // over 1 MiB: written ahead in pieces
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: ben@client.example\r\nSubject: %d\r\n\r\n", n)
	for i := range lines {
		fmt.Fprintf(&b, "letter %d line %d of %d\r\n", n, i, lines)
	}
	return b.Bytes()
}

// TestKill kills the server at random moments while 20 clients deliver and one deletes. Afterwards every letter whose
// 250 was read is there, once and whole; none whose deletion was confirmed has come back.
func TestKill(t *testing.T) {
	kills := setting(t, "POSTROOM_E2E_KILLS", 5)
	s := newServer(t, "[limits]\nconnections_per_address = 100\n")
	h := &history{kept: map[int]bool{}, gone: map[int]bool{}, unclear: map[int]bool{}}
	for range kills {
		s.serve(t)
		var clients sync.WaitGroup
		for range 20 {
			clients.Go(func() { h.deliverUntilCut(s) })
		}
		clients.Go(func() { h.deleteUntilCut(t, s) })
		time.Sleep(time.Duration(50+rand.IntN(700)) * time.Millisecond) // the moment of the power cut
		s.kill()
		clients.Wait()
	}
	s.serve(t)
	h.verify(t, s)
	if code := s.stop(t); code != 0 {
		t.Errorf("serve ended with exit status %d", code)
	}
	t.Logf("%d kills: %d letters acknowledged, %d deletions confirmed, %d unclear", kills, len(h.kept), len(h.gone), len(h.unclear))
}

func (h *history) deliverUntilCut(s *server) {
	c, err := greet(s.ports["smtp"], nil)
	if err != nil {
		return // killed before it began
	}
	defer c.close()
	for {
		n := h.number()
		if _, err := c.deliver(anna, crashLetter(n)); err != nil {
			return
		}
		h.mark(h.kept, n)
	}
}

// deleteUntilCut deletes about half of the maildrop in each session.
func (h *history) deleteUntilCut(t *testing.T, s *server) {
	config := s.tls(t)
	for {
		c, err := openBox(s.ports["pop3s"], config, anna, password)
		if err != nil {
			return
		}
		numbers, err := c.deleteSome()
		if err == nil {
			h.mark(h.unclear, numbers...)
			_, err = c.command("QUIT")
		}
		c.close()
		if err != nil {
			return
		}
		h.mark(h.gone, numbers...)
		h.clear(numbers)
	}
}

// deleteSome marks every other letter as deleted and returns the numbers in their subjects.
func (c *client) deleteSome() (numbers []int, err error) {
	list, err := c.multi("LIST")
	if err != nil {
		return nil, err
	}
	for i := 1; i <= min(bytes.Count(list, []byte("\r\n")), 50); i += 2 {
		top, err := c.multi(fmt.Sprintf("TOP %d 0", i))
		if err != nil {
			return nil, err
		}
		n, err := subject(top)
		if err != nil {
			return nil, err
		}
		if _, err := c.command(fmt.Sprintf("DELE %d", i)); err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

func subject(letter []byte) (n int, err error) {
	_, rest, found := bytes.Cut(letter, []byte("\r\nSubject: "))
	if !found {
		return 0, errors.New("a letter without its subject")
	}
	_, err = fmt.Sscanf(string(rest), "%d\r\n", &n)
	return n, err
}

func (h *history) verify(t *testing.T, s *server) {
	t.Helper()
	letters, err := fetchAll(s.ports["pop3s"], s.tls(t), anna, password)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, l := range letters {
		n, err := subject(l)
		if err != nil {
			t.Errorf("torn: %v in %.300q", err, l)
			continue
		}
		if seen[n] {
			t.Errorf("letter %d is there twice", n)
		}
		seen[n] = true
		if !bytes.HasSuffix(l, crashLetter(n)) || strings.Count(string(l), "Subject: ") != 1 {
			t.Errorf("letter %d is torn", n)
		}
		if h.gone[n] {
			t.Errorf("letter %d came back after its deletion was confirmed", n)
		}
	}
	for n := range h.kept {
		if !seen[n] && !h.gone[n] && !h.unclear[n] {
			t.Errorf("letter %d was acknowledged and is lost", n)
		}
	}
	if len(h.kept) == 0 {
		t.Error("no letter was acknowledged: the test proves nothing")
	}
}
