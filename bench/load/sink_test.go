package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"
)

func startSink(t *testing.T, refuses bool) (s *Sink, addr string, trust *tls.Config) {
	t.Helper()
	s, err := NewSink(refuses, "sink.example")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	port, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.Certificate)
	return s, "127.0.0.1:" + port, &tls.Config{RootCAs: roots, ServerName: "sink.example"}
}

func someLetters(addr string, count, first int) SMTP {
	return SMTP{Addr: addr, Connections: 3, Count: count, First: first, Letters: NewUnsigned("zoe@far.example", 2000),
		From: func(int) string { return "anna@example.org" }, To: func(int) string { return "zoe@far.example" }}
}

// TestSink: nothing passes before the gate is open, then all does, and what came in clear text is known.
func TestSink(t *testing.T) {
	s, addr, trust := startSink(t, false)
	for round, config := range []*tls.Config{nil, trust} {
		s.Expect(100*round, 20)
		l := someLetters(addr, 20, 100*round)
		l.TLS = config
		ended := make(chan Result)
		go func() { ended <- l.Run(t.Context()) }()
		soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := s.Wait(soon); err == nil || !strings.HasPrefix(err.Error(), "20 of 20 ") {
			t.Errorf("before the gate is open: %v", err)
		}
		cancel()
		s.Open()
		if r := <-ended; r.Err != nil || r.Accepted != 20 {
			t.Errorf("%+v", r)
		}
		want := 20
		if config != nil {
			want = 0
		}
		if err := s.Wait(t.Context()); err != nil || s.Clear() != want {
			t.Errorf("%v; %d in clear text, want %d", err, s.Clear(), want)
		}
	}
	if n := s.Attempts(); n != 40 {
		t.Errorf("%d attempts", n)
	}
}

// TestSinkStrange: a letter that came twice, or that nobody expected, is an error.
func TestSinkStrange(t *testing.T) {
	s, addr, _ := startSink(t, false)
	for what, second := range map[string]int{"twice": 0, "not sent in this run": 7} {
		s.Expect(0, 2)
		s.Open()
		for _, first := range []int{0, second} {
			if r := someLetters(addr, 1, first).Run(t.Context()); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		someLetters(addr, 1, 1).Run(t.Context())
		if err := s.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %q", err, what)
		}
	}
}

// TestSinkRefuses: one that refuses does so for now.
func TestSinkRefuses(t *testing.T) {
	s, addr, _ := startSink(t, true)
	r := someLetters(addr, 1, 0).Run(t.Context())
	if r.Err == nil || !strings.Contains(r.Err.Error(), "451") || s.Attempts() != 1 {
		t.Errorf("%v after %d attempts", r.Err, s.Attempts())
	}
}

func TestLetterID(t *testing.T) {
	for letter, want := range map[string]int{
		"X-Load-Id: 7\r\n\r\n": 7, "Received: x\r\nX-Load-Id: 12\r\nTo: y\r\n\r\n": 12, "To: y\r\n\r\n": -1, "X-Load-Id: x\r\n\r\n": -1, "": -1,
	} {
		if got := letterID([]byte(letter)); got != want {
			t.Errorf("%q: %d, want %d", letter, got, want)
		}
	}
}
