package delivery

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/postroom/postroom/internal/wire"
)

// The time-outs of RFC 5321 section 4.5.3.2, and what bounds a peer that keeps to each of them.
const (
	dialTimeout      = 30 * time.Second
	greetingTimeout  = 5 * time.Minute
	commandTimeout   = 5 * time.Minute // MAIL and RCPT
	dataTimeout      = 2 * time.Minute // of the answer to DATA
	blockTimeout     = 3 * time.Minute // of each block of the content
	finalTimeout     = 10 * time.Minute
	handshakeTimeout = time.Minute
	setupTimeout     = 10 * time.Minute // from the greeting to the first MAIL
	envelopeTimeout  = 10 * time.Minute // from MAIL to the content,
	perRecipient     = 30 * time.Second // and for each recipient: some servers let strangers wait before each answer
	quitTimeout      = 5 * time.Second
	lastWordsTimeout = 2 * time.Second // for a reply that explains why the connection broke

	minRate = 8 << 10 // octets of content a second, over the whole of it
)

const (
	readBuffer  = 2048
	writeInline = 1024 // commands up to this size fit into any buffer on the way
)

// conn is the octets of a connection to a server: replies in, commands out, each with a deadline.
type conn struct {
	net net.Conn // TLS, once it has begun
	raw net.Conn
	br  *bufio.Reader
	end time.Time // of what is being done now: no single time-out goes beyond
}

func newConn(c net.Conn) *conn {
	return &conn{net: c, raw: c, br: bufio.NewReaderSize(c, readBuffer), end: time.Now().Add(setupTimeout)}
}

// until bounds what follows.
func (c *conn) until(d time.Duration) { c.end = time.Now().Add(d) }

func (c *conn) deadline(timeout time.Duration) time.Time {
	at := time.Now().Add(timeout)
	if c.end.Before(at) {
		return c.end
	}
	return at
}

// reply reads one reply. The whole of it must come in time, so that one that trickles in costs no more than one that does not
// come.
func (c *conn) reply(timeout time.Duration) (wire.Reply, error) {
	if err := c.net.SetReadDeadline(c.deadline(timeout)); err != nil {
		return wire.Reply{}, err
	}
	return wire.ReadReply(c.br)
}

// quiet fails where the server said something that nobody asked for: what it says next would be taken for the wrong answer.
func (c *conn) quiet() error {
	if c.br.Buffered() > 0 {
		return errReply
	}
	return nil
}

// Write sends octets to a server that takes them in time.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.net.SetWriteDeadline(c.deadline(blockTimeout)); err != nil {
		return 0, err
	}
	return c.net.Write(p)
}

// command sends a line and reads the reply.
func (c *conn) command(line string, timeout time.Duration) (wire.Reply, error) {
	if err := c.quiet(); err != nil {
		return wire.Reply{}, err
	}
	if _, err := c.Write([]byte(line + "\r\n")); err != nil {
		return wire.Reply{}, err
	}
	return c.reply(timeout)
}

// begin sends many commands while their replies are being read, since a server may stop reading until somebody reads what it
// has answered (RFC 2920 section 3.1). sent must be called after the replies; where they did not come, after abort.
func (c *conn) begin(commands []byte) (sent func() error) {
	if len(commands) <= writeInline {
		_, err := c.Write(commands)
		return func() error { return err }
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.Write(commands)
		done <- err
	}()
	return func() error { return <-done }
}

// startTLS makes the connection a TLS one.
func (c *conn) startTLS(ctx context.Context, config *tls.Config) (*tls.ConnectionState, error) {
	if err := c.quiet(); err != nil {
		return nil, err // RFC 3207 section 4.2: what came in clear text behind the answer to STARTTLS
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	secure := tls.Client(c.net, config)
	if err := secure.SetDeadline(c.deadline(handshakeTimeout)); err != nil {
		return nil, err
	}
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	c.net = secure
	c.br.Reset(secure)
	state := secure.ConnectionState()
	return &state, nil
}

// abort ends the connection under whatever is done with it. It may be called from any goroutine.
func (c *conn) abort() { _ = c.raw.Close() } // whoever uses it notices

// quit takes leave, and ends the connection.
func (c *conn) quit() {
	c.until(quitTimeout)
	_, _ = c.command("QUIT", quitTimeout) // nothing depends on the answer
	c.abort()
}
