package delivery

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/mailtest"
	"github.com/postroom/postroom/queue"
)

// TestSessions plays every conversation of testdata/*.txt: what a server says, what the client must say, and what becomes of
// the letter.
//
//	=== name                  begins a conversation
//	L: a@remote.example utf8  the letter: its recipients and what it needs (see scriptedLetter)
//	S: 220 text               the server sends a line, with CR LF
//	S! "quoted"               the server sends these octets
//	S* 100000 "quoted"        so many times
//	S: <wait 5m>              time passes
//	S: <close>                the server closes the connection; what follows is played on the next one
//	C: EHLO *                 the client must send such a line
//	C: <content>              and here the letter with its dots, up to the final one
//	C: <chunk>                or the letter as one BDAT chunk
//	O: a@remote.example delivered 2.0.0 | 250 *     the outcome of a recipient
func TestSessions(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.Split("\n"+string(content), "\n=== ")[1:] {
			name, lines, _ := strings.Cut(part, "\n")
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { playScript(t, strings.Split(lines, "\n")) })
			})
		}
	}
}

func playScript(t *testing.T, lines []string) {
	w := newWorld(t)
	l := letter(t)
	var to []queue.Recipient
	var want []string
	connections := [][]string{nil}
	for _, line := range lines {
		switch mark, text, _ := strings.Cut(line, " "); mark {
		case "L:":
			l, to = scriptedLetter(t, text)
		case "O:":
			want = append(want, text)
		case "S:", "S!", "S*", "C:":
			last := len(connections) - 1
			connections[last] = append(connections[last], line)
			if text == "<close>" {
				connections = append(connections, nil)
			}
		case "", "#":
		default:
			t.Fatalf("%q is no line of a conversation", line)
		}
	}
	if len(connections[len(connections)-1]) == 0 {
		connections = connections[:len(connections)-1]
	}
	used := 0
	w.serve("192.0.2.1", func(t *testing.T, c net.Conn) {
		if used == len(connections) {
			t.Errorf("connection %d, and only %d are played", used+1, len(connections))
			return
		}
		used++
		if err := playServer(c, connections[used-1]); err != nil {
			t.Errorf("connection %d: %v", used, err)
		}
	})
	d, end := w.deliverer()
	outcomes := d.Deliver(t.Context(), l, to, opens(letterText))
	for i, o := range outcomes {
		got := to[i].To.Address.String() + " " + describeOutcome(o)
		if i >= len(want) || !mailtest.Match(want[i], got) {
			t.Errorf("outcome %d is %q, want %q", i, got, want)
		}
	}
	end()
	if used != len(connections) {
		t.Errorf("%d connections, want %d", used, len(connections))
	}
}

// scriptedLetter reads addresses and words: utf8, 8bit, requiretls, optional, size=N, ret=, envid=, notify=, orcpt=.
func scriptedLetter(t *testing.T, text string) (l queue.Letter, to []queue.Recipient) {
	l = letter(t)
	for _, word := range strings.Fields(text) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "utf8":
			l.UTF8 = true
		case "8bit":
			l.EightBit = true
		case "requiretls":
			l.RequireTLS = true
		case "bounce":
			l.From = path(t, "")
		case "size":
			l.Size, _ = strconv.ParseInt(value, 10, 64)
		case "ret":
			l.Return = value
		case "envid":
			l.EnvelopeID = value
		case "notify":
			to[len(to)-1].Notify = strings.Split(value, ",")
		case "orcpt":
			to[len(to)-1].Original = value
		default:
			to = append(to, recipients(t, word)...)
		}
	}
	return l, to
}

// playServer plays one connection.
func playServer(c net.Conn, lines []string) error {
	r := bufio.NewReader(c)
	for _, line := range lines {
		mark, text, _ := strings.Cut(line, " ")
		var err error
		switch {
		case mark == "C:":
			err = expectLine(r, text)
		case mark == "S!":
			_, err = io.WriteString(c, unquote(text))
		case mark == "S*":
			err = repeat(c, text)
		case text == "<close>":
			return c.Close()
		case strings.HasPrefix(text, "<wait "):
			pause, perr := time.ParseDuration(strings.TrimSuffix(strings.TrimPrefix(text, "<wait "), ">"))
			if err = perr; err == nil {
				time.Sleep(pause)
			}
		default:
			_, err = io.WriteString(c, text+"\r\n")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
	}
	return nil
}

// repeat sends something many times, until the client has had enough.
func repeat(c net.Conn, text string) error {
	number, quoted, _ := strings.Cut(text, " ")
	n, err := strconv.Atoi(number)
	for range n {
		if _, werr := io.WriteString(c, unquote(quoted)); werr != nil {
			return nil
		}
	}
	return err
}

func unquote(s string) string {
	text, err := strconv.Unquote(s)
	if err != nil {
		panic(err)
	}
	return text
}

func expectLine(r *bufio.Reader, want string) error {
	switch want {
	case "<content>":
		return expectContent(r)
	case "<chunk>":
		return expectChunk(r)
	case "<end>":
		if line, err := r.ReadString('\n'); err == nil {
			return fmt.Errorf("got %q, want the end of the connection", line)
		}
		return nil
	}
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasSuffix(line, "\r\n") || !mailtest.Match(want, strings.TrimSuffix(line, "\r\n")) {
		return fmt.Errorf("got %q", line)
	}
	return nil
}

func expectContent(r *bufio.Reader) error {
	var content strings.Builder
	for {
		line, err := r.ReadString('\n')
		switch {
		case err != nil:
			return err
		case line == ".\r\n":
			if content.String() != letterText {
				return fmt.Errorf("got the letter %q", content.String())
			}
			return nil
		}
		content.WriteString(strings.TrimPrefix(line, "."))
	}
}

func expectChunk(r *bufio.Reader) error {
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(line, "BDAT "), " LAST\r\n"))
	if err != nil {
		return fmt.Errorf("got %q", line)
	}
	content := make([]byte, n)
	if _, err := io.ReadFull(r, content); err != nil || string(content) != letterText {
		return fmt.Errorf("got the letter %q, %v", content, err)
	}
	return nil
}

// sink is a server that takes everything. It answers as fast as it can, and offers what is given.
type sink struct {
	offers   []string
	cert     *tls.Certificate
	config   *tls.Config // instead of one for cert
	replies  map[string]string
	implicit bool   // TLS from the start
	injects  string // in clear text behind the answer to STARTTLS
	pinOther bool   // the TLSA records name another key

	mu      sync.Mutex // guards what follows while connections are open
	letters []string
	lines   []string
}

// hears remembers what a client said, in one of two ways.
func (k *sink) hears(list *[]string, text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	*list = append(*list, text)
}

// serve is a server.
func (k *sink) serve(_ *testing.T, c net.Conn) {
	if k.implicit {
		c = tls.Server(c, k.tls())
	}
	r := bufio.NewReader(c)
	say := func(verb, text string) {
		if other, ok := k.replies[verb]; ok {
			text = other
		}
		_, _ = io.WriteString(c, text+"\r\n") // the client may have gone
	}
	say("", "220 here")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		k.hears(&k.lines, strings.TrimSuffix(line, "\r\n"))
		switch verb := strings.ToUpper(strings.TrimRight(strings.SplitN(line, " ", 2)[0], "\r\n")); verb {
		case "EHLO":
			say(verb, k.hello(c))
		case "STARTTLS":
			if say(verb, strings.TrimSuffix("220 go\r\n"+k.injects, "\r\n")); k.replies[verb] != "" {
				continue
			}
			secure := tls.Server(c, k.tls()) // where something was injected, the handshake itself would work
			if secure.HandshakeContext(context.Background()) != nil {
				_ = c.Close()
				return
			}
			c, r = secure, bufio.NewReader(secure)
		case "AUTH":
			say(verb, "235 2.7.0 welcome")
		case "DATA":
			say(verb, "354 go")
			k.hears(&k.letters, readDots(r))
			say("dot", "250 2.0.0 kept")
		case "QUIT":
			say(verb, "221 bye")
			return
		default:
			say(verb, "250 2.0.0 ok")
		}
	}
}

func (k *sink) tls() *tls.Config {
	if k.config != nil {
		return k.config
	}
	return &tls.Config{Certificates: []tls.Certificate{*k.cert}}
}

func (k *sink) hello(c net.Conn) string {
	offers := []string{"sink"}
	_, secure := c.(*tls.Conn)
	for _, o := range k.offers {
		if o != "STARTTLS" || !secure {
			offers = append(offers, o)
		}
	}
	text := ""
	for i, o := range offers {
		mark := "-"
		if i == len(offers)-1 {
			mark = " "
		}
		text += "250" + mark + o + "\r\n"
	}
	return strings.TrimSuffix(text, "\r\n")
}

func readDots(r *bufio.Reader) string {
	content, _ := wholeDots(r)
	return content
}
