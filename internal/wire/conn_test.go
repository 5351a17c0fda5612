package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/limit"
)

// pair is a Conn and the client's end of it.
func pair(end time.Time) (*Conn, net.Conn) {
	ours, theirs := net.Pipe()
	return NewConn(theirs, end, time.Minute), ours
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	go func() { _, _ = io.WriteString(c, text) }() // the other side may close before it has read all
}

// TestConnLines shows that answers are sent when the next read would block, and not before.
func TestConnLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, client := pair(time.Time{})
		say(t, client, "one\r\ntwo\r\nthr")
		got := make(chan string)
		go func() {
			r := bufio.NewReader(client)
			for range 2 {
				line, _ := r.ReadString('\n')
				got <- line
			}
		}()
		for _, want := range []string{"one", "two"} {
			line, err := c.ReadLine(100, time.Now().Add(time.Minute), true)
			if err != nil || string(line) != want {
				t.Fatalf("%q, %v; want %q", line, err, want)
			}
			c.QueueReply(PlainReply(250, want))
			synctest.Wait()
			select {
			case early := <-got:
				t.Errorf("%q was sent while a line was here", early)
			default:
			}
		}
		failed := make(chan error)
		go func() {
			_, err := c.ReadLine(100, time.Now().Add(time.Minute), true)
			failed <- err
		}()
		if first, second := <-got, <-got; first != "250 one\r\n" || second != "250 two\r\n" {
			t.Errorf("sent %q, %q", first, second)
		}
		if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("half a line: %v", err)
		}
		_ = c.Close()
		_ = client.Close()
	})
}

// TestConnWake shows who is woken by a shutdown: the idle at once, the busy when they are idle again.
func TestConnWake(t *testing.T) {
	for _, tc := range []struct {
		name       string
		idle, late bool // late: woken before it waits
		want       error
	}{
		{"idle", true, false, ErrStopping},
		{"woken before it waits", true, true, ErrStopping},
		{"busy", false, false, os.ErrDeadlineExceeded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, client := pair(time.Time{})
				if tc.late {
					c.Wake()
				}
				done := make(chan error)
				go func() {
					_, err := c.ReadLine(100, time.Now().Add(time.Minute), tc.idle)
					done <- err
				}()
				synctest.Wait()
				if !tc.late {
					c.Wake()
				}
				if err := <-done; !errors.Is(err, tc.want) {
					t.Errorf("got %v, want %v", err, tc.want)
				}
				_ = c.Close()
				_ = client.Close()
			})
		})
	}
}

// TestConnData shows that a message is read with a deadline and a rate of its own, and that what follows it is a command.
func TestConnData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, client := pair(time.Now().Add(time.Hour))
		say(t, client, "x\r\n.\r\nNOOP\r\n")
		content, err := io.ReadAll(NewDotReader(c.BeginData(time.Minute, limit.Throughput{})))
		c.EndData()
		if err != nil || string(content) != "x\r\n" {
			t.Errorf("%q, %v", content, err)
		}
		if c.Leftover() != len("NOOP\r\n") {
			t.Errorf("%d octets left over", c.Leftover())
		}
		if line, err := c.ReadLine(100, time.Now().Add(time.Minute), true); err != nil || string(line) != "NOOP" {
			t.Errorf("%q, %v", line, err)
		}
		var trickle sync.WaitGroup
		trickle.Go(func() {
			for range 100 {
				time.Sleep(30 * time.Second)
				if _, err := io.WriteString(client, "y"); err != nil {
					return
				}
			}
		})
		_, err = io.ReadAll(NewDotReader(c.BeginData(time.Minute, limit.Throughput{MinOctets: 1000, Window: time.Minute})))
		if !errors.Is(err, limit.ErrTooSlow) {
			t.Errorf("a message that trickles in: %v", err)
		}
		_ = c.Close()
		_ = client.Close()
		trickle.Wait()
	})
}

// TestConnWriteTimeout shows that a client that reads nothing does not hold the session.
// TestConnStream shows that long answers to pipelined commands are sent together and in order, and at once where nothing more is
// to be answered, or where one of them fails.
func TestConnStream(t *testing.T) {
	for _, tc := range []struct {
		name string
		more string // commands that are here already
		err  error
		want string // what was sent when Stream has returned
	}{
		{"nothing waits", "", nil, "250 a\r\nlong\r\n"},
		{"a command waits", "next\r\n", nil, ""},
		{"a command waits and this fails", "next\r\n", io.ErrUnexpectedEOF, "250 a\r\nlong\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, client := pair(time.Time{})
				defer client.Close()
				var sent strings.Builder
				go io.Copy(&sent, client)
				say(t, client, "first\r\n"+tc.more)
				if _, err := c.ReadLine(100, time.Now().Add(time.Minute), true); err != nil {
					t.Fatal(err)
				}
				c.QueueReply(PlainReply(250, "a"))
				err := c.Stream(func(w *bufio.Writer) error {
					_, _ = w.WriteString("long\r\n")
					return tc.err
				})
				synctest.Wait()
				if !errors.Is(err, tc.err) || sent.String() != tc.want {
					t.Errorf("sent %q (%v), want %q", sent.String(), err, tc.want)
				}
				c.Queue([]byte("250 b\r\n"))
				c.QueueReply(PlainReply(250, "c"))
				if err := c.Flush(); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if want := "250 a\r\nlong\r\n250 b\r\n250 c\r\n"; sent.String() != want {
					t.Errorf("sent %q, want %q", sent.String(), want)
				}
				_ = c.Close()
			})
		})
	}
}

func TestConnWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, client := pair(time.Time{})
		c.Queue([]byte("x\r\n"))
		if err := c.Flush(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		err := c.Stream(func(w *bufio.Writer) error {
			_, err := io.Copy(w, strings.NewReader(strings.Repeat("y", 1<<20)))
			return err
		})
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		_ = c.Close()
		_ = client.Close()
	})
}

func TestConnTLSLeftover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, client := pair(time.Time{})
		say(t, client, "STLS\r\nUSER x\r\n")
		if _, err := c.ReadLine(100, time.Now().Add(time.Minute), true); err != nil {
			t.Fatal(err)
		}
		if _, err := c.StartTLS(t.Context(), &tls.Config{}); !errors.Is(err, ErrLeftover) {
			t.Errorf("got %v", err)
		}
		_ = c.Close()
		_ = client.Close()
	})
}

// TestServing shows how a server ends: gently, and hard when that takes too long.
func TestServing(t *testing.T) {
	for _, tc := range []struct {
		name string
		busy bool
		want error
	}{{"idle clients", false, nil}, {"a client that does not end", true, context.DeadlineExceeded}} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var s Serving
			connected := make(chan struct{})
			var once sync.Once
			ended := make(chan error)
			go func() {
				ended <- s.Serve(l, func(conn net.Conn) {
					c := NewConn(conn, time.Time{}, time.Minute)
					ctx, cancel, ok := s.Add(c)
					if !ok {
						t.Error("not taken while the server runs")
						return
					}
					defer cancel()
					defer s.Remove(c)
					defer c.Close()
					once.Do(func() { close(connected) })
					if tc.busy {
						<-ctx.Done()
						return
					}
					_, _ = c.ReadLine(100, time.Now().Add(time.Minute), true)
				})
			}()
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			<-connected
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if !tc.busy {
				ctx = t.Context()
			}
			if err := s.Shutdown(ctx); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if err := <-ended; !errors.Is(err, ErrServerClosed) {
				t.Errorf("Serve: %v", err)
			}
			if _, _, ok := s.Add(NewConn(client, time.Time{}, time.Minute)); ok {
				t.Error("taken after the end")
			}
			if err := s.Serve(l, nil); !errors.Is(err, ErrServerClosed) {
				t.Errorf("Serve after the end: %v", err)
			}
			s.Close()
		})
	}
}

func TestAddrPort(t *testing.T) {
	for _, tc := range []struct {
		addr net.Addr
		want string
	}{
		{&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 25}, "192.0.2.1:25"},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 25}, "[2001:db8::1]:25"},
		{&net.UnixAddr{Name: "/run/x"}, "invalid AddrPort"},
		{nil, "invalid AddrPort"},
	} {
		if got := AddrPort(tc.addr); got.String() != tc.want {
			t.Errorf("%v is %s, want %s", tc.addr, got, tc.want)
		}
	}
}
