package pop3d

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/postroom/postroom/internal/mailtest"
)

// secured makes the server take every connection for a TLS one, so that dialogues need no handshake.
type secured struct{ Handler }

func (s secured) Connect(ctx context.Context, c *Client) (Session, error) {
	c.TLS = &tls.ConnectionState{}
	return s.Handler.Connect(ctx, c)
}

func secure(s *Server) { s.Handler = secured{s.Handler} }

func TestDialogues(t *testing.T) {
	t.Run("login", func(t *testing.T) { dialogue(t, "login.txt", nil) })
	t.Run("early", func(t *testing.T) {
		dialogue(t, "early.txt", func(s *Server) { s.TLSReady = func() bool { return false } })
	})
	t.Run("transaction", func(t *testing.T) { dialogue(t, "transaction.txt", secure) })
}

// TestTakenOver shows what a session reads whose maildrop another one took: at once while it waits, and nothing is
// deleted.
func TestTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFake(testMessages...)
		var client *Client
		server := newServer(t, connectHook{secured{h}, func(c *Client) { client = c }}, nil)
		ours, theirs := net.Pipe()
		served := make(chan struct{})
		go func() { defer close(served); server.ServeConn(theirs) }()
		go func() {
			synctest.Wait() // until the session waits for its next command
			h.take(client)
		}()
		err := mailtest.Play(ours, `C! "USER anna\r\nPASS sec ret\r\nDELE 1\r\n"
			S~ +OK message 1 *
			S: -ERR [SYS/TEMP] another session has taken this maildrop over, nothing was deleted
			S: <closed>`)
		if err != nil {
			t.Error(err)
		}
		<-served
		h.expectClosed(t)
		if len(h.deleted) > 0 {
			t.Errorf("deleted %v", h.deleted)
		}
	})
}

type connectHook struct {
	Handler
	hook func(c *Client)
}

func (h connectHook) Connect(ctx context.Context, c *Client) (Session, error) {
	h.hook(c)
	return h.Handler.Connect(ctx, c)
}

// TestShutdown shows that a shutdown ends idle sessions at once and deletes nothing.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFake(testMessages...)
		server := newServer(t, secured{h}, nil)
		ours, theirs := net.Pipe()
		served := make(chan struct{})
		go func() { defer close(served); server.ServeConn(theirs) }()
		var shutdown sync.WaitGroup
		shutdown.Go(func() {
			synctest.Wait()
			if err := server.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
		err := mailtest.Play(ours, `C! "USER anna\r\nPASS sec ret\r\nDELE 1\r\n"
			S~ +OK message 1 *
			S: -ERR [SYS/TEMP] shutting down, try again later
			S: <closed>`)
		if err != nil {
			t.Error(err)
		}
		<-served
		shutdown.Wait()
		if len(h.deleted) > 0 {
			t.Errorf("deleted %v", h.deleted)
		}
	})
}

// reach are commands that lead to each state.
var reach = map[state]string{
	authorization: "",
	named:         "USER anna\r\n",
	transaction:   "USER anna\r\nPASS sec ret\r\n",
}

// TestEveryVerbInEveryState compares the beginning of the answer with a table that is written here a second time, from RFC
// 1939 sections 4 to 7, RFC 2449, 2595, 5034 and 6856, not from the engine's own.
func TestEveryVerbInEveryState(t *testing.T) {
	order := []state{authorization, named, transaction}
	const sequence = "-ERR command out of order"
	for _, row := range []struct {
		command string
		answers [3]string // in the order of the states above
	}{
		{"CAPA", [3]string{"+OK", "+OK", "+OK"}},
		{"STLS", [3]string{"-ERR TLS has begun", sequence, sequence}},
		{"USER anna", [3]string{"+OK", "+OK", sequence}},
		{"PASS sec ret", [3]string{sequence, "+OK 6 messages", sequence}},
		{"AUTH PLAIN AGFubmEAc2VjcmV0", [3]string{"+OK 6 messages", "+OK 6 messages", sequence}},
		{"AUTH", [3]string{"+OK", "+OK", sequence}},
		{"UTF8", [3]string{"+OK", sequence, sequence}},
		{"LANG", [3]string{"+OK", "+OK", "+OK"}},
		{"STAT", [3]string{sequence, sequence, "+OK 6 163"}},
		{"LIST", [3]string{sequence, sequence, "+OK 6"}},
		{"LIST 1", [3]string{sequence, sequence, "+OK 1 50"}},
		{"UIDL", [3]string{sequence, sequence, "+OK 6"}},
		{"UIDL 1", [3]string{sequence, sequence, "+OK 1 id-1"}},
		{"RETR 1", [3]string{sequence, sequence, "+OK 50 octets"}},
		{"TOP 1 0", [3]string{sequence, sequence, "+OK"}},
		{"DELE 1", [3]string{sequence, sequence, "+OK"}},
		{"RSET", [3]string{sequence, sequence, "+OK"}},
		{"NOOP", [3]string{sequence, sequence, "+OK"}},
		{"QUIT", [3]string{"+OK bye", "+OK bye", "+OK bye"}},
		{"APOP anna x", [3]string{"-ERR command not", "-ERR command not", "-ERR command not"}},
	} {
		for i, in := range order {
			t.Run(fmt.Sprintf("%s in state %d", row.command, in), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := newServer(t, secured{newFake(testMessages...)}, nil)
					said := string(mailtest.Exchange(server.ServeConn, []byte(reach[in]+"MARK\r\n"+row.command+"\r\n")))
					_, last, _ := strings.Cut(said, "-ERR command not recognised\r\n")
					if !strings.HasPrefix(last, row.answers[i]) {
						t.Errorf("answered %q, want %s", last, row.answers[i])
					}
				})
			})
		}
	}
}

// BenchmarkListing sends the list of a big maildrop.
func BenchmarkListing(b *testing.B) {
	h := newFake(make([]string, 100_000)...)
	s := &session{drop: &fakeMaildrop{fakeHandler: h}, marked: make([]bool, len(h.messages))}
	w := bufio.NewWriter(io.Discard)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.list(b.Context(), nil).send(w); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRetr stuffs and sends letters of 10 KB.
func BenchmarkRetr(b *testing.B) {
	letter := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("y", 98)+"\r\n", 100)
	h := newFake(letter)
	s := &session{drop: &fakeMaildrop{fakeHandler: h}, marked: make([]bool, 1)}
	w := bufio.NewWriterSize(io.Discard, 64<<10)
	b.ReportAllocs()
	b.SetBytes(int64(len(letter)))
	for b.Loop() {
		if err := s.retr(b.Context(), []string{"1"}).send(w); err != nil {
			b.Fatal(err)
		}
	}
}
