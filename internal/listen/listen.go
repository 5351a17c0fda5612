package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/pires/go-proxyproto"
)

// headerTimeout is how long a proxy may take to say whom it speaks for.
const headerTimeout = 5 * time.Second

// Sockets are what systemd gave this process, by name.
type Sockets map[string][]net.Listener

// Inherited takes the sockets over. It is to be called once, at start.
func Inherited() (Sockets, error) {
	byName, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("take over systemd's sockets: %w", err)
	}
	return byName, nil
}

// Open returns the listeners of a service: those that systemd gave it by name, else those that it gave without one for the
// addresses, else new ones. When one cannot be opened, none is left open. Given sockets are handed out once.
func (s Sockets) Open(service string, addrs []string) (all []net.Listener, err error) {
	if given := s[service]; len(given) > 0 {
		delete(s, service)
		return slices.DeleteFunc(slices.Clone(given), func(l net.Listener) bool { return l == nil }), nil
	}
	for _, a := range addrs {
		if given := s.take(a); len(given) > 0 {
			all = append(all, given...)
			continue
		}
		l, err := net.Listen("tcp", a)
		if err != nil {
			for _, open := range all {
				_ = open.Close() // the error that matters is the first
			}
			return nil, fmt.Errorf("cannot listen on %s (%s): %s", a, service, advice(service, err))
		}
		all = append(all, l)
	}
	return all, nil
}

// advice says in plain words why a port cannot be had, and what to do.
func advice(service string, err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "permission denied; run as root, or use a port above 1023"
	case errors.Is(err, syscall.EADDRINUSE) && (service == "http" || service == "https"):
		return "another program listens there already; if it is a web server, docs/web.md says how both can go on"
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program listens there already"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine does not have that address"
	}
	return err.Error()
}

// Patient returns a listener that waits out what passes, such as too many open files, instead of failing.
func Patient(l net.Listener) net.Listener { return &patient{Listener: l, closed: make(chan struct{})} }

type patient struct {
	net.Listener
	once   sync.Once
	closed chan struct{}
}

const (
	firstPause = 5 * time.Millisecond
	maxPause   = time.Second
)

// Accept returns a connection, or the error that ends the listener.
func (p *patient) Accept() (net.Conn, error) {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		c, err := p.Listener.Accept()
		if err == nil || !passes(err) {
			return c, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-p.closed:
			timer.Stop()
			return nil, net.ErrClosed
		}
	}
}

// Close ends the listener, and a pause.
func (p *patient) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Listener.Close()
}

// passes tells whether accept(2) may work again soon.
func passes(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Proxied returns a listener whose connections from the listed proxies begin with a PROXY header. The header is read with
// the connection's first read or question for its address, in that connection's own goroutine: a proxy that says nothing
// holds up nobody else, and is dropped after five seconds. Everybody else is taken as they come; a header from them is
// octets like any others.
func Proxied(l net.Listener, trusted []netip.Prefix) net.Listener {
	if len(trusted) == 0 {
		return l
	}
	return &proxyproto.Listener{
		Listener:          l,
		ReadHeaderTimeout: headerTimeout,
		ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			if isTrusted(o.Upstream, trusted) {
				return proxyproto.REQUIRE, nil
			}
			return proxyproto.SKIP, nil
		},
	}
}

func isTrusted(a net.Addr, trusted []netip.Prefix) bool {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return false
	}
	ip := ap.Addr().Unmap().WithZone("")
	return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// Addresses are those of this machine's interfaces.
func Addresses() (all []netip.Addr, err error) {
	interfaces, err := net.InterfaceAddrs()
	for _, a := range interfaces {
		text, _, _ := strings.Cut(a.String(), "/")
		if ip, err := netip.ParseAddr(text); err == nil {
			all = append(all, ip.Unmap().WithZone(""))
		}
	}
	return all, err
}

// Source is the address from which this machine reaches the world over a family; zero where it does not. Nothing is sent.
func Source(six bool) netip.Addr {
	network, somewhere := "udp4", "192.0.2.1:9" // RFC 5737: the way there is the way to anywhere
	if six {
		network, somewhere = "udp6", "[2001:db8::1]:9"
	}
	conn, err := net.Dial(network, somewhere)
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	local, _ := conn.LocalAddr().(*net.UDPAddr) // it is one
	return local.AddrPort().Addr().Unmap().WithZone("")
}

// Public tells whether the world can reach an address: it is no private one, and none that providers share among customers (RFC 6598).
func Public(ip netip.Addr) bool {
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && !shared.Contains(ip)
}

var shared = netip.MustParsePrefix("100.64.0.0/10")
