package listen

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func TestOpen(t *testing.T) {
	all, err := (Sockets{}).Open("smtp", []string{"127.0.0.1:0", "127.0.0.1:0"})
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, l := range all {
		defer l.Close()
	}
	taken := all[0].Addr().String()
	if _, err := (Sockets{}).Open("pop3", []string{"127.0.0.1:0", taken}); err == nil ||
		err.Error() != "cannot listen on "+taken+" (pop3): another program listens there already" {
		t.Errorf("got %v", err)
	}
	if _, err := (Sockets{}).Open("pop3", []string{"192.0.2.1:0"}); err == nil || !strings.Contains(err.Error(), "this machine does not have that address") {
		t.Errorf("got %v", err)
	}
	given, err := Sockets{"smtp": {all[0], nil}}.Open("smtp", []string{"192.0.2.1:0"})
	if err != nil || len(given) != 1 || given[0] != all[0] {
		t.Errorf("systemd's sockets: %v, %v", given, err)
	}
}

// peer connects to a proxied listener, says something, and tells what the server saw.
func peer(t *testing.T, trusted []netip.Prefix, say string) (remote string, line string, err error) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Proxied(inner, trusted)
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, say); err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	remote = s.RemoteAddr().String()
	line, err = bufio.NewReader(s).ReadString('\n')
	return remote, line, err
}

func TestProxied(t *testing.T) {
	v2 := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), 203, 0, 113, 9, 192, 0, 2, 1, 0x30, 0x39, 0, 25)
	local := []byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")
	for _, tc := range []struct {
		name    string
		trusted []netip.Prefix
		say     string
		remote  string // "" for 127.0.0.1
		line    string // "" where the connection must end
	}{
		{"version 1", loopback, "PROXY TCP4 203.0.113.7 192.0.2.1 1234 25\r\nEHLO x\r\n", "203.0.113.7:1234", "EHLO x\r\n"},
		{"version 1, IPv6", loopback, "PROXY TCP6 2001:db8::7 2001:db8::1 1234 25\r\nEHLO x\r\n", "[2001:db8::7]:1234", "EHLO x\r\n"},
		{"version 2", loopback, string(v2) + "EHLO x\r\n", "203.0.113.9:12345", "EHLO x\r\n"},
		{"LOCAL, a health check", loopback, string(local) + "EHLO x\r\n", "", "EHLO x\r\n"},
		{"no header from a listed proxy", loopback, "EHLO x\r\n", "", ""},
		{"half a header", loopback, "PROXY TCP4 203.0.113.7\r\n", "", ""},
		{"a header from somebody else", []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
			"PROXY TCP4 203.0.113.7 192.0.2.1 1234 25\r\n", "", "PROXY TCP4 203.0.113.7 192.0.2.1 1234 25\r\n"},
		{"no proxies", nil, "EHLO x\r\n", "", "EHLO x\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			remote, line, err := peer(t, tc.trusted, tc.say)
			if tc.line == "" {
				if err == nil {
					t.Errorf("read %q, want an error", line)
				}
				return
			}
			if tc.remote == "" {
				remote, _, _ = strings.Cut(remote, ":")
				tc.remote = "127.0.0.1"
			}
			if remote != tc.remote || line != tc.line || err != nil {
				t.Errorf("%s said %q, %v; want %s, %q", remote, line, err, tc.remote, tc.line)
			}
		})
	}
}

// TestSilentProxy shows that a proxy that says nothing does not keep others from being accepted.
func TestSilentProxy(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Proxied(inner, loopback)
	defer l.Close()
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := l.Accept() // would hang here if Accept read the header
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
}

// flaky fails as a listener does when the process has too many files open.
type flaky struct {
	net.Listener
	mu   sync.Mutex // guards errs
	errs []error
}

func (f *flaky) Accept() (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.errs[0]
	if len(f.errs) > 1 {
		f.errs = f.errs[1:]
	}
	return nil, err
}

func (f *flaky) Close() error { return nil }

func TestPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := errors.New("the end")
		many := fmt.Errorf("accept: %w", syscall.EMFILE)
		began := time.Now()
		if _, err := Patient(&flaky{errs: []error{many, many, many, end}}).Accept(); !errors.Is(err, end) {
			t.Errorf("got %v", err)
		}
		if waited := time.Since(began); waited != 35*time.Millisecond {
			t.Errorf("waited %v, want 5 + 10 + 20 ms", waited)
		}
		l := Patient(&flaky{errs: []error{many}})
		done := make(chan error)
		go func() {
			_, err := l.Accept()
			done <- err
		}()
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// oneConn is a listener with a single connection, whose peer said all it will ever say.
type oneConn struct {
	net.Listener
	said []byte
}

type saidConn struct {
	net.Conn
	r io.Reader
}

func (c saidConn) Read(p []byte) (int, error)      { return c.r.Read(p) }
func (c saidConn) RemoteAddr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (c saidConn) LocalAddr() net.Addr             { return c.RemoteAddr() }
func (c saidConn) SetReadDeadline(time.Time) error { return nil }
func (c saidConn) SetDeadline(time.Time) error     { return nil }
func (c saidConn) Close() error                    { return nil }
func (l *oneConn) Accept() (net.Conn, error)       { return saidConn{r: bytes.NewReader(l.said)}, nil }

// FuzzHeader reads anything as what a listed proxy says: no panic, and octets only behind a header.
func FuzzHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 203.0.113.7 192.0.2.1 1234 25\r\nEHLO x\r\n"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00EHLO x\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\nEHLO x\r\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		c, err := Proxied(&oneConn{said: said}, loopback).Accept()
		if err != nil {
			return
		}
		_ = c.RemoteAddr().String()
		got, _ := io.ReadAll(c)
		if len(got) > 0 && !bytes.HasPrefix(said, []byte("PROXY")) && !bytes.HasPrefix(said, []byte("\r\n\r\n\x00\r\nQUIT\n")) {
			t.Errorf("%q from a proxy without a header", got)
		}
	})
}

// TestSocketsOfOneUnit shows which of the sockets that systemd gives without a name belong to which service.
func TestSocketsOfOneUnit(t *testing.T) {
	at := func(address string) net.Listener {
		a, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		return &idle{addr: a}
	}
	for _, tc := range []struct {
		name  string
		given string // the unit's name
		bound []string
		addrs []string // of the configuration
		taken []string
		left  []string
	}{
		{"a port of all addresses", "postroom.socket", []string{"[::]:25", "[::]:587"}, []string{":25"}, []string{"[::]:25"}, []string{"postroom.socket [::]:587"}},
		{"both families apart", "postroom.socket", []string{"0.0.0.0:25", "[::]:25"}, []string{":25"}, []string{"0.0.0.0:25", "[::]:25"}, nil},
		{"one address", "postroom.socket", []string{"192.0.2.1:25", "192.0.2.2:25"}, []string{"192.0.2.2:25"}, []string{"192.0.2.2:25"}, []string{"postroom.socket 192.0.2.1:25"}},
		{"one address is not all", "postroom.socket", []string{"192.0.2.1:25"}, []string{":0"}, nil, []string{"postroom.socket 192.0.2.1:25"}},
		{"its name", "smtp", []string{"[::]:2525"}, []string{":25"}, []string{"[::]:2525"}, nil},
		{"the name of another service", "pop3", []string{"192.0.2.1:0"}, nil, nil, []string{"pop3 192.0.2.1:0"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := Sockets{}
			for _, b := range tc.bound {
				s[tc.given] = append(s[tc.given], at(b))
			}
			open, err := s.Open("smtp", tc.addrs)
			if err != nil {
				t.Fatal(err)
			}
			var taken []string
			for _, l := range open {
				if _, ours := l.(*idle); ours {
					taken = append(taken, l.Addr().String())
				}
				l.Close()
			}
			if left := s.Left(); !slices.Equal(taken, tc.taken) || !slices.Equal(left, tc.left) {
				t.Errorf("took %q, left %q; want %q and %q", taken, left, tc.taken, tc.left)
			}
			if again := s.Left(); again != nil {
				t.Errorf("still there: %q", again)
			}
		})
	}
}

// idle is a listener that only has an address.
type idle struct{ addr net.Addr }

func (i *idle) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (i *idle) Close() error              { return nil }
func (i *idle) Addr() net.Addr            { return i.addr }

// TestAccepting shows that a loop that has stopped accepting is noticed, and one that waits for ever is not taken for it.
func TestAccepting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := make(chan net.Conn)
		l := Watch(&queued{next: next})
		time.Sleep(time.Minute)
		if l.Away() != time.Minute {
			t.Errorf("before the first Accept: %s", l.Away())
		}
		accepted := make(chan net.Conn)
		go func() {
			c, _ := l.Accept()
			accepted <- c
		}()
		synctest.Wait()
		time.Sleep(time.Hour)
		if l.Away() != 0 {
			t.Errorf("while it waits: %s", l.Away())
		}
		next <- nil
		<-accepted
		time.Sleep(3 * time.Second)
		if l.Away() != 3*time.Second {
			t.Errorf("after it returned: %s", l.Away())
		}
	})
}

// queued is a listener that hands out what the test gives it.
type queued struct {
	idle
	next chan net.Conn
}

func (q *queued) Accept() (net.Conn, error) { return <-q.next, nil }
