package web

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/postroom/postroom/internal/limit"
	"github.com/postroom/postroom/internal/wire"
)

// Bounds of a connection. A request has no more than a form's worth of text, and an answer is a page.
const (
	headerTime  = 10 * time.Second
	readTime    = 30 * time.Second
	writeTime   = 30 * time.Second
	idleTime    = 60 * time.Second
	maxHeader   = 16 << 10
	maxStreams  = 16  // of HTTP/2, in one connection
	maxConns    = 400 // in all, of the public ports: they share nothing with the mail ports, so that neither starves the other
	maxPerPeer  = 20
	maxAdmin    = 20
	adminTime   = 20 * time.Second
	gracePeriod = 5 * time.Second
)

// Limits returns the caps of the public ports and the admin port.
func Limits() limit.ConnectionLimits {
	return limit.ConnectionLimits{Total: maxConns + maxAdmin, Group: map[string]int{GroupPublic: maxConns, GroupAdmin: maxAdmin}, PerAddress: maxPerPeer}
}

// The groups of connections.
const (
	GroupPublic = "http"
	GroupAdmin  = "admin"
)

// Server serves a handler on any number of listeners. Handler is required.
type Server struct {
	Handler     http.Handler
	TLS         *tls.Config // nil: plain HTTP
	Connections *limit.Connections
	Group       string // of Connections
	Log         *slog.Logger

	once sync.Once
	http *http.Server
}

// start makes the server of package http, once.
func (s *Server) start() *http.Server {
	s.once.Do(func() {
		log := s.Log
		if log == nil {
			log = slog.New(slog.DiscardHandler)
		}
		s.http = &http.Server{
			Handler:           recovering(s.Handler, log),
			ReadHeaderTimeout: headerTime, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime,
			MaxHeaderBytes: maxHeader,
			HTTP2:          &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
			ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what strangers do wrong
		}
		if s.TLS != nil {
			s.http.TLSConfig = s.TLS.Clone()
		}
	})
	return s.http
}

// Serve accepts connections until the listener fails or the server is closed. It closes the listener.
func (s *Server) Serve(l net.Listener) error {
	h, counted := s.start(), &counted{l, s}
	var err error
	if s.TLS != nil {
		err = h.ServeTLS(counted, "", "")
	} else {
		err = h.Serve(counted)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return wire.ErrServerClosed
	}
	return err
}

// Shutdown closes the listeners and idle connections, and waits for the others until ctx ends; then it closes them. Requests are
// short: nobody is waited for longer than a few seconds.
func (s *Server) Shutdown(ctx context.Context) error {
	h := s.start()
	waiting, cancel := context.WithTimeout(ctx, gracePeriod)
	defer cancel()
	if err := h.Shutdown(waiting); err != nil {
		return errors.Join(err, h.Close())
	}
	return nil
}

// recovering ends one request, and only that one, after a bug.
func recovering(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			log.Error("panic", "err", v, "stack", string(debug.Stack()))
			http.Error(w, "Something went wrong here.", http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}

// counted counts connections.
type counted struct {
	net.Listener
	server *Server
}

// Accept returns the next connection. It is counted with its first read, which is in a goroutine of its own: asking for its
// address may read the header of a proxy.
func (c *counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedConn{Conn: conn, server: c.server}, nil
}

type countedConn struct {
	net.Conn
	server *Server

	mu     sync.Mutex // guards what follows
	asked  bool
	closed bool
	slot   *limit.Slot
	err    error
}

func (c *countedConn) Read(p []byte) (int, error) {
	if err := c.acquire(); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// acquire counts the connection once. Those from this machine are a proxy's, or a program's, and share no limit of one address.
func (c *countedConn) acquire() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked {
		return c.err
	}
	c.asked = true
	if c.closed {
		c.err = net.ErrClosed
		return c.err
	}
	ip := wire.AddrPort(c.RemoteAddr()).Addr()
	if ip.IsLoopback() {
		ip = netip.Addr{}
	}
	var err error
	if c.slot, err = c.server.Connections.Acquire(c.server.Group, ip); err != nil {
		if c.server.Log != nil {
			c.server.Log.Info("connection refused", "err", err)
		}
		c.err = io.EOF // as if the client had gone: package http answers other errors
	}
	return c.err
}

func (c *countedConn) Close() error {
	err := c.Conn.Close() // before the lock: acquire may hold it while it waits for a proxy
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.slot.Release()
	return err
}
