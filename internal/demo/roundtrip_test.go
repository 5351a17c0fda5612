package demo

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/postroom/postroom/internal/mailtest"
	"github.com/postroom/postroom/internal/wire"
)

// world is a server that answers by table, so that each answer can be a wrong one.
type world struct {
	smtp, pop3 map[string]string // verb to answer; "" is the greeting, "." the answer to a letter
	trace      string            // put before the letter that comes back
	mark       string            // put into its subject
	certs      *tls.Config

	mu     sync.Mutex // guards letter
	letter string
}

func newWorld(cert tls.Certificate) *world {
	return &world{
		smtp: map[string]string{
			"": "220 in.example", "EHLO": "250-in.example\r\n250-SIZE 100\r\n250 STARTTLS", "STARTTLS": "220 2.0.0 go on",
			"MAIL": "250 2.1.0 ok", "RCPT": "250 2.1.5 ok", "DATA": "354 go on", ".": "250 2.0.0 kept",
			"forged": "550 5.7.26 not from the bank", "QUIT": "221 2.0.0 bye",
		},
		pop3: map[string]string{
			"": "+OK hello", "USER": "+OK", "PASS": "+OK", "STAT": "+OK 1 200", "RETR": "+OK", "QUIT": "+OK bye",
		},
		trace: "Return-Path: <ben@out.example>\r\nAuthentication-Results: in.example; spf=pass; dkim=pass; dmarc=pass\r\n" +
			"Received: from out.example by in.example\r\n",
		certs: &tls.Config{Certificates: []tls.Certificate{cert}},
	}
}

// listen serves connections one after the other until the test ends.
func listen(t *testing.T, ln net.Listener, serve func(net.Conn)) string {
	t.Helper()
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	})
	t.Cleanup(func() { ln.Close(); done.Wait() })
	return ln.Addr().String()
}

// start opens both ports and returns how they look from outside.
func (w *world) start(t *testing.T, roots *x509.CertPool) *World {
	t.Helper()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	secure, err := tls.Listen("tcp", "127.0.0.1:0", w.certs)
	if err != nil {
		t.Fatal(err)
	}
	outside, err := OpenOutside(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(outside.Close)
	return &World{
		Outside: outside,
		SMTP:    listen(t, plain, w.serveSMTP), POP3S: listen(t, secure, w.servePOP3),
		Hostname: "in.example", Roots: roots, From: "ben@out.example", Address: "anna@in.example", Password: "secret",
	}
}

func (w *world) serveSMTP(c net.Conn) {
	br := bufio.NewReader(c)
	fmt.Fprintf(c, "%s\r\n", w.smtp[""])
	for {
		line, err := wire.ReadLine(br, 2000)
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(string(line), " ")
		fmt.Fprintf(c, "%s\r\n", w.smtp[verb])
		switch {
		case verb == "STARTTLS" && strings.HasPrefix(w.smtp[verb], "220"):
			c = tls.Server(c, w.certs)
			br = bufio.NewReader(c)
		case verb == "DATA" && strings.HasPrefix(w.smtp[verb], "354"):
			letter, err := io.ReadAll(wire.NewDotReader(br))
			if err != nil {
				return
			}
			w.mu.Lock()
			w.letter = string(letter)
			w.mu.Unlock()
			answer := w.smtp["."]
			if strings.Contains(w.letter, bankDomain) {
				answer = w.smtp["forged"]
			}
			fmt.Fprintf(c, "%s\r\n", answer)
		}
	}
}

func (w *world) servePOP3(c net.Conn) {
	br := bufio.NewReader(c)
	fmt.Fprintf(c, "%s\r\n", w.pop3[""])
	for {
		line, err := wire.ReadLine(br, 2000)
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(string(line), " ")
		fmt.Fprintf(c, "%s\r\n", w.pop3[verb])
		if verb != "RETR" || !strings.HasPrefix(w.pop3[verb], "+OK") {
			continue
		}
		w.mu.Lock()
		out := bufio.NewWriter(c)
		dots := wire.NewDotWriter(out)
		_, _ = io.WriteString(dots, w.trace+strings.Replace(w.letter, "Subject: [", "Subject: "+w.mark+"[", 1)) // a client that went away shows in the next read
		if w.pop3[verb] == "+OK cut" {
			_ = out.Flush()
			w.mu.Unlock()
			return
		}
		_ = dots.Close()
		_ = out.Flush()
		w.mu.Unlock()
	}
}

func TestRoundTrip(t *testing.T) {
	cert, roots := mailtest.Certificate(t, "in.example")
	for _, tc := range []struct {
		name    string
		change  func(*world)
		fails   int // the step, or 0
		problem string
	}{
		{"all is well", func(*world) {}, 0, ""},
		{"turned away at the door", func(w *world) { w.smtp[""] = "554 5.3.2 no" }, 1, "greeting"},
		{"no STARTTLS", func(w *world) { w.smtp["EHLO"] = "250 in.example" }, 2, "STARTTLS is not offered"},
		{"STARTTLS refused", func(w *world) { w.smtp["STARTTLS"] = "454 4.7.0 no" }, 2, "220 was expected"},
		{"octets before the handshake", func(w *world) { w.smtp["STARTTLS"] = "220 go\r\n250 injected" }, 2, "before the TLS handshake"},
		{"user unknown", func(w *world) { w.smtp["RCPT"] = "550 5.1.1 who?" }, 3, "550 5.1.1 who?"},
		{"letter not kept", func(w *world) { w.smtp["."] = "451 4.3.0 later" }, 3, "451 4.3.0 later"},
		{"no SMTP at all", func(w *world) { w.smtp["MAIL"] = "what?" }, 3, "not an SMTP reply"},
		{"POP3 closed", func(w *world) { w.pop3[""] = "-ERR [SYS/TEMP] later" }, 4, "[SYS/TEMP]"},
		{"wrong password", func(w *world) { w.pop3["PASS"] = "-ERR [AUTH] no" }, 4, "[AUTH]"},
		{"nothing in the maildrop", func(w *world) { w.pop3["STAT"] = "+OK zero" }, 5, "STAT was answered"},
		{"letter gone", func(w *world) { w.pop3["RETR"] = "-ERR no such message" }, 5, "no such message"},
		{"letter cut short", func(w *world) { w.pop3["RETR"] = "+OK cut" }, 5, "reading the letter"},
		{"trace fields missing", func(w *world) { w.trace = "" }, 6, "Return-Path"},
		{"no verdict", func(w *world) { w.trace = "Return-Path: <>\r\nReceived: x\r\n" }, 7, "is \"\", not \"pass\""},
		{"another verdict", func(w *world) { w.trace = strings.Replace(w.trace, "dkim=pass", "dkim=fail", 1) }, 7, "dkim is \"fail\""},
		{"somebody else's verdict", func(w *world) { w.trace = strings.Replace(w.trace, "Results: in.", "Results: other.", 1) }, 7, "not \"pass\""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(cert)
			tc.change(w)
			var steps []Result
			err := Run(t.Context(), RoundTrip(w.start(t, roots)), func(r Result) { steps = append(steps, r) })
			if tc.fails == 0 {
				if err != nil || len(steps) != 7 {
					t.Fatalf("%d steps, %v", len(steps), err)
				}
				return
			}
			failed, ok := errors.AsType[*StepError](err)
			if !ok || failed.Number != tc.fails || !strings.Contains(err.Error(), tc.problem) {
				t.Errorf("got %v, want step %d and %q", err, tc.fails, tc.problem)
			}
		})
	}
}

func TestRoundTripWantsTheRightAuthority(t *testing.T) {
	cert, _ := mailtest.Certificate(t, "in.example")
	_, strangers := mailtest.Certificate(t, "other.example")
	err := Run(t.Context(), RoundTrip(newWorld(cert).start(t, strangers)), func(Result) {})
	if failed, ok := errors.AsType[*StepError](err); !ok || failed.Number != 2 {
		t.Errorf("got %v, want a failure of step 2", err)
	}
}

func TestPasswordIsNotShown(t *testing.T) {
	cert, roots := mailtest.Certificate(t, "in.example")
	err := Run(t.Context(), RoundTrip(newWorld(cert).start(t, roots)), func(r Result) {
		if strings.Contains(strings.Join(r.Notes, "\n"), "secret") {
			t.Errorf("step %d shows the password: %q", r.Number, r.Notes)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestVerdicts lets a server treat the forged letter and the mailing list's in the wrong way.
func TestVerdicts(t *testing.T) {
	cert, roots := mailtest.Certificate(t, "in.example")
	const failed = "Authentication-Results: in.example; spf=pass; dkim=fail; dmarc=fail\r\n"
	for _, tc := range []struct {
		name    string
		change  func(*world)
		fails   int // the step, or 0
		problem string
	}{
		{"all is well", func(*world) {}, 0, ""},
		{"the forged letter is kept", func(w *world) { w.smtp["forged"] = "250 2.0.0 kept" }, 1, "the forged letter was answered with 250"},
		{"it is refused for another reason", func(w *world) { w.smtp["forged"] = "550 5.7.1 no" }, 1, "550 5.7.1"},
		{"the list's letter is refused", func(w *world) { w.smtp["."] = "550 5.7.26 no" }, 2, "550 5.7.26"},
		{"no STARTTLS", func(w *world) { w.smtp["STARTTLS"] = "454 4.7.0 no" }, 1, "220 was expected"},
		{"the list's letter is not marked", func(w *world) { w.mark = "" }, 3, "not marked"},
		{"another verdict", func(w *world) { w.trace = strings.Replace(w.trace, "dmarc=fail", "dmarc=pass", 1) }, 3, "dmarc is \"pass\""},
		{"wrong password", func(w *world) { w.pop3["PASS"] = "-ERR [AUTH] no" }, 3, "[AUTH]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(cert)
			w.trace, w.mark = "Return-Path: <>\r\n"+failed, "[suspicious] "
			tc.change(w)
			err := Run(t.Context(), Verdicts(w.start(t, roots)), func(Result) {})
			if tc.fails == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			step, ok := errors.AsType[*StepError](err)
			if !ok || step.Number != tc.fails || !strings.Contains(err.Error(), tc.problem) {
				t.Errorf("got %v, want step %d and %q", err, tc.fails, tc.problem)
			}
		})
	}
}
