package e2e

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/auth"
	"github.com/postroom/postroom/internal/mailtest"
	"github.com/postroom/postroom/internal/message"
)

// TestMIMECorpus sends the public collection of broken and unusual messages through the server: what comes out is
// what went in, octet for octet, but for Return-Path fields, which only the final delivery may write, and the mark of those
// that look suspicious. Their line ends are made those of mail first, and those without an author get one; a message that holds
// a bare CR even so, and one whose author cannot be told, must be refused.
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
	refused, marked := 0, 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".eml") {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		letter := crlf(raw)
		if !bytes.HasSuffix(letter, []byte("\r\n")) {
			letter = append(letter, "\r\n"...)
		}
		whole := authorOf(t, letter)
		author := whole.Problem
		if author == auth.AuthorMissing {
			letter, author = append([]byte("From: Ben <ben@client.example>\r\n"), letter...), auth.AuthorFine
		}
		if author != auth.AuthorFine {
			refused++
			if reply, err := c.deliver(anna, letter); err == nil || !strings.HasPrefix(reply, "550 5.6.0") {
				t.Errorf("%s, whose author is %s, was answered with %q", path, author, reply)
			}
			return nil
		}
		if bytes.Count(letter, []byte("\r")) != bytes.Count(letter, []byte("\r\n")) {
			refused++
			if _, err := c.deliver(anna, letter); err == nil {
				t.Errorf("%s holds a bare CR and was accepted", path)
			}
			return nil
		}
		if reply, err := c.deliver(anna, letter); err != nil {
			t.Errorf("%s: %s %v", path, reply, err)
			return nil
		}
		letter = withoutReturnPath(letter)
		if whole.Domain.ASCII() == domain { // ours, and from outside
			marked++
			letter = bytes.Replace(letter, []byte("Subject:"), []byte("Subject: [suspicious]"), 1)
		}
		sent = append(sent, letter)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(sent) < 30 {
		t.Fatalf("only %d messages found below %s", len(sent), root)
	}
	s.expectLetters(t, sent...)
	t.Logf("%d messages octet for octet, of these %d with a mark; %d with a bare CR or without one author refused", len(sent), marked, refused)
}

func authorOf(t *testing.T, letter []byte) auth.Author {
	t.Helper()
	header, err := message.ReadHeader(bytes.NewReader(letter), message.HeaderLimits{})
	if err != nil {
		t.Fatal(err)
	}
	return auth.ReadAuthor(header)
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
