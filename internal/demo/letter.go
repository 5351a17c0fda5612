package demo

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// dateLayout is RFC 5322 section 3.3.
const dateLayout = "Mon, 02 Jan 2006 15:04:05 -0700"

// composeLetter writes a small letter that is easy to damage on the way: lines that begin with a dot, an empty last
// part, long and eight-bit lines. All lines end with CR LF.
func composeLetter(from, to, id string, now time.Time) []byte {
	lines := []string{
		"From: Ben Outside <" + from + ">",
		"To: <" + to + ">",
		"Subject: Hello from the outside",
		"Date: " + now.Format(dateLayout),
		"Message-ID: <" + id + ">",
		"MIME-Version: 1.0",
		"Content-Type: text/plain; charset=utf-8",
		"Content-Transfer-Encoding: 8bit",
		"",
		"Hello,",
		"",
		"this letter came over SMTP with STARTTLS and was fetched over POP3S.",
		".",
		"..",
		".A line that begins with a dot keeps it (RFC 5321 section 4.5.2).",
		"Grüße, 你好, and a long line: " + strings.Repeat("octet ", 100) + "end.",
		"",
		"Ben",
		"",
	}
	return []byte(strings.Join(lines, "\r\n"))
}

// compareLetter says whether fetched is sent behind the fields that the server puts before every letter.
func compareLetter(sent, fetched []byte) (added int, err error) {
	if bytes.HasSuffix(fetched, sent) {
		added = len(fetched) - len(sent)
		return added, checkTrace(fetched[:added])
	}
	if len(fetched) < len(sent) {
		return 0, fmt.Errorf("%d octets came back of the %d that were sent", len(fetched), len(sent))
	}
	tail := fetched[len(fetched)-len(sent):]
	at := 0
	for tail[at] == sent[at] {
		at++
	}
	return 0, fmt.Errorf("the letter that came back differs from octet %d on", at)
}

// checkTrace looks for the fields that the final delivery adds (RFC 5321 section 4.4): Return-Path first, and Received.
func checkTrace(fields []byte) error {
	switch {
	case !bytes.HasPrefix(fields, []byte("Return-Path: ")):
		return fmt.Errorf("the letter that came back does not begin with a Return-Path field")
	case !bytes.Contains(fields, []byte("\r\nReceived: ")):
		return fmt.Errorf("the letter that came back has no Received field of the server")
	case !bytes.HasSuffix(fields, []byte("\r\n")):
		return fmt.Errorf("the fields that the server added do not end a line")
	}
	return nil
}

// cutAddress splits a plain address at its last @.
func cutAddress(address string) (local, domain string) {
	at := strings.LastIndexByte(address, '@')
	return address[:max(at, 0)], address[at+1:]
}
