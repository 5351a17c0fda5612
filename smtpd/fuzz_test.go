package smtpd

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/postroom/postroom/internal/mailtest"
)

// starts bring a session into the states that a fuzzed input begins in.
var starts = []string{
	"",
	"EHLO c.example\r\n",
	"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\n",
	"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n",
	"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n",
	"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 3\r\nabc",
	"EHLO c.example\r\nMAIL FROM:<early@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 3\r\nabc",
	"EHLO c.example\r\nAUTH LOGIN\r\n",
	"EHLO c.example\r\nAUTH PLAIN AGFubmEAc2VjcmV0\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n",
}

// FuzzSession sends anything in several states. The server must not panic, must end with the connection, and must keep a
// message only when it said 250 to it: never more messages than it acknowledged.
func FuzzSession(f *testing.F) {
	for _, seed := range mailtest.Seeds(f, "testdata/*.txt") {
		for start := range starts {
			f.Add(uint8(start), false, seed)
		}
	}
	f.Add(uint8(8), true, []byte("Subject: x\r\n\r\nx\ry\nz\r\n.\r\nQUIT\r\n"))
	f.Fuzz(func(t *testing.T, start uint8, submission bool, input []byte) {
		if len(input) > 8<<10 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			h := &fakeHandler{}
			server := newServer(t, h, func(s *Server) { s.Submission, s.TLS = submission, nil })
			if submission {
				server.Handler = secured{h}
			}
			said := mailtest.Exchange(server.ServeConn, append([]byte(starts[int(start)%len(starts)]), input...))
			h.expectClosed(t)
			if bytes.Contains(said, []byte("secret reason")) {
				t.Errorf("internal text reached the client: %q", said)
			}
			for line := range strings.Lines(string(said)) {
				if !strings.HasSuffix(line, "\r\n") || len(line) > 512 {
					t.Errorf("not a reply line: %q", line)
				}
			}
			if n := bytes.Count(said, []byte("250 2.0.0 kept\r\n")); n != len(h.kept) && n > 0 || len(h.kept) > n {
				t.Errorf("%d messages kept, %d acknowledged: %q", len(h.kept), n, said)
			}
			for _, message := range h.kept {
				if bare := strings.NewReplacer("\r\n", "").Replace(message); strings.ContainsAny(bare, "\r\n") {
					t.Errorf("kept with a bare CR or LF: %q", message)
				}
			}
		})
	})
}
