package dnscheck

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/wire"
)

// probeTimeout bounds one look at something outside.
const probeTimeout = 10 * time.Second

// System are the Probes of the real world.
type System struct {
	DNS         DNS
	Hello       string                                                      // what EHLO says
	FetchPolicy func(ctx context.Context, domain string) ([]byte, error)    // of MTA-STS
	Dial        func(ctx context.Context, address string) (net.Conn, error) // nil: the network
	Local       func(port int) string                                       // where a port of this server is reached from here
}

var _ Probes = (*System)(nil)

func (s *System) dial(ctx context.Context, address string) (net.Conn, error) {
	if s.Dial != nil {
		return s.Dial(ctx, address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// Policy implements Probes.
func (s *System) Policy(ctx context.Context, domain string) ([]byte, error) {
	return s.FetchPolicy(ctx, domain)
}

// Certificate implements Probes. It trusts nobody: what is shown is judged.
func (s *System) Certificate(ctx context.Context, port int, name string) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := s.dial(ctx, s.Local(port))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	if err := s.startTLS(conn, port); err != nil {
		return nil, err
	}
	secure := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}) // the chain is looked at by the caller
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secure.ConnectionState().PeerCertificates, nil
}

// startTLS asks for TLS where a port begins in clear text: RFC 3207, RFC 2595.
func (s *System) startTLS(conn net.Conn, port int) error {
	var script [][2]string // what is said, and how the answer begins
	switch port {
	case 25, 587:
		script = [][2]string{{"", "220"}, {"EHLO " + s.Hello, "250"}, {"STARTTLS", "220"}}
	case 110:
		script = [][2]string{{"", "+OK"}, {"STLS", "+OK"}}
	}
	r := bufio.NewReader(conn)
	for _, step := range script {
		if step[0] != "" {
			if _, err := io.WriteString(conn, step[0]+"\r\n"); err != nil {
				return err
			}
		}
		if err := expect(r, step[1]); err != nil {
			return err
		}
	}
	return nil
}

// expect reads an answer, of several lines perhaps.
func expect(r *bufio.Reader, begins string) error {
	for range 100 {
		line, err := wire.ReadLine(r, 4096)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(string(line), begins) {
			return fmt.Errorf("the port answers %.100q", line)
		}
		if len(line) <= len(begins) || line[len(begins)] != '-' {
			return nil
		}
	}
	return errors.New("the answer does not end")
}

// bigProviders have exchangers that answer everybody, over both families.
var bigProviders = []string{"gmail.com", "outlook.com", "yahoo.com"}

// Port25 implements Probes: one exchanger that answers is enough.
func (s *System) Port25(ctx context.Context, six bool) error {
	failed := ErrNotTried
	for _, provider := range bigProviders {
		mx, err := s.DNS.MX(ctx, provider)
		if err != nil || len(mx) == 0 {
			continue
		}
		qtype := uint16(resolve.TypeA)
		if six {
			qtype = resolve.TypeAAAA
		}
		a, err := s.DNS.Lookup(ctx, mx[0].Host, qtype)
		if err != nil {
			continue
		}
		if err := s.greeted(ctx, a.Texts()[0], 25); err == nil {
			return nil
		} else if failed = err; ctx.Err() != nil {
			return err
		}
	}
	return failed
}

// greeted tells whether a server says who it is.
func (s *System) greeted(ctx context.Context, ip string, port int) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := s.dial(ctx, net.JoinHostPort(ip, strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("%s did not answer", ip)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(probeTimeout)); err != nil {
		return err
	}
	if err := expect(bufio.NewReader(conn), "220"); err != nil {
		return fmt.Errorf("%s answered, and not as a mail server: something stands between", ip)
	}
	_, _ = io.WriteString(conn, "QUIT\r\n") // nothing depends on it
	return nil
}

// timeServers is asked for the time.
const timeServers = "pool.ntp.org"

// ntpEpoch is when the seconds of NTP began: RFC 5905 section 6.
var ntpEpoch = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)

// Clock implements Probes with one question of SNTP: RFC 4330.
func (s *System) Clock(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	a, err := s.DNS.Lookup(ctx, timeServers, resolve.TypeA)
	if err != nil {
		return 0, err
	}
	return askTime(ctx, netip.AddrPortFrom(netip.MustParseAddr(a.Texts()[0]), 123))
}

func askTime(ctx context.Context, server netip.AddrPort) (time.Duration, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", server.String())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return 0, err
		}
	}
	request := make([]byte, 48)
	request[0] = 4<<3 | 3 // version 4, client
	sent := time.Now()
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	reply := make([]byte, 512)
	n, err := conn.Read(reply)
	if err != nil {
		return 0, err
	}
	return readTime(reply[:n], sent, time.Now())
}

// readTime says how far the local clock is ahead of the one in a reply.
func readTime(reply []byte, sent, got time.Time) (time.Duration, error) {
	if len(reply) < 48 || reply[0]&7 != 4 || reply[1] == 0 || reply[1] > 15 { // mode server, and a stratum that knows the time
		return 0, errors.New("the time server does not know the time")
	}
	seconds, fraction := binary.BigEndian.Uint32(reply[40:]), binary.BigEndian.Uint32(reply[44:])
	theirs := ntpEpoch.Add(time.Duration(seconds)*time.Second + time.Duration(uint64(fraction)*1e9>>32))
	if theirs.Year() < 2000 { // the seconds begin anew in 2036
		theirs = theirs.Add(time.Duration(1<<32) * time.Second)
	}
	return sent.Add(got.Sub(sent) / 2).Sub(theirs), nil
}
