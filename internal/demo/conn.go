package demo

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/postroom/postroom/internal/wire"
)

const (
	// patience is how long one reply may take; the server is on the same machine.
	patience = 10 * time.Second
	// maxLine bounds a line that the server sends; RFC 5321 section 4.5.3.1.5 asks for 512 octets in a reply.
	maxLine = 4096
	// maxLetter bounds the letter that comes back.
	maxLetter = 1 << 20
)

// conn is one connection to the server, as a client sees it.
type conn struct {
	net.Conn
	br   *bufio.Reader
	note Note
	// stop ends the watch that closes the connection when the context of dial ends.
	stop func() bool
}

// dial connects to address, with TLS at once where config is given.
func dial(ctx context.Context, address string, config *tls.Config, note Note) (*conn, error) {
	dialer := net.Dialer{Timeout: patience}
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() }) // ends a read that waits
	c := &conn{Conn: raw, br: bufio.NewReader(raw), note: note, stop: stop}
	if config != nil {
		if err := c.encrypt(ctx, config); err != nil {
			return nil, c.giveUp(err)
		}
	}
	return c, nil
}

// encrypt runs the TLS handshake; what arrived before it is not read after it (RFC 3207 section 5).
func (c *conn) encrypt(ctx context.Context, config *tls.Config) error {
	if c.br.Buffered() > 0 {
		return fmt.Errorf("the server sent %d octets before the TLS handshake", c.br.Buffered())
	}
	secure := tls.Client(c.Conn, config)
	if err := secure.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if err := secure.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.Conn, c.br = secure, bufio.NewReader(secure)
	state := secure.ConnectionState()
	c.note("%s, %s, certificate for %q verified", tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite), config.ServerName)
	return nil
}

// Close closes the connection.
func (c *conn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// giveUp closes the connection and returns the error that ended it.
func (c *conn) giveUp(err error) error {
	_ = c.Close() // err is the one that matters
	return err
}

// send writes one command line.
func (c *conn) send(command string) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := io.WriteString(c.Conn, command+"\r\n")
	return err
}

// line reads one line, without its CR LF.
func (c *conn) line() (string, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	line, err := wire.ReadLine(c.br, maxLine)
	return string(line), err
}

// clientTLS verifies the server as name against roots.
func clientTLS(roots *x509.CertPool, name string) *tls.Config {
	return &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS12}
}
