package pop3d

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/postroom/postroom/internal/mailtest"
)

// fakeHandler is a server with one maildrop.
type fakeHandler struct {
	mu       sync.Mutex // guards what follows
	messages []string
	deleted  []int
	open     int // sessions and maildrops that were not closed
	taken    bool
}

type fakeSession struct {
	h *fakeHandler
	c *Client
}

type fakeMaildrop struct {
	*fakeHandler
	c *Client
}

func newFake(messages ...string) *fakeHandler { return &fakeHandler{messages: messages} }

func (h *fakeHandler) count(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open += n
}

func (h *fakeHandler) Connect(_ context.Context, c *Client) (Session, error) {
	h.count(1)
	return &fakeSession{h, c}, nil
}

func (s *fakeSession) LogIn(_ context.Context, name, password string) (Maildrop, error) {
	switch {
	case name == "busy":
		return nil, &Refusal{CodeInUse, "another session holds this maildrop"}
	case name == "broken":
		return nil, errors.New("secret reason")
	case name == "panic":
		panic("secret reason")
	case password != "sec ret":
		return nil, &Refusal{CodeAuth, "wrong name or password"}
	}
	s.h.count(1)
	return &fakeMaildrop{s.h, s.c}, nil
}

func (s *fakeSession) Mechanisms() []string { return []string{"PLAIN", "LOGIN"} }

func (s *fakeSession) Auth(_ context.Context, mechanism string) (SASL, error) {
	return &fakeSASL{s: s, login: mechanism == "LOGIN"}, nil
}

func (s *fakeSession) Close() { s.h.count(-1) }

// fakeSASL lets "secret" in, over PLAIN in one step and over LOGIN in two; "data" succeeds with data.
type fakeSASL struct {
	s     *fakeSession
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
	return nil, false, &Refusal{CodeAuth, "wrong name or password"}
}

func (a *fakeSASL) Maildrop(ctx context.Context) (Maildrop, error) {
	return a.s.LogIn(ctx, "anna", "sec ret")
}

func (d *fakeMaildrop) Len() int { return len(d.messages) }

func (d *fakeMaildrop) Message(i int) (int64, string) {
	return int64(len(d.messages[i])), fmt.Sprintf("id-%d", i+1)
}

func (d *fakeMaildrop) Open(_ context.Context, i int) (io.ReadCloser, error) {
	switch m := d.messages[i]; {
	case strings.Contains(m, "UNREADABLE"):
		return io.NopCloser(io.MultiReader(strings.NewReader(m), brokenReader{})), nil
	case strings.Contains(m, "GONE"):
		return nil, &Refusal{CodeSysTemp, "this message is no longer there"}
	default:
		return io.NopCloser(strings.NewReader(m)), nil
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("secret reason") }

func (d *fakeMaildrop) Delete(_ context.Context, messages []int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range messages {
		if strings.Contains(d.messages[i], "UNDELETABLE") {
			return errors.New("secret reason")
		}
	}
	d.deleted = append(d.deleted, messages...)
	return nil
}

func (d *fakeMaildrop) Busy(bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.taken
}

func (d *fakeMaildrop) Close() { d.count(-1) }

// take is another session's login, which takes the maildrop over.
func (h *fakeHandler) take(c *Client) {
	h.mu.Lock()
	h.taken = true
	h.mu.Unlock()
	c.Wake()
}

func (h *fakeHandler) expectClosed(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open != 0 {
		t.Errorf("%d sessions and maildrops were not closed", h.open)
	}
}

var testMessages = []string{
	"Subject: one\r\n\r\nfirst line\r\n.second line\r\n\r\nlast\r\n",
	"Subject: two\r\n\r\n",
	"no header at all",
	"Subject: four\r\n\r\nUNREADABLE\r\n",
	"Subject: five\r\n\r\nGONE\r\n",
	"Subject: six\r\n\r\nUNDELETABLE\r\n",
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

// dialogue plays a file against a new server for each conversation. A message that a conversation deletes must have
// "deletes" in the conversation's name.
func dialogue(t *testing.T, file string, change func(*Server)) {
	t.Helper()
	mailtest.RunDialogue(t, "testdata/"+file, func(t *testing.T, conn net.Conn) {
		h := newFake(testMessages...)
		newServer(t, h, change).ServeConn(conn)
		h.expectClosed(t)
		if wanted := strings.Contains(t.Name(), "deletes"); wanted != (len(h.deleted) > 0) {
			t.Errorf("deleted %v", h.deleted)
		}
	})
}
