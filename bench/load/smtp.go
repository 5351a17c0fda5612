package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long one step may take.
const patience = 2 * time.Minute

// SMTP is a load of letters.
type SMTP struct {
	Addr        string
	TLS         *tls.Config // STARTTLS, where it is not nil
	Implicit    bool        // TLS from the first octet, in place of STARTTLS
	Reconnect   bool        // a connection for each letter
	Pipelined   bool        // MAIL, RCPT and DATA in one write
	BDAT        bool        // BDAT in place of DATA
	Connections int
	Count       int // letters, in all
	First       int // the id of the first
	To          func(n int) string
	From        func(connection int) string // whose letters a connection hands in; nil: those of Sender
	Password    string                      // of all these; "": they do not log in
	Letters     *Letters
}

// Result is what a load took.
type Result struct {
	Accepted  int
	Octets    int64
	Took      time.Duration
	latencies []time.Duration // from the last octet of a letter to its 250
	Failed    int
	Err       error // the first
}

// Rate is letters a second.
func (r Result) Rate() float64 { return float64(r.Accepted) / r.Took.Seconds() }

// Percentile is the latency below which so many of a hundred letters were.
func (r Result) Percentile(p float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	return r.latencies[min(len(r.latencies)-1, int(float64(len(r.latencies))*p/100))]
}

// Run sends all letters, and returns when each has its answer.
func (s SMTP) Run(ctx context.Context) Result {
	var next atomic.Int64
	results := make([]Result, s.Connections)
	var wait sync.WaitGroup
	began := time.Now()
	for i := range results {
		from := Sender
		if s.From != nil {
			from = s.From(i)
		}
		wait.Go(func() { results[i] = s.send(ctx, from, &next) })
	}
	wait.Wait()
	all := Result{Took: time.Since(began)}
	for _, r := range results {
		all.Accepted += r.Accepted
		all.Octets += r.Octets
		all.Failed += r.Failed
		all.latencies = append(all.latencies, r.latencies...)
		if all.Err == nil {
			all.Err = r.Err
		}
	}
	slices.Sort(all.latencies)
	return all
}

// send is one client. It ends when all letters are given out, or after a failure.
func (s SMTP) send(ctx context.Context, from string, next *atomic.Int64) (r Result) {
	var c *client
	var err error
	var buffer []byte
	for n := int(next.Add(1)) - 1; n < s.Count && ctx.Err() == nil; n = int(next.Add(1)) - 1 {
		if c == nil {
			if c, err = s.connect(ctx, from); err != nil {
				break
			}
		}
		var took time.Duration
		var size int
		if took, size, err = s.letter(c, s.To(n), &buffer, s.First+n); err != nil {
			break
		}
		r.Accepted++
		r.Octets += int64(size)
		r.latencies = append(r.latencies, took)
		if s.Reconnect {
			c.quit()
			c = nil
		}
	}
	if c != nil {
		c.quit()
	}
	if err != nil {
		r.Failed, r.Err = 1, err
	}
	return r
}

// client is one connection.
type client struct {
	conn net.Conn
	r    *bufio.Reader
	from string // who sends, over SMTP
}

func dial(ctx context.Context, addr string) (*client, error) {
	d := net.Dialer{Timeout: patience}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, r: bufio.NewReader(conn)}, nil
}

func (s SMTP) connect(ctx context.Context, from string) (*client, error) {
	c, err := dial(ctx, s.Addr)
	if err != nil {
		return nil, err
	}
	c.from = from
	if s.Implicit {
		if err := c.encrypt(ctx, s.TLS); err != nil {
			return nil, err
		}
	}
	if err := c.expect("220", ""); err != nil {
		return nil, err
	}
	if err := c.expect("250", "EHLO "+ClientName); err != nil {
		return nil, err
	}
	if s.TLS != nil && !s.Implicit {
		if err := s.startTLS(ctx, c); err != nil {
			return nil, err
		}
	}
	if s.Password == "" {
		return c, nil
	}
	return c, c.expect("235", "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+from+"\x00"+s.Password)))
}

func (s SMTP) startTLS(ctx context.Context, c *client) error {
	if err := c.expect("220", "STARTTLS"); err != nil {
		return err
	}
	if err := c.encrypt(ctx, s.TLS); err != nil {
		return err
	}
	return c.expect("250", "EHLO "+ClientName)
}

func (c *client) encrypt(ctx context.Context, config *tls.Config) error {
	secure := tls.Client(c.conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return err
	}
	c.conn, c.r = secure, bufio.NewReader(secure)
	return nil
}

// expect sends a command, unless it is empty, and wants a reply of that code.
func (c *client) expect(code, command string) error {
	if command != "" {
		if err := c.write([]byte(command + "\r\n")); err != nil {
			return err
		}
	}
	for {
		line, err := c.line()
		switch {
		case err != nil:
			return fmt.Errorf("after %.40q: %w", command, err)
		case !strings.HasPrefix(line, code):
			return fmt.Errorf("%.40q was answered with %q", command, line)
		case len(line) < 4 || line[3] == ' ':
			return nil
		}
	}
}

func (c *client) line() (string, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	line, err := c.r.ReadSlice('\n')
	return strings.TrimRight(string(line), "\r\n"), err
}

func (c *client) write(b []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := c.conn.Write(b)
	return err
}

func (c *client) quit() {
	_ = c.expect("221", "QUIT") // the letters have their answers
	_ = c.conn.Close()
}

// letter hands letter number n over, and returns how long its final reply took and the letter's size. buffer is scratch.
func (s SMTP) letter(c *client, to string, buffer *[]byte, n int) (took time.Duration, size int, err error) {
	head, body := s.Letters.parts(n, c.from)
	size = len(head) + len(body)
	commands := []string{"MAIL FROM:<" + c.from + ">", "RCPT TO:<" + to + ">"}
	codes := []string{"250", "250"}
	end := ".\r\n"
	if s.BDAT {
		head, end = fmt.Appendf(nil, "BDAT %d LAST\r\n%s", size, head), ""
	} else {
		commands, codes = append(commands, "DATA"), append(codes, "354")
	}
	if s.Pipelined {
		if err := c.write([]byte(strings.Join(commands, "\r\n") + "\r\n")); err != nil {
			return 0, 0, err
		}
	}
	for i, command := range commands {
		if s.Pipelined {
			command = ""
		}
		if err := c.expect(codes[i], command); err != nil {
			return 0, 0, err
		}
	}
	if err := c.writeLetter(buffer, head, body, end); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	err = c.expect("250", "")
	return time.Since(began), size, err
}

// maxCopied is the largest letter that goes out in one write. A larger one is not copied.
const maxCopied = 1 << 20

func (c *client) writeLetter(buffer *[]byte, head, body []byte, end string) error {
	if len(body) <= maxCopied {
		*buffer = append(append(append((*buffer)[:0], head...), body...), end...)
		return c.write(*buffer)
	}
	for _, part := range [][]byte{head, body, []byte(end)} {
		if err := c.write(part); err != nil {
			return err
		}
	}
	return nil
}

// Idle holds n connections open, after TLS where config is not nil, until close is called.
func Idle(ctx context.Context, addr string, config *tls.Config, n int) (close func(), err error) {
	s := SMTP{Addr: addr, TLS: config}
	clients := make([]*client, n)
	errs := make([]error, n)
	var next atomic.Int64
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				clients[i], errs[i] = s.connect(ctx, Sender)
			}
		})
	}
	wait.Wait()
	close = func() {
		for _, c := range clients {
			if c != nil {
				_ = c.conn.Close()
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		close()
		return nil, err
	}
	return close, nil
}
