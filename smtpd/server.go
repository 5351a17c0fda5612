package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/postroom/postroom/internal/limit"
	"github.com/postroom/postroom/internal/message"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("smtpd: server closed")

// Server serves SMTP on any number of listeners. Hostname and Handler are required; the fields must not be changed once
// Serve was called.
type Server struct {
	Hostname    string      // in the greeting
	Handler     Handler     // decides
	TLS         *tls.Config // for STARTTLS or ImplicitTLS; nil offers no TLS
	ImplicitTLS bool        // TLS from the first octet (RFC 8314)
	Submission  bool        // mail programs log in here: AUTH and DSN are offered, MAIL needs a login
	Limits      Limits
	Connections *Connections // nil: no limit
	Group       string       // of Connections
	Log         *slog.Logger // nil: no log

	mu        sync.Mutex // guards what follows
	started   bool
	closing   bool
	ctx       context.Context
	cancel    context.CancelFunc
	listeners map[net.Listener]struct{}
	sessions  map[*session]struct{}
	running   sync.WaitGroup // of the connections
	limits    Limits
	log       *slog.Logger
}

// Serve accepts connections until the listener fails or the server is closed. It closes the listener.
func (s *Server) Serve(l net.Listener) error {
	if !s.add(l) {
		return errors.Join(ErrServerClosed, l.Close())
	}
	defer s.remove(l)
	for {
		c, err := l.Accept()
		if err != nil {
			if s.isClosing() {
				return ErrServerClosed
			}
			return err
		}
		s.running.Go(func() { s.ServeConn(c) })
	}
}

// ServeConn serves one connection and returns when it has ended.
func (s *Server) ServeConn(c net.Conn) {
	session := s.newSession(c)
	if session == nil {
		_ = c.Close() // the server is closed; there is nobody to tell
		return
	}
	defer s.forget(session)
	defer session.recover()
	// RemoteAddr may read a PROXY header: here, where only this connection waits for it.
	session.client.Remote, session.client.Local = addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
	session.log = s.log.With("svc", s.service(), "sid", session.client.ID, "remote", session.client.Remote.Addr().String())
	session.run()
}

// Shutdown closes the listeners, tells idle clients 421 and waits for the busy ones until ctx ends; then it closes them.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop(false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.running.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.stop(true)
		<-done
		return ctx.Err()
	}
}

// Close closes the listeners and all connections, whatever they do.
func (s *Server) Close() {
	s.stop(true)
	s.running.Wait()
}

func (s *Server) start() {
	if s.started {
		return
	}
	s.started = true
	s.ctx, s.cancel = context.WithCancel(context.Background()) // the root of all connections' contexts, ended by Close
	s.listeners, s.sessions = map[net.Listener]struct{}{}, map[*session]struct{}{}
	s.limits, s.log = s.Limits.withDefaults(), s.Log
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
}

func (s *Server) stop(hard bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start()
	s.closing = true
	for l := range s.listeners {
		_ = l.Close() // Accept returns, whatever this says
	}
	for session := range s.sessions {
		if hard {
			session.abort()
		} else {
			session.wake()
		}
	}
	if hard {
		s.cancel()
	}
}

func (s *Server) add(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start()
	if s.closing {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) remove(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	_ = l.Close() // it may be closed already
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

func (s *Server) service() string {
	if s.Submission {
		return "submission"
	}
	return "smtp"
}

// newSession registers a connection; it returns nil when the server is closed.
func (s *Server) newSession(c net.Conn) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start()
	if s.closing {
		return nil
	}
	ctx, cancel := context.WithCancel(s.ctx)
	session := &session{
		server: s, conn: newConn(c), raw: c, ctx: ctx, cancel: cancel, log: s.log,
		limits: s.limits,
		client: Client{ID: message.NewID().String()},
		began:  time.Now(),
	}
	session.conn.end = session.began.Add(s.limits.Session)
	session.conn.writeTimeout = s.limits.Write
	s.sessions[session] = struct{}{}
	return session
}

func (s *Server) forget(session *session) {
	session.cancel()
	_ = session.conn.close() // it may be closed already
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, session)
}

// recover ends one connection, and only that one, after a bug in a hook or in the engine.
func (s *session) recover() {
	v := recover()
	if v == nil {
		return
	}
	s.log.Error("panic", "err", v, "stack", string(debug.Stack()))
	s.reply(replyPanic)
	_ = s.conn.flush() // the client may be gone, and the cause is logged
}

func addrPort(a net.Addr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{} // not TCP: a pipe in a test, a Unix socket
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// acquire counts the connection. Too many are told so, where that can be said in clear text.
func (s *session) acquire() bool {
	slot, err := s.server.Connections.Acquire(s.server.Group, s.client.Remote.Addr())
	if err == nil {
		s.slot = slot
		return true
	}
	level := slog.LevelInfo
	if errors.Is(err, limit.ErrTooManyInAll) {
		level = slog.LevelWarn
	}
	s.log.Log(s.ctx, level, "connection refused", "err", err)
	if !s.server.ImplicitTLS {
		s.reply(replyConnections)
		s.conn.writeTimeout = time.Second
		_ = s.conn.flush() // refused either way
	}
	return false
}
