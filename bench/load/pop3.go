package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// POP3 is an account to be looked into over POP3S.
type POP3 struct {
	Addr     string
	TLS      *tls.Config
	Login    string
	Password string
}

// open logs in and returns how many letters there are.
func (p POP3) open(ctx context.Context, login string) (c *client, count int, err error) {
	if c, err = dial(ctx, p.Addr); err != nil {
		return nil, 0, err
	}
	if err := c.encrypt(ctx, p.TLS); err != nil {
		return nil, 0, err
	}
	c.r = bufio.NewReaderSize(c.conn, 64<<10)
	for _, command := range []string{"", "USER " + login, "PASS " + p.Password} {
		if err := c.expect("+OK", command); err != nil {
			return nil, 0, err
		}
	}
	if err := c.write([]byte("STAT\r\n")); err != nil {
		return nil, 0, err
	}
	line, err := c.line()
	if err != nil {
		return nil, 0, err
	}
	if _, err := fmt.Sscanf(line, "+OK %d", &count); err != nil {
		return nil, 0, fmt.Errorf("STAT was answered with %q", line)
	}
	return c, count, nil
}

// skip reads a multi-line answer without keeping it, and counts lines and octets.
func (c *client) skip() (lines int, octets int64, err error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, 0, err
	}
	for {
		line, err := c.r.ReadSlice('\n')
		octets += int64(len(line))
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err != nil:
			return lines, octets, err
		case lines == 0 && !bytes.HasPrefix(line, []byte("+OK")):
			return 0, 0, fmt.Errorf("answered with %.100q", line)
		case len(line) == 3 && line[0] == '.':
			return lines - 1, octets, nil
		}
		lines++
	}
}

// Listing is the time from the connection to the end of UIDL, without the TLS handshake.
func (p POP3) Listing(ctx context.Context) (took time.Duration, count int, err error) {
	c, err := dial(ctx, p.Addr)
	if err != nil {
		return 0, 0, err
	}
	if err := c.encrypt(ctx, p.TLS); err != nil {
		return 0, 0, err
	}
	c.r = bufio.NewReaderSize(c.conn, 64<<10)
	if err := c.expect("+OK", ""); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	for _, command := range []string{"USER " + p.Login, "PASS " + p.Password, "STAT"} {
		if err := c.expect("+OK", command); err != nil {
			return 0, 0, err
		}
	}
	if err := c.write([]byte("UIDL\r\n")); err != nil {
		return 0, 0, err
	}
	if count, _, err = c.skip(); err != nil {
		return 0, 0, err
	}
	took = time.Since(began)
	return took, count, c.expect("+OK", "QUIT")
}

// Retrieve fetches all letters, so many requests ahead, and returns letters a second and octets a second.
func (p POP3) Retrieve(ctx context.Context, ahead int) (rate, octetRate float64, err error) {
	c, count, err := p.open(ctx, p.Login)
	if err != nil {
		return 0, 0, err
	}
	began, octets, asked := time.Now(), int64(0), 0
	for got := 0; got < count; got++ {
		if asked <= got { // the next batch, in one write
			var batch bytes.Buffer
			for ; asked < min(count, got+ahead); asked++ {
				fmt.Fprintf(&batch, "RETR %d\r\n", asked+1)
			}
			if err := c.write(batch.Bytes()); err != nil {
				return 0, 0, err
			}
		}
		_, n, err := c.skip()
		if err != nil {
			return 0, 0, err
		}
		octets += n
	}
	took := time.Since(began).Seconds()
	return float64(count) / took, float64(octets) / took, c.expect("+OK", "QUIT")
}

// Sessions runs sessions (login, STAT, UIDL, QUIT) on so many connections at once for a while, each of them with an account
// of its own, and returns sessions a second.
func (p POP3) Sessions(ctx context.Context, connections int, during time.Duration, login func(i int) string) (rate float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, during+patience)
	defer cancel()
	var done atomic.Int64
	var wait sync.WaitGroup
	errs := make([]error, connections)
	began := time.Now()
	for i := range connections {
		wait.Go(func() {
			for time.Since(began) < during && errs[i] == nil {
				if errs[i] = p.session(ctx, login(i)); errs[i] == nil {
					done.Add(1)
				}
			}
		})
	}
	wait.Wait()
	took := time.Since(began)
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return float64(done.Load()) / took.Seconds(), nil
}

func (p POP3) session(ctx context.Context, login string) error {
	c, _, err := p.open(ctx, login)
	if err != nil {
		return err
	}
	if err := c.write([]byte("UIDL\r\n")); err != nil {
		return err
	}
	if _, _, err := c.skip(); err != nil {
		return err
	}
	err = c.expect("+OK", "QUIT")
	_ = c.conn.Close() // after its answer
	return err
}

// IDs fetches the head of every letter of an account and counts how often each id is there.
func (p POP3) IDs(ctx context.Context, login string, into map[int]int) error {
	c, count, err := p.open(ctx, login)
	if err != nil {
		return err
	}
	for first := 1; first <= count; first += 100 {
		last := min(count, first+99)
		var batch bytes.Buffer
		for n := first; n <= last; n++ {
			fmt.Fprintf(&batch, "TOP %d 0\r\n", n)
		}
		if err := c.write(batch.Bytes()); err != nil {
			return err
		}
		for n := first; n <= last; n++ {
			id, err := c.id()
			if err != nil {
				return err
			}
			into[id]++
		}
	}
	return c.expect("+OK", "QUIT")
}

// id reads a letter's head and finds its id; -1 is that of a letter without one.
func (c *client) id() (id int, err error) {
	id = -1
	for {
		line, err := c.line()
		switch {
		case err == io.EOF || err != nil:
			return 0, err
		case line == ".":
			return id, nil
		}
		if text, ok := strings.CutPrefix(line, idField); ok {
			if id, err = strconv.Atoi(text); err != nil {
				return 0, err
			}
		}
	}
}
