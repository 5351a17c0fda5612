package mailtest

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// echo is the server that testdata/echo.txt describes.
func echo(t *testing.T, conn net.Conn) {
	defer conn.Close()
	certificate, _ := Certificate(t, "localhost")
	fmt.Fprint(conn, "220 hello\r\n")
	r := bufio.NewReader(conn)
	for {
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Minute)); err != nil {
			return // the client is gone
		}
		line, err := r.ReadString('\n')
		if e, ok := err.(net.Error); ok && e.Timeout() {
			fmt.Fprint(conn, "too slow\r\n")
			return
		}
		if err != nil {
			return
		}
		fmt.Fprint(conn, line)
		switch line {
		case "bye\r\n":
			return
		case "starttls\r\n":
			conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}})
			r = bufio.NewReader(conn)
		}
	}
}

func TestRunDialogue(t *testing.T) { RunDialogue(t, "testdata/echo.txt", echo) }

// TestPlayFails shows that a wrong expectation is found.
func TestPlayFails(t *testing.T) {
	for _, tc := range []struct{ name, script, want string }{
		{"other line", "S: 220 goodbye", `line 1: got "220 hello", want "220 goodbye"`},
		{"no line", "S: 220 hello\nS: more", "want \"more\""},
		{"not closed", "S: 220 hello\nC: x\nS: <closed>", "want a closed connection"},
		{"closed", "S: 220 hello\nC: bye\nS: bye\nS: x", `got EOF, want "x"`},
		{"never comes", "C: bye\nS~ x", "want \"x\""},
		{"no dialogue", "X: hello", "no line of a dialogue"},
		{"bad wait", "C: <wait long>", "invalid duration"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				done := make(chan struct{})
				go func() { defer close(done); echo(t, server) }()
				err := Play(client, tc.script)
				_ = client.Close()
				<-done
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %q", err, tc.want)
				}
			})
		})
	}
}

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		pattern, line string
		want          bool
	}{
		{"250 ok", "250 ok", true},
		{"250 ok", "250 okay", false},
		{"250 *", "250 ", true},
		{"*", "", true},
		{"a*b*c", "a1b2c", true},
		{"a*b*c", "abbc", true},
		{"a*b*c", "acb", false},
		{"a*a", "a", false},
	} {
		if got := Match(tc.pattern, tc.line); got != tc.want {
			t.Errorf("Match(%q, %q) = %t", tc.pattern, tc.line, got)
		}
	}
}

func TestSeeds(t *testing.T) {
	seeds := Seeds(t, "testdata/*.txt")
	if len(seeds) != 4 || string(seeds[0]) != "one\r\ntwo\r\nthree\r\nbye\r\n" {
		t.Errorf("got %q", seeds)
	}
}
