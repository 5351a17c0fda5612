package pop3d

import (
	"context"
	"crypto/tls"
	"net"
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
		go func() {
			synctest.Wait()
			if err := server.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		err := mailtest.Play(ours, `C! "USER anna\r\nPASS sec ret\r\nDELE 1\r\n"
			S~ +OK message 1 *
			S: -ERR [SYS/TEMP] shutting down, try again later
			S: <closed>`)
		if err != nil {
			t.Error(err)
		}
		<-served
		if len(h.deleted) > 0 {
			t.Errorf("deleted %v", h.deleted)
		}
	})
}
