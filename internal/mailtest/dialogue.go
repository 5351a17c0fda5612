package mailtest

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// patience is how long, in the bubble's time, a client waits for a line: longer than any time-out of a server.
const patience = 24 * time.Hour

// RunDialogue plays every conversation of the file as a subtest. serve is called with the server's end of each connection
// and returns when the session has ended; what it starts must have ended then.
func RunDialogue(t *testing.T, path string, serve func(t *testing.T, conn net.Conn)) {
	t.Helper()
	conversations, err := readDialogue(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range conversations {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				done := make(chan struct{})
				go func() {
					defer close(done)
					serve(t, server)
				}()
				if err := c.play(client); err != nil {
					t.Error(err)
				}
				_ = client.Close() // the server may have closed it
				<-done
			})
		})
	}
}

// Play plays a conversation, written as in a dialogue file but without a === line, on a connection that the caller has
// open to a server. It returns the first difference.
func Play(conn net.Conn, script string) error {
	c := &conversation{}
	for i, line := range strings.Split(script, "\n") {
		if err := c.add(strings.TrimSpace(line), fmt.Sprintf("line %d", i+1)); err != nil {
			return err
		}
	}
	return c.play(conn)
}

// Exchange sends octets to a server over a pipe, gives it a second to say all that it has to say, closes the connection, and
// returns what the server said once it has ended. It is for a bubble of synctest.
func Exchange(serve func(conn net.Conn), octets []byte) []byte {
	ours, theirs := net.Pipe()
	served := make(chan struct{})
	go func() { defer close(served); serve(theirs) }()
	said := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(ours) // ends with the connection, in whatever way
		said <- all
	}()
	_, _ = ours.Write(octets) // the server may close before it has read all
	time.Sleep(time.Second)
	_ = ours.Close()
	<-served
	return <-said
}

// Seeds returns what the client sends in each conversation of the files, for a fuzz target to begin with.
func Seeds(t testing.TB, glob string) [][]byte {
	t.Helper()
	files, err := filepath.Glob(glob)
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogue files fit %s (%v)", glob, err)
	}
	var seeds [][]byte
	for _, file := range files {
		conversations, err := readDialogue(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range conversations {
			var seed []byte
			for _, s := range c.steps {
				if s.kind == send {
					seed = append(seed, s.text...)
				}
			}
			seeds = append(seeds, seed)
		}
	}
	return seeds
}

type stepKind uint8

const (
	send stepKind = iota
	expect
	skipTo
	wait
	startTLS
	closeClient
	expectClosed
)

// step is one line of a dialogue.
type step struct {
	kind  stepKind
	where string
	text  string // octets to send, or a pattern
	wait  time.Duration
}

type conversation struct {
	name  string
	steps []step
}

func readDialogue(path string) (all []*conversation, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(string(content), "\n") {
		where := fmt.Sprintf("%s:%d", filepath.Base(path), i+1)
		if name, ok := strings.CutPrefix(line, "=== "); ok {
			all = append(all, &conversation{name: strings.TrimSpace(name)})
			continue
		}
		if len(all) == 0 {
			all = append(all, &conversation{name: filepath.Base(path)})
		}
		if err := all[len(all)-1].add(line, where); err != nil {
			return nil, err
		}
	}
	if len(all[0].steps) == 0 {
		all = all[1:]
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no conversation", path)
	}
	return all, nil
}

func (c *conversation) add(line, where string) error {
	if line == "" || line[0] == '#' {
		return nil
	}
	mark, text, _ := strings.Cut(line, " ")
	s := step{where: where, text: text}
	var err error
	switch {
	case mark == "S:" && text == "<closed>":
		s.kind = expectClosed
	case mark == "S:":
		s.kind = expect
	case mark == "S~":
		s.kind = skipTo
	case mark == "C:" && text == "<close>":
		s.kind = closeClient
	case mark == "C:" && text == "<starttls>":
		s.kind = startTLS
	case mark == "C:" && strings.HasPrefix(text, "<wait ") && strings.HasSuffix(text, ">"):
		s.kind = wait
		s.wait, err = time.ParseDuration(text[len("<wait ") : len(text)-1])
	case mark == "C:":
		s.text += "\r\n"
	case mark == "C!":
		s.text, err = strconv.Unquote(text)
	default:
		return fmt.Errorf("%s: %q is no line of a dialogue", where, line)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	c.steps = append(c.steps, s)
	return nil
}

// player is the client's side while a conversation is played.
type player struct {
	conn net.Conn // plain, or TLS over it
	r    *bufio.Reader
}

// play returns the first difference between the conversation and what the server does.
func (c *conversation) play(conn net.Conn) error {
	piped := newPump(conn)
	defer piped.stop()
	p := &player{conn: piped, r: bufio.NewReader(piped)}
	for _, s := range c.steps {
		if err := p.do(s); err != nil {
			return fmt.Errorf("%s: %w", s.where, err)
		}
	}
	return nil
}

func (p *player) do(s step) error {
	switch s.kind {
	case send:
		if _, err := io.WriteString(p.conn, s.text); err != nil {
			return fmt.Errorf("send %q: %w", s.text, err)
		}
	case wait:
		time.Sleep(s.wait)
	case closeClient:
		return p.conn.Close()
	case startTLS:
		conn := tls.Client(p.conn, &tls.Config{InsecureSkipVerify: true}) // a test's own certificate
		if err := conn.Handshake(); err != nil {
			return fmt.Errorf("handshake: %w", err)
		}
		p.conn, p.r = conn, bufio.NewReader(conn)
	case expectClosed:
		if line, err := p.line(); err == nil {
			return fmt.Errorf("got %q, want a closed connection", line)
		}
	case expect, skipTo:
		return p.expect(s)
	}
	return nil
}

func (p *player) expect(s step) error {
	for {
		line, err := p.line()
		if err != nil {
			return fmt.Errorf("got %w, want %q", err, s.text)
		}
		if Match(s.text, line) {
			return nil
		}
		if s.kind == expect {
			return fmt.Errorf("got %q, want %q", line, s.text)
		}
	}
}

// line reads a line, which must end with CR LF.
func (p *player) line() (string, error) {
	timer := time.AfterFunc(patience, func() { _ = p.conn.Close() })
	defer timer.Stop()
	line, err := p.r.ReadString('\n')
	if err != nil {
		return line, err
	}
	content, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		return line, fmt.Errorf("a line without CR: %q", line)
	}
	return content, nil
}

// Match tells whether the line fits the pattern, in which * stands for any text.
func Match(pattern, line string) bool {
	parts := strings.Split(pattern, "*")
	rest, ok := strings.CutPrefix(line, parts[0])
	if !ok || len(parts) == 1 {
		return ok && rest == ""
	}
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}
