package pop3d

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/postroom/postroom/internal/mailtest"
)

// starts bring a session into the states that a fuzzed input begins in.
var starts = []string{
	"",
	"USER anna\r\n",
	"USER anna\r\nPASS sec ret\r\n",
	"USER anna\r\nPASS sec ret\r\nDELE 1\r\nDELE 3\r\n",
	"AUTH PLAIN\r\n",
	"AUTH LOGIN\r\nYW5uYQ==\r\n",
}

// FuzzSession sends anything in several states. The server must not panic, must end with the connection, must answer in
// lines, and must delete only what was marked, only after a QUIT that it confirmed.
func FuzzSession(f *testing.F) {
	for _, seed := range mailtest.Seeds(f, "testdata/*.txt") {
		for start := range starts {
			f.Add(uint8(start), seed)
		}
	}
	f.Fuzz(func(t *testing.T, start uint8, input []byte) {
		if len(input) > 8<<10 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			h := newFake(testMessages...)
			server := newServer(t, secured{h}, nil)
			server.TLS = nil
			said := mailtest.Exchange(server.ServeConn, append([]byte(starts[int(start)%len(starts)]), input...))
			h.expectClosed(t)
			if bytes.Contains(said, []byte("secret reason")) {
				t.Errorf("internal text reached the client: %q", said)
			}
			for line := range strings.Lines(string(said)) {
				if !strings.HasSuffix(line, "\r\n") {
					t.Errorf("a line without its end: %q", line)
				}
			}
			if len(h.deleted) > 0 && !bytes.HasSuffix(said, []byte("+OK bye\r\n")) {
				t.Errorf("deleted %v without a confirmed QUIT: %q", h.deleted, said)
			}
			if !slices.IsSorted(h.deleted) || len(slices.Compact(slices.Clone(h.deleted))) != len(h.deleted) {
				t.Errorf("deleted %v", h.deleted)
			}
		})
	})
}
