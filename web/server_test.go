package web

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/limit"
	"github.com/postroom/postroom/internal/mailtest"
	"github.com/postroom/postroom/internal/wire"
)

// pipes is a listener of connections in memory, which all come from one address.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	from   netip.AddrPort
}

func listenPipes(from string) *pipes {
	return &pipes{conns: make(chan net.Conn), closed: make(chan struct{}), from: netip.MustParseAddrPort(from)}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return net.TCPAddrFromAddrPort(p.from) }

// dial opens a connection.
func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- from{server, p.Addr()}
	return client
}

type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// serve serves until the end of the test.
func serve(t *testing.T, s *Server, l net.Listener) (ended <-chan error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) }) // it may have been shut down
	return done
}

// exchange sends a request and returns the status line, or why there is none.
func exchange(c net.Conn, request string) (string, error) {
	if _, err := io.WriteString(c, request); err != nil {
		return "", err
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, r.Body)
	return r.Status, errors.Join(err, r.Body.Close())
}

const simple = "GET /settings HTTP/1.1\r\nHost: mail.example.org\r\n\r\n"

// TestLimits shows that one address cannot take all connections, that those from this machine are not counted by address,
// and that a connection that ends makes room.
func TestLimits(t *testing.T) {
	for _, tc := range []struct {
		from string
		want int // connections that are answered, of six
	}{
		{"192.0.2.1:1000", 2}, {"[2001:db8::1]:1000", 2}, {"127.0.0.1:1000", 5},
	} {
		t.Run(tc.from, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := listenPipes(tc.from)
				s := &Server{
					Handler: newSite(t).HTTPS(), Group: GroupPublic,
					Connections: limit.NewConnections(limit.ConnectionLimits{Total: 5, PerAddress: 2}),
				}
				serve(t, s, l)
				var open []net.Conn
				for range 6 {
					c := l.dial()
					if status, err := exchange(c, simple); err == nil && status == "200 OK" {
						open = append(open, c)
					}
				}
				if len(open) != tc.want {
					t.Errorf("%d connections were answered", len(open))
				}
				_ = open[0].Close()
				synctest.Wait()
				again := l.dial()
				if status, err := exchange(again, simple); err != nil || status != "200 OK" {
					t.Errorf("after one has ended: %s, %v", status, err)
				}
				for _, c := range append(open, again) {
					_ = c.Close()
				}
				if err := s.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				if n := s.Connections.Open(); n != 0 {
					t.Errorf("%d connections are still counted", n)
				}
			})
		})
	}
}

// TestSlowClients shows that a client that is slow at each stage is cut off.
func TestSlowClients(t *testing.T) {
	for _, tc := range []struct {
		name, sends string
		by          time.Duration
	}{
		{"says nothing", "", headerTime},
		{"half a header", "GET /settings HTTP/1.1\r\nHost: mail", headerTime},
		{"half a body", "POST /autodiscover/autodiscover.xml HTTP/1.1\r\nHost: example.org\r\nContent-Length: 100\r\n\r\n<a", readTime},
		{"nothing more", simple, idleTime},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := listenPipes("192.0.2.1:1000")
				serve(t, &Server{Handler: newSite(t).HTTPS()}, l)
				c := l.dial()
				start := time.Now()
				if _, err := io.WriteString(c, tc.sends); err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, c); err != nil { // until the server closes it
					t.Fatal(err)
				}
				if took := time.Since(start); took < tc.by || took > tc.by+time.Second {
					t.Errorf("cut off after %v, want %v", took, tc.by)
				}
				_ = c.Close()
			})
		})
	}
}

func TestLargeHeader(t *testing.T) {
	l := listenPipes("192.0.2.1:1000")
	serve(t, &Server{Handler: newSite(t).HTTPS()}, l)
	c := l.dial()
	defer c.Close()
	go func() { // the server stops reading in the middle
		_, _ = io.WriteString(c, "GET /settings HTTP/1.1\r\nHost: mail.example.org\r\nX: "+strings.Repeat("x", 2*maxHeader)+"\r\n\r\n")
	}()
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %v, %v", r, err)
	}
}

// TestPanic shows that a bug ends one request, is logged, and shows the client nothing of our inside.
func TestPanic(t *testing.T) {
	var log bytes.Buffer
	h := recovering(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("secret inside") }), logTo(&log))
	a := get(h, "http://127.0.0.1/")
	if a.status != 500 || strings.Contains(a.body, "secret") || !strings.Contains(log.String(), "secret inside") {
		t.Errorf("got %s, the log says %s", a, log.String())
	}
}

// TestServer serves over real sockets, with TLS and HTTP/2, and ends.
func TestServer(t *testing.T) {
	certificate, roots := mailtest.Certificate(t, host)
	for _, tc := range []struct {
		name  string
		tls   *tls.Config
		major int
	}{
		{"plain", nil, 1},
		{"TLS", &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := &Server{Handler: newSite(t).HTTPS(), TLS: tc.tls, Connections: limit.NewConnections(Limits()), Group: GroupPublic}
			ended := serve(t, s, l)
			scheme := "http"
			if tc.tls != nil {
				scheme = "https"
			}
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: host}, ForceAttemptHTTP2: true}
			defer transport.CloseIdleConnections()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("%s://%s/settings", scheme, l.Addr()), nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = host
			answer, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(io.Discard, answer.Body)
			if err := errors.Join(err, answer.Body.Close()); err != nil {
				t.Fatal(err)
			}
			if answer.StatusCode != 200 || answer.ProtoMajor != tc.major {
				t.Errorf("got %s over %s", answer.Status, answer.Proto)
			}
			if n := s.Connections.ByGroup()[GroupPublic]; n != 1 {
				t.Errorf("%d connections are counted", n)
			}
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if err := <-ended; !errors.Is(err, wire.ErrServerClosed) {
				t.Errorf("it ended with %v", err)
			}
			if err := s.Serve(l); !errors.Is(err, wire.ErrServerClosed) {
				t.Errorf("served after the end: %v", err)
			}
		})
	}
}

// TestChallengeOverTLS shows that the protocol by which an authority looks at the port with TLS (RFC 8737) is still spoken when package
// http has added its own.
func TestChallengeOverTLS(t *testing.T) {
	certificate, roots := mailtest.Certificate(t, host)
	const challenge = "acme-tls/1"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, NextProtos: []string{challenge}}
	serve(t, &Server{Handler: newSite(t).HTTPS(), TLS: config}, l)
	for _, offered := range []string{challenge, "h2", "http/1.1"} {
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots, ServerName: host, NextProtos: []string{offered}})
		if err != nil {
			t.Fatalf("%s: %v", offered, err)
		}
		if got := c.ConnectionState().NegotiatedProtocol; got != offered {
			t.Errorf("%s was offered, %q is spoken", offered, got)
		}
		_ = c.Close() // nothing was asked
	}
	if len(config.NextProtos) != 1 {
		t.Errorf("the caller's configuration was changed: %q", config.NextProtos)
	}
}
