package smtpd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/postroom/postroom/internal/limit"
	"github.com/postroom/postroom/internal/wire"
)

const (
	smallBuffer = 2048     // while commands are read; 2,000 idle clients cost little
	largeBuffer = 64 << 10 // while a message is read
)

// largeReaders holds the buffers of messages: there are as many as messages on their way, not as connections.
var largeReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, largeBuffer) }}

// errLeftover says that the client sent something in clear text behind STARTTLS, which RFC 3207 section 4.2 must not see
// executed.
var errLeftover = errors.New("smtpd: clear text after STARTTLS")

// conn is the octets of a connection: buffers, deadlines, TLS.
type conn struct {
	net   net.Conn
	small *bufio.Reader
	large *bufio.Reader // not nil while a message is read, and until it is empty
	out   []byte        // replies that were not sent yet

	end          time.Time // of the session
	writeTimeout time.Duration

	dataTimeout time.Duration    // while a message is read: of each read
	rate        limit.Throughput // of that message
}

func newConn(c net.Conn) *conn {
	nc := &conn{net: c}
	nc.small = bufio.NewReaderSize(nc, smallBuffer)
	return nc
}

// Read is what the buffers read from. Inside a message every read has a deadline of its own, and counts for the rate.
func (c *conn) Read(p []byte) (int, error) {
	if c.dataTimeout == 0 {
		return c.net.Read(p)
	}
	if err := c.setReadDeadline(time.Now().Add(c.dataTimeout)); err != nil {
		return 0, err
	}
	n, err := c.net.Read(p)
	if err == nil {
		err = c.rate.Add(n)
	}
	return n, err
}

// beginData makes the reads that follow those of a message.
func (c *conn) beginData(timeout time.Duration) *bufio.Reader {
	c.dataTimeout = timeout
	c.rate = limit.Throughput{MinOctets: minRate, Window: minRateWindow}
	c.rate.Start()
	return c.grow()
}

func (c *conn) endData() { c.dataTimeout = 0 }

// reader is where the next octet is.
func (c *conn) reader() *bufio.Reader {
	if c.large == nil {
		return c.small
	}
	if c.large.Buffered() > 0 {
		return c.large
	}
	c.shrink()
	return c.small
}

// grow switches to a large buffer, which takes what the small one holds.
func (c *conn) grow() *bufio.Reader {
	if c.large == nil {
		c.large = largeReaders.Get().(*bufio.Reader)
		c.large.Reset(c.small)
	}
	return c.large
}

func (c *conn) shrink() {
	if c.large != nil {
		c.large.Reset(nil)
		largeReaders.Put(c.large)
		c.large = nil
	}
}

// buffered tells whether another line is here already, so that its answer can wait for company (RFC 2920 section 3.2).
func (c *conn) buffered() bool {
	return hasLine(c.small) || (c.large != nil && hasLine(c.large))
}

func hasLine(r *bufio.Reader) bool {
	b, err := r.Peek(r.Buffered())
	return err == nil && bytes.IndexByte(b, '\n') >= 0
}

// leftover is how many octets were received and not read.
func (c *conn) leftover() int {
	n := c.small.Buffered()
	if c.large != nil {
		n += c.large.Buffered()
	}
	return n
}

// setReadDeadline says how long the next read may take; the session's end comes first.
func (c *conn) setReadDeadline(t time.Time) error { return c.net.SetReadDeadline(earlier(t, c.end)) }

// readLine reads a line of at most max octets.
func (c *conn) readLine(max int) ([]byte, error) { return wire.ReadLine(c.reader(), max) }

// discardLine drops the rest of a line that was too long.
func (c *conn) discardLine() error { return wire.DiscardLine(c.reader(), maxDiscard) }

// write queues a reply.
func (c *conn) write(r Reply) { c.out = r.Append(c.out) }

// flush sends what is queued.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	if err := c.net.SetWriteDeadline(earlier(time.Now().Add(c.writeTimeout), c.end)); err != nil {
		return err
	}
	_, err := c.net.Write(c.out)
	c.out = c.out[:0]
	if cap(c.out) > smallBuffer {
		c.out = nil
	}
	return err
}

// startTLS makes the connection a TLS one.
func (c *conn) startTLS(ctx context.Context, config *tls.Config) (*tls.ConnectionState, error) {
	if c.leftover() > 0 {
		return nil, errLeftover
	}
	c.shrink()
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	secure := tls.Server(c.net, config)
	if err := secure.SetDeadline(earlier(time.Now().Add(handshakeTime), c.end)); err != nil {
		return nil, err
	}
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if err := secure.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	c.net = secure
	c.small.Reset(c)
	state := secure.ConnectionState()
	return &state, nil
}

// close ends the connection at once.
func (c *conn) close() error {
	c.shrink()
	return c.net.Close()
}

func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}
