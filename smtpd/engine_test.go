package smtpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/postroom/postroom/internal/mailtest"
)

func TestDialogues(t *testing.T) {
	for _, file := range []string{"relay.txt", "arguments.txt", "data.txt", "chunks.txt", "tls.txt"} {
		t.Run(file, func(t *testing.T) { dialogue(t, file, nil) })
	}
	t.Run("limits.txt", func(t *testing.T) {
		dialogue(t, "limits.txt", func(s *Server) {
			s.Limits = Limits{MessageSize: 100, Recipients: 2, RefusedRecipients: 3}
		})
	})
	t.Run("submission.txt", func(t *testing.T) {
		dialogue(t, "submission.txt", func(s *Server) { s.Submission, s.Handler = true, secured{s.Handler} })
	})
	t.Run("submission-early.txt", func(t *testing.T) {
		dialogue(t, "submission-early.txt", func(s *Server) { s.Submission, s.TLSReady = true, func() bool { return false } })
	})
	t.Run("submission-clear.txt", func(t *testing.T) {
		dialogue(t, "submission-clear.txt", func(s *Server) { s.Submission = true })
	})
}

// secured makes the server take every connection for a TLS one, so that dialogues need no handshake.
type secured struct{ Handler }

func (s secured) Connect(ctx context.Context, c *Client) (Session, error) {
	c.TLS = &tls.ConnectionState{}
	return s.Handler.Connect(ctx, c)
}

// reach are commands that lead to each state.
var reach = map[state]string{
	fresh:      "",
	greeted:    "EHLO c\r\n",
	sender:     "EHLO c\r\nMAIL FROM:<a@b.example>\r\n",
	recipients: "EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n",
	chunks:     "EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 1\r\nx",
}

// TestEveryVerbInEveryState compares the code of the answer with a table that is written here a second time, from RFC
// 5321 section 4.1.4 and RFC 3030 section 2, not from the engine's own.
func TestEveryVerbInEveryState(t *testing.T) {
	order := []state{fresh, greeted, sender, recipients, chunks}
	for _, row := range []struct {
		command string
		codes   [5]string // in the order of the states above
	}{
		{"EHLO c.example", [5]string{"250", "250", "250", "250", "250"}},
		{"HELO c.example", [5]string{"250", "250", "250", "250", "250"}},
		{"MAIL FROM:<a@b.example>", [5]string{"503", "250", "503", "503", "503"}},
		{"RCPT TO:<c@d.example>", [5]string{"503", "503", "250", "250", "503"}},
		{"DATA", [5]string{"503", "503", "503", "354", "503"}},
		{"BDAT 0 LAST", [5]string{"503", "503", "503", "250", "250"}},
		{"BDAT 0", [5]string{"503", "503", "503", "250", "250"}},
		{"RSET", [5]string{"250", "250", "250", "250", "250"}},
		{"NOOP", [5]string{"250", "250", "250", "250", "250"}},
		{"VRFY anna", [5]string{"252", "252", "252", "252", "252"}},
		{"EXPN list", [5]string{"502", "502", "502", "502", "502"}},
		{"HELP", [5]string{"214", "214", "214", "214", "214"}},
		{"STARTTLS", [5]string{"220", "220", "503", "503", "503"}},
		{"AUTH PLAIN AGFubmEAc2VjcmV0", [5]string{"502", "502", "502", "502", "502"}},
		{"QUIT", [5]string{"221", "221", "221", "221", "221"}},
		{"TURN", [5]string{"500", "500", "500", "500", "500"}},
	} {
		for i, in := range order {
			t.Run(fmt.Sprintf("%s in state %d", row.command, in), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					said := string(mailtest.Exchange(newServer(t, &fakeHandler{}, nil).ServeConn, []byte(reach[in]+"NOOP mark\r\n"+row.command+"\r\n")))
					_, last, _ := strings.Cut(said, "250 2.0.0 ok\r\n")
					if !strings.HasPrefix(last, row.codes[i]) {
						t.Errorf("answered %q, want %s", last, row.codes[i])
					}
				})
			})
		}
	}
}

// TestClient shows that another program's client gets along with the engine, over a real connection.
func TestClient(t *testing.T) {
	h := &fakeHandler{}
	server := newServer(t, h, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- server.Serve(l) }()
	message := "Subject: x\r\n\r\n.dot\r\n"
	if err := smtp.SendMail(l.Addr().String(), nil, "a@b.example", []string{"c@d.example"}, []byte(message)); err == nil {
		t.Error("net/smtp trusts a certificate that it cannot know")
	}
	c, err := smtp.Dial(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil { // the test's own certificate
		t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { return c.Mail("a@b.example") },
		func() error { return c.Rcpt("c@d.example") },
		func() error {
			w, err := c.Data()
			if err != nil {
				return err
			}
			if _, err := w.Write([]byte(message)); err != nil {
				return err
			}
			return w.Close()
		},
		c.Quit,
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != ErrServerClosed {
		t.Error(err)
	}
	if len(h.kept) != 1 || h.kept[0] != message {
		t.Errorf("kept %q", h.kept)
	}
	h.expectClosed(t)
}

// TestShutdown shows that an idle client is told at once, and that a busy one may finish its message.
func TestShutdown(t *testing.T) {
	for _, tc := range []struct{ name, script string }{
		{"idle", "S: 220 *\nC: EHLO c\nS~ 250 STARTTLS\nS: 421 4.3.2 *\nS: <closed>"},
		{"busy", `S: 220 *
			C! "EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
			S~ 250 2.1.5 *
			C: <wait 5s>
			C: DATA
			S: 354 *
			C: x
			C: .
			S: 250 2.0.0 kept
			S: 421 4.3.2 *
			S: <closed>`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := newServer(t, &fakeHandler{}, nil)
				ours, theirs := net.Pipe()
				served := make(chan struct{})
				go func() { defer close(served); server.ServeConn(theirs) }()
				var shutdown sync.WaitGroup
				shutdown.Go(func() {
					synctest.Wait()
					if err := server.Shutdown(t.Context()); err != nil {
						t.Error(err)
					}
				})
				if err := mailtest.Play(ours, tc.script); err != nil {
					t.Error(err)
				}
				<-served
				shutdown.Wait()
			})
		})
	}
}

// BenchmarkSession delivers letters of 10 KB over one connection, each as a pipelined group and DATA or BDAT.
func BenchmarkSession(b *testing.B) {
	letter := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("y", 98)+"\r\n", 100)
	for name, script := range map[string]string{
		"DATA": "MAIL FROM:<silentyes@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n" + letter + ".\r\n",
		"BDAT": fmt.Sprintf("MAIL FROM:<silentyes@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT %d LAST\r\n%s", len(letter), letter),
	} {
		b.Run(name, func(b *testing.B) {
			ours, theirs := net.Pipe()
			done := make(chan struct{})
			go func() { defer close(done); newServer(b, &fakeHandler{}, nil).ServeConn(theirs) }()
			r := bufio.NewReader(ours)
			read := func(lines int) {
				for range lines {
					if _, err := r.ReadSlice('\n'); err != nil {
						b.Fatal(err)
					}
				}
			}
			write := func(octets string) { _, _ = io.WriteString(ours, octets) } // a failure is one of read, too
			read(1)
			go write("EHLO c.example\r\n")
			read(9)
			b.ReportAllocs()
			b.SetBytes(int64(len(letter)))
			for b.Loop() {
				go write(script)
				read(2 + strings.Count(script, "\r\nDATA\r\n") + 1)
			}
			_ = ours.Close()
			<-done
		})
	}
}
