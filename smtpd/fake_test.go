package smtpd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/postroom/postroom/internal/mailtest"
)

// fakeHandler is a small server's policy: it keeps every message whose end it saw, and refuses what the names of
// addresses ask for.
type fakeHandler struct {
	mu       sync.Mutex // guards kept and open
	kept     []string
	open     int // sessions and transactions that were not closed
	refuseAt string
}

type fakeSession struct {
	h *fakeHandler
	c *Client
}

type fakeTransaction struct {
	h    *fakeHandler
	mail Mail
}

func (h *fakeHandler) count(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open += n
}

func (h *fakeHandler) keep(content string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = append(h.kept, content)
}

func (h *fakeHandler) Connect(_ context.Context, c *Client) (Session, error) {
	if h.refuseAt == "connect" {
		return nil, Refuse(554, 7, 1, "not you")
	}
	h.count(1)
	return &fakeSession{h, c}, nil
}

func (s *fakeSession) Hello(context.Context) error {
	if s.c.Hello == "evil.example" {
		return Refuse(550, 7, 1, "not you")
	}
	return nil
}

func (s *fakeSession) Mail(_ context.Context, m Mail) (Transaction, error) {
	switch m.From.Local {
	case "refused":
		return nil, Refuse(550, 7, 1, "not you")
	case "broken":
		return nil, errors.New("secret reason")
	case "panic":
		panic("secret reason")
	}
	s.h.count(1)
	return &fakeTransaction{s.h, m}, nil
}

func (s *fakeSession) Close() { s.h.count(-1) }

func (s *fakeSession) Mechanisms() []string { return []string{"PLAIN", "LOGIN"} }

func (s *fakeSession) Auth(_ context.Context, mechanism string) (SASL, error) {
	return &fakeSASL{login: mechanism == "LOGIN"}, nil
}

// fakeSASL lets "secret" in, over PLAIN in one step and over LOGIN in two; "data" succeeds with data.
type fakeSASL struct {
	login bool
	step  int
}

func (a *fakeSASL) Next(_ context.Context, response []byte) ([]byte, bool, error) {
	switch a.step++; {
	case response == nil:
		a.step = 0
		if a.login {
			return []byte("Username:"), false, nil
		}
		return nil, false, nil
	case a.login && a.step < 2:
		return []byte("Password:"), false, nil
	case strings.HasSuffix(string(response), "secret"):
		return nil, true, nil
	case strings.HasSuffix(string(response), "data"):
		return []byte("v=proof"), true, nil
	}
	return nil, false, Refuse(535, 7, 8, "wrong name or password")
}

func (t *fakeTransaction) Rcpt(_ context.Context, r Rcpt) error {
	switch r.To.Local {
	case "unknown":
		return Refuse(550, 1, 1, "no such mailbox")
	case "broken":
		return errors.New("secret reason")
	}
	return nil
}

func (t *fakeTransaction) Data(_ context.Context, body io.Reader) (Reply, error) {
	switch t.mail.From.Local {
	case "careless": // reads nothing and says yes
		return NewReply(250, 0, 0, "kept"), nil
	case "silent":
		_, err := io.Copy(io.Discard, body)
		return Reply{}, err
	case "silentyes": // keeps nothing and says yes, for benchmarks
		_, err := io.Copy(io.Discard, body)
		return NewReply(250, 0, 0, "dropped"), err
	case "early": // does not wait for the end to say no
		return Reply{}, Refuse(550, 7, 1, "not this")
	case "stubborn": // says yes to everything, and means it only when there was an end
		content, err := io.ReadAll(body)
		if err == nil {
			t.h.keep(string(content))
		}
		return NewReply(250, 0, 0, "kept"), nil
	case "broken":
		return Reply{}, errors.New("secret reason")
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(body); err != nil {
		return Reply{}, err
	}
	t.h.keep(b.String())
	return NewReply(250, 0, 0, "kept"), nil
}

func (t *fakeTransaction) Close() { t.h.count(-1) }

// expectClosed checks that every session and transaction was closed.
func (h *fakeHandler) expectClosed(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open != 0 {
		t.Errorf("%d sessions and transactions were not closed", h.open)
	}
}

func newServer(t testing.TB, h Handler, change func(*Server)) *Server {
	t.Helper()
	certificate, _ := mailtest.Certificate(t, "mail.example.org")
	s := &Server{Hostname: "mail.example.org", Handler: h, TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}}
	if change != nil {
		change(s)
	}
	return s
}

// dialogue plays a file against a new server for each conversation.
func dialogue(t *testing.T, file string, change func(*Server)) {
	t.Helper()
	mailtest.RunDialogue(t, "testdata/"+file, func(t *testing.T, conn net.Conn) {
		h := &fakeHandler{}
		newServer(t, h, change).ServeConn(conn)
		h.expectClosed(t)
		for _, message := range h.kept {
			if strings.Contains(message, "NEVER") {
				t.Errorf("kept %q", message)
			}
		}
	})
}
