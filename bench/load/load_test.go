package load

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/smtpd"
)

// sink is a server that keeps letters in memory, and refuses those to "no@".
type sink struct {
	mu   sync.Mutex // guards got
	got  map[string]int
	size int64
}

type sinkSession struct{ s *sink }

func (s *sink) Connect(context.Context, *smtpd.Client) (smtpd.Session, error) {
	return sinkSession{s}, nil
}
func (sinkSession) Hello(context.Context) error { return nil }
func (sinkSession) Close()                      {}
func (s sinkSession) Mail(context.Context, smtpd.Mail) (smtpd.Transaction, error) {
	return s, nil
}

func (sinkSession) Rcpt(_ context.Context, r smtpd.Rcpt) error {
	if strings.Contains(r.To.String(), "no@") {
		return smtpd.Refuse(550, 1, 1, "no")
	}
	return nil
}

func (s sinkSession) Data(_ context.Context, body io.Reader) (smtpd.Reply, error) {
	letter, err := io.ReadAll(body)
	if err != nil {
		return smtpd.Reply{}, err
	}
	line, _, _ := strings.Cut(string(letter), "\r\n")
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	s.s.got[line]++
	s.s.size += int64(len(letter))
	return smtpd.NewReply(250, 0, 0, "kept"), nil
}

func start(t *testing.T) (*sink, string) {
	t.Helper()
	s := &sink{got: map[string]int{}}
	server := &smtpd.Server{Hostname: "mx.example.org", Handler: s}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(server.Close)
	return s, l.Addr().String()
}

// TestSMTP: in each way of sending every letter comes once, with its id, and is counted as it came.
func TestSMTP(t *testing.T) {
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	letters, err := NewLetters(key, "anna@example.org", 3000)
	if err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]SMTP{
		"one by one": {}, "pipelined": {Pipelined: true}, "BDAT": {BDAT: true}, "a connection each": {Reconnect: true}, "pipelined BDAT": {Pipelined: true, BDAT: true},
	} {
		s, addr := start(t)
		l.Addr, l.Connections, l.Count, l.First, l.Letters = addr, 3, 20, 100, letters
		l.To = func(int) string { return "anna@example.org" }
		r := l.Run(t.Context())
		if r.Err != nil || r.Accepted != 20 || r.Failed != 0 || len(s.got) != 20 || s.got["X-Load-Id: 100"] != 1 || s.got["X-Load-Id: 119"] != 1 || r.Octets != s.size {
			t.Errorf("%s: %+v; got %d letters of %d octets: %v", name, r, len(s.got), s.size, s.got)
		}
		if r.Rate() <= 0 || r.Percentile(50) <= 0 || r.Percentile(99) < r.Percentile(50) {
			t.Errorf("%s: rate %v, p50 %v, p99 %v", name, r.Rate(), r.Percentile(50), r.Percentile(99))
		}
	}
}

// TestSMTPRefused: what was refused is an error and is not counted.
func TestSMTPRefused(t *testing.T) {
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	letters, err := NewLetters(key, "anna@example.org", 1000)
	if err != nil {
		t.Fatal(err)
	}
	s, addr := start(t)
	to := func(n int) string {
		if n == 105 {
			return "no@example.org"
		}
		return "anna@example.org"
	}
	r := SMTP{Addr: addr, Connections: 1, Count: 10, First: 0, To: func(n int) string { return to(n + 100) }, Letters: letters}.Run(t.Context())
	if r.Err == nil || !strings.Contains(r.Err.Error(), "550") || r.Accepted != 5 || r.Failed != 1 || len(s.got) != 5 {
		t.Errorf("%+v; got %v", r, s.got)
	}
}

// TestLetters: letters are of about the size that was asked for, signed, and have no line that would need a dot.
func TestLetters(t *testing.T) {
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLetters(key, "anna@example.org", 10<<10)
	if err != nil {
		t.Fatal(err)
	}
	if n := l.Size(); n < 9<<10 || n > 11<<10 {
		t.Errorf("%d octets", n)
	}
	head, body := l.parts(7, Sender)
	if string(head) != "X-Load-Id: 7\r\n" || !bytes.HasPrefix(body, []byte("DKIM-Signature: ")) {
		t.Errorf("%q, %.40q", head, body)
	}
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), ".") {
			t.Errorf("line %q", lines.Text())
		}
	}
}

func TestRaw(t *testing.T) {
	rate, err := Raw(t.TempDir(), 1000, 3, 50*time.Millisecond)
	if err != nil || rate <= 0 {
		t.Errorf("%v, %v", rate, err)
	}
	if _, err := Raw("/nonexistent", 1000, 1, time.Millisecond); err == nil {
		t.Error("no error where nothing can be written")
	}
}
