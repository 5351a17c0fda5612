package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/postroom/postroom/internal/limit"
)

const (
	smallBuffer   = 2048     // while commands are read; thousands of idle clients cost little
	largeBuffer   = 64 << 10 // while a message passes
	maxDiscard    = 1 << 20  // of an overlong line, before the connection is given up
	handshakeTime = time.Minute
)

// The buffers of messages: there are as many as messages on their way, not as connections. They are shared by all servers
// of the process, which is what a pool is for.
var (
	largeReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, largeBuffer) }}
	largeWriters = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, largeBuffer) }}
)

var (
	// ErrLeftover says that the client sent something in clear text behind the command that starts TLS. RFC 3207 section
	// 4.2, RFC 2595 section 4: it must not be executed.
	ErrLeftover = errors.New("wire: clear text after the command that starts TLS")
	// ErrStopping says that the server is shutting down while the client is idle.
	ErrStopping = errors.New("wire: shutting down")
)

// Conn is the octets of a server's connection: buffers, deadlines, TLS. All methods but Wake and Abort belong to the
// connection's goroutine.
type Conn struct {
	net   net.Conn // TLS, once it has begun
	raw   net.Conn
	small *bufio.Reader
	large *bufio.Reader // not nil while a message is read, and until it is empty
	out   []byte        // replies that were not sent yet
	bulk  *bufio.Writer // not nil while what Stream was given was not all sent; replies follow it

	end          time.Time // of the session
	writeTimeout time.Duration

	dataTimeout time.Duration    // while a message is read: of each read
	rate        limit.Throughput // of that message

	mu       sync.Mutex // guards what follows
	idle     bool       // waiting for a command with nothing to finish
	stopping bool       // Wake was called
}

// NewConn takes a connection over. end is when the session must be over, writeTimeout how long a client may take to read
// what it is sent.
func NewConn(c net.Conn, end time.Time, writeTimeout time.Duration) *Conn {
	nc := &Conn{net: c, raw: c, end: end, writeTimeout: writeTimeout}
	nc.small = bufio.NewReaderSize(reads{nc}, smallBuffer)
	return nc
}

// End is when the session must be over.
func (c *Conn) End() time.Time { return c.end }

// SetWriteTimeout changes how long a client may take to read what it is sent.
func (c *Conn) SetWriteTimeout(d time.Duration) { c.writeTimeout = d }

// reads is what the buffers read from. They do so only when a whole line is not here already, which is the one moment to
// send what is queued: answers to pipelined commands wait for company (RFC 2920 section 3.2), and no client waits for an
// answer that waits for the client. Inside a message every read has a deadline of its own, and counts for the rate.
type reads struct{ c *Conn }

func (r reads) Read(p []byte) (int, error) {
	c := r.c
	if err := c.Flush(); err != nil {
		return 0, err
	}
	if c.dataTimeout == 0 {
		return c.net.Read(p)
	}
	if err := c.net.SetReadDeadline(earlier(time.Now().Add(c.dataTimeout), c.end)); err != nil {
		return 0, err
	}
	n, err := c.net.Read(p)
	if err == nil {
		err = c.rate.Add(n)
	}
	return n, err
}

// BeginData makes the reads that follow those of a message, and returns what to read it from.
func (c *Conn) BeginData(timeout time.Duration, rate limit.Throughput) *bufio.Reader {
	c.dataTimeout, c.rate = timeout, rate
	c.rate.Start()
	if c.large == nil {
		c.large = largeReaders.Get().(*bufio.Reader)
		c.large.Reset(c.small)
	}
	return c.large
}

// EndData makes the reads that follow those of commands.
func (c *Conn) EndData() { c.dataTimeout = 0 }

// reader is where the next octet is.
func (c *Conn) reader() *bufio.Reader {
	if c.large != nil && c.large.Buffered() > 0 {
		return c.large
	}
	c.shrink()
	return c.small
}

func (c *Conn) shrink() {
	if c.large != nil {
		c.large.Reset(nil)
		largeReaders.Put(c.large)
		c.large = nil
	}
}

// Leftover is how many octets were received and not read.
func (c *Conn) Leftover() int {
	n := c.small.Buffered()
	if c.large != nil {
		n += c.large.Buffered()
	}
	return n
}

// ReadLine reads a line of at most max octets. idle says that Wake may end the wait: with ErrStopping. Its other errors are
// those of the function ReadLine.
func (c *Conn) ReadLine(max int, deadline time.Time, idle bool) ([]byte, error) {
	if err := c.wait(earlier(deadline, c.end), idle); err != nil {
		return nil, err
	}
	line, err := ReadLine(c.reader(), max)
	if c.woken() && err != nil {
		return nil, ErrStopping
	}
	return line, err
}

// wait sets the deadline of the next read under the lock, so that Wake comes before it or ends it.
func (c *Conn) wait(deadline time.Time, idle bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = idle
	if c.idle && c.stopping {
		return ErrStopping
	}
	return c.net.SetReadDeadline(deadline)
}

// woken ends the wait, and tells whether Wake did.
func (c *Conn) woken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	woken := c.idle && c.stopping
	c.idle = false
	return woken
}

// Wake makes an idle session end now, and a busy one when it is idle again. It may be called from any goroutine.
func (c *Conn) Wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
	if c.idle {
		_ = c.raw.SetReadDeadline(time.Unix(1, 0)) // a connection that is closed needs no waking
	}
}

// Abort closes the connection under the session. It may be called from any goroutine.
func (c *Conn) Abort() { _ = c.raw.Close() } // its goroutine notices, whatever this says

// DiscardLine drops the rest of a line that was too long.
func (c *Conn) DiscardLine() error { return DiscardLine(c.reader(), maxDiscard) }

// Queue appends to what is sent next.
func (c *Conn) Queue(b []byte) {
	if c.bulk != nil {
		_, _ = c.bulk.Write(b) // Flush returns its error
		return
	}
	c.out = append(c.out, b...)
}

// QueueReply appends a reply to what is sent next.
func (c *Conn) QueueReply(r Reply) {
	if c.bulk != nil {
		c.Queue(r.Append(nil))
		return
	}
	c.out = r.Append(c.out)
}

// Flush sends what is queued.
func (c *Conn) Flush() error {
	if c.bulk != nil {
		err := c.bulk.Flush()
		c.release()
		return err
	}
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.write(c.out)
	c.out = c.out[:0]
	if cap(c.out) > smallBuffer {
		c.out = nil
	}
	return err
}

// release gives the large writer back, with what was not sent.
func (c *Conn) release() {
	if c.bulk != nil {
		c.bulk.Reset(nil)
		largeWriters.Put(c.bulk)
		c.bulk = nil
	}
}

// write sends octets to a client that reads them within the write time-out.
func (c *Conn) write(p []byte) (int, error) {
	if err := c.net.SetWriteDeadline(earlier(time.Now().Add(c.writeTimeout), c.end)); err != nil {
		return 0, err
	}
	return c.net.Write(p)
}

// writes is what a large writer writes to.
type writes struct{ c *Conn }

func (w writes) Write(p []byte) (int, error) { return w.c.write(p) }

// Stream gives fill a large buffered writer behind what is queued, and sends what fill wrote, even where it failed: the
// answers before it are not its fault. Where the client has sent more commands already, the end waits for their answers.
func (c *Conn) Stream(fill func(w *bufio.Writer) error) error {
	if c.bulk == nil {
		c.bulk = largeWriters.Get().(*bufio.Writer)
		c.bulk.Reset(writes{c})
		_, _ = c.bulk.Write(c.out) // Flush, or fill, returns its error
		c.out = c.out[:0]
	}
	err := fill(c.bulk)
	if err == nil && c.Leftover() > 0 {
		return nil
	}
	return errors.Join(err, c.Flush())
}

// StartTLS makes the connection a TLS one.
func (c *Conn) StartTLS(ctx context.Context, config *tls.Config) (*tls.ConnectionState, error) {
	if c.Leftover() > 0 {
		return nil, ErrLeftover
	}
	c.shrink()
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	secure := tls.Server(c.net, config)
	if err := secure.SetDeadline(earlier(time.Now().Add(handshakeTime), c.end)); err != nil {
		return nil, err
	}
	// A handshake needs a deep stack, and that of the session would stay as large for as long as it is idle.
	shaken := make(chan error, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil { // nothing that a peer sends may end the process
				shaken <- fmt.Errorf("wire: tls handshake panicked: %v\n%s", v, debug.Stack())
			}
		}()
		shaken <- secure.HandshakeContext(ctx)
	}()
	if err := <-shaken; err != nil {
		return nil, err
	}
	if err := secure.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	c.net = secure
	state := secure.ConnectionState()
	return &state, nil
}

// Close ends the connection.
func (c *Conn) Close() error {
	c.shrink()
	c.release()
	return c.net.Close()
}

func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}
