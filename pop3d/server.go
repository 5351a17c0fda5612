package pop3d

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/internal/wire"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = wire.ErrServerClosed

// Server serves POP3 on any number of listeners. Handler is required; the fields must not be changed once Serve was called.
type Server struct {
	Hostname    string // in the greeting
	Handler     Handler
	TLS         *tls.Config // for STLS or ImplicitTLS; without it nobody can log in
	TLSReady    func() bool // whether STLS can begin, which it may not while there is no certificate; nil: always
	ImplicitTLS bool        // TLS from the first octet (RFC 8314)
	Limits      Limits
	Connections *Connections // nil: no limit
	Group       string       // of Connections
	Log         *slog.Logger // nil: no log

	serving wire.Serving
}

// Serve accepts connections until the listener fails or the server is closed. It closes the listener.
func (s *Server) Serve(l net.Listener) error { return s.serving.Serve(l, s.ServeConn) }

// Shutdown closes the listeners, tells idle clients to come back, and waits for the busy ones until ctx ends; then it
// closes them. Deletions that were not confirmed with QUIT are dropped.
func (s *Server) Shutdown(ctx context.Context) error { return s.serving.Shutdown(ctx) }

// Close closes the listeners and all connections, whatever they do.
func (s *Server) Close() { s.serving.Close() }

// ServeConn serves one connection and returns when it has ended.
func (s *Server) ServeConn(c net.Conn) {
	limits := s.Limits.withDefaults()
	conn := wire.NewConn(c, time.Time{}, limits.Write)
	ctx, cancel, ok := s.serving.Add(conn)
	if !ok {
		_ = conn.Close() // the server is closed; there is nobody to tell
		return
	}
	defer func() {
		cancel()
		_ = conn.Close() // it may be closed already
		s.serving.Remove(conn)
	}()
	session := &session{server: s, conn: conn, log: s.Log, limits: limits, client: Client{ID: message.NewID().String(), Wake: conn.Wake}, began: time.Now()}
	if session.log == nil {
		session.log = slog.New(slog.DiscardHandler)
	}
	defer session.recover()
	// RemoteAddr may read a PROXY header: here, where only this connection waits for it.
	session.client.Remote, session.client.Local = wire.AddrPort(c.RemoteAddr()), wire.AddrPort(c.LocalAddr())
	session.log = session.log.With("svc", s.service(), "sid", session.client.ID, "remote", session.client.Remote.Addr().String())
	session.run(ctx)
}

func (s *Server) service() string {
	if s.ImplicitTLS {
		return "pop3s"
	}
	return "pop3"
}

// recover ends one connection, and only that one, after a bug in a hook or in the engine.
func (s *session) recover() {
	v := recover()
	if v == nil {
		return
	}
	s.log.Error("panic", "err", v, "stack", string(debug.Stack()))
	_ = s.answer(replyPanic) // the client may be gone, and the cause is logged
	_ = s.conn.Flush()
}
