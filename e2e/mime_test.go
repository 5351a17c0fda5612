package e2e

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/internal/mailtest"
)

// TestMIMECorpus sends the public collection of broken and unusual messages through the server: what comes out is
// what went in, octet for octet, but for Return-Path fields, which only the final delivery may write. Their line ends are made those of mail first; a message that holds a bare CR even
// so must be refused.
func TestMIMECorpus(t *testing.T) {
	root := mailtest.Vectors(t, "mime")
	s := newServer(t)
	s.serve(t)
	c, err := greet(s.ports["smtp"], s.tls(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	var sent [][]byte
	refused := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".eml") {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		message := crlf(raw)
		if !bytes.HasSuffix(message, []byte("\r\n")) {
			message = append(message, "\r\n"...)
		}
		if bytes.Count(message, []byte("\r")) != bytes.Count(message, []byte("\r\n")) {
			refused++
			if _, err := c.deliver(anna, message); err == nil {
				t.Errorf("%s holds a bare CR and was accepted", path)
			}
			return nil
		}
		if reply, err := c.deliver(anna, message); err != nil {
			t.Errorf("%s: %s %v", path, reply, err)
			return nil
		}
		sent = append(sent, withoutReturnPath(message))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(sent) < 30 {
		t.Fatalf("only %d messages found below %s", len(sent), root)
	}
	s.expectLetters(t, sent...)
	t.Logf("%d messages octet for octet, %d with a bare CR refused", len(sent), refused)
}

// withoutReturnPath drops that field, which is on one line wherever the collection has it, from the header.
func withoutReturnPath(message []byte) []byte {
	header, body, _ := bytes.Cut(message, []byte("\r\n\r\n"))
	var kept []byte
	for line := range bytes.Lines(append(bytes.Clone(header), "\r\n"...)) {
		if !bytes.HasPrefix(bytes.ToLower(line), []byte("return-path:")) {
			kept = append(kept, line...)
		}
	}
	if len(kept) == len(header)+2 {
		return message
	}
	return append(append(kept, "\r\n"...), body...)
}
