package inbound

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
)

// hostile is a domain whose mail passes everything: what its letters pretend is all that is wrong with them. It sends from
// remote. bank.example asks to reject what it did not send; example.org is served here.
const hostile = `
	evil.example. 60 IN MX 10 mail.evil.example.
	evil.example. 60 IN TXT "v=spf1 ip4:192.0.2.1 -all"
	_dmarc.evil.example. 60 IN TXT "v=DMARC1; p=none"
	xn--bnk-7cd.example. 60 IN MX 10 mail.evil.example.
	xn--bnk-7cd.example. 60 IN TXT "v=spf1 ip4:192.0.2.1 -all"
	_dmarc.xn--bnk-7cd.example. 60 IN TXT "v=DMARC1; p=none"
	bank.example. 60 IN MX 10 mail.bank.example.
	bank.example. 60 IN TXT "v=spf1 -all"
	_dmarc.bank.example. 60 IN TXT "v=DMARC1; p=reject"
`

// forged are headers that show, or might show, somebody else. Each must be refused, or kept with a mark.
var forged = []struct{ name, header string }{
	// Somebody else's domain as it is.
	{"the bank", "From: security@bank.example"},
	{"the bank with a name", "From: The Bank <security@bank.example>"},
	{"below the bank", "From: security@mail.bank.example"},
	{"the bank in capitals", "From: security@BANK.EXAMPLE"},
	{"the bank with a final dot", "From: security@bank.example."},
	{"the bank with blanks", "From: security @ bank . example"},
	{"the bank with comments", "From: security(a)@(b)bank(c).(d)example"},
	{"the bank with a source route", "From: <@evil.example:security@bank.example>"},
	{"the bank in a quoted local part's domain", `From: "security"@bank.example`},
	{"folded", "From:\r\n security@bank.example"},
	{"folded inside", "From: The Bank\r\n\t<security@bank.example>"},
	{"a blank before the colon", "From : security@bank.example"},
	{"a tab before the colon", "From\t: security@bank.example"},
	{"in lower case", "from: security@bank.example"},
	{"Sender is the evil one", "Sender: a@evil.example\r\nFrom: security@bank.example"},
	{"Reply-To is the evil one", "Reply-To: a@evil.example\r\nFrom: security@bank.example"},
	// Our own domain from outside.
	{"ourselves", "From: anna@example.org"},
	{"ourselves in capitals", "From: ANNA@EXAMPLE.ORG"},
	{"below ourselves", "From: it@support.example.org"},
	{"ourselves, a user that does not exist", "From: boss@example.org"},
	{"ourselves with a name", `From: "IT support" <it@example.org>`},
	{"ourselves from a forged list", "List-Id: <x.evil.example>\r\nFrom: it@example.org"},
	// Several authors.
	{"two fields", "From: a@evil.example\r\nFrom: security@bank.example"},
	{"two fields, the bank first", "From: security@bank.example\r\nFrom: a@evil.example"},
	{"two fields, the same", "From: a@evil.example\r\nFrom: a@evil.example"},
	{"two fields, one with a blank", "From : security@bank.example\r\nFrom: a@evil.example"},
	{"two fields, one in capitals", "From: a@evil.example\r\nFROM: security@bank.example"},
	{"two mailboxes", "From: a@evil.example, security@bank.example"},
	{"two mailboxes, the bank first", "From: security@bank.example, a@evil.example"},
	{"two mailboxes without a comma", "From: <security@bank.example> <a@evil.example>"},
	{"two mailboxes, folded", "From: a@evil.example,\r\n security@bank.example"},
	{"a group", "From: Bank: security@bank.example, a@evil.example;"},
	{"a group of one", "From: Bank: security@bank.example;"},
	{"an empty group", "From: security@bank.example:;"},
	{"a semicolon between", "From: security@bank.example; a@evil.example"},
	// No author that can be told.
	{"none", "Subject: x"},
	{"none, but Sender", "Sender: security@bank.example"},
	{"none, but Resent-From", "Resent-From: a@evil.example"},
	{"empty", "From:"},
	{"blanks", "From:   \r\n  "},
	{"empty brackets", "From: <>"},
	{"only a name", "From: The Bank"},
	{"no domain", "From: security"},
	{"a domain literal", "From: security@[192.0.2.1]"},
	{"an open bracket", "From: The Bank <security@bank.example"},
	{"an open quote", `From: "The Bank <security@bank.example>`},
	{"an open comment", "From: (security@bank.example a@evil.example"},
	{"two at signs", "From: security@bank.example@evil.example"},
	{"a NUL in the domain", "From: security@bank.example\x00.evil.example"},
	{"a NUL before the domain", "From: security\x00@bank.example"},
	{"a NUL behind the address", "From: security@bank.example\x00"},
	{"a NUL in the name of the field", "From\x00: a@evil.example"},
	{"control characters", "From: security@bank.example\x08\x08"},
	{"octets that are no UTF-8", "From: a@\xff\xfe.example"},
	{"encoded words for the address", "From: =?utf-8?q?security=40bank.example?="},
	{"encoded words for a part of the address", "From: security@=?utf-8?q?bank.example?="},
	// A name that shows another address.
	{"the bank's address as the name", `From: "security@bank.example" <a@evil.example>`},
	{"the same without quotes", "From: security@bank.example <a@evil.example>"},
	{"in a sentence", `From: "The Bank (security@bank.example)" <a@evil.example>`},
	{"with brackets in the name", `From: "The Bank <security@bank.example>" <a@evil.example>`},
	{"as an encoded word", "From: =?utf-8?q?security=40bank=2Eexample?= <a@evil.example>"},
	{"as base64", "From: =?utf-8?b?c2VjdXJpdHlAYmFuay5leGFtcGxl?= <a@evil.example>"},
	{"as two encoded words", "From: =?utf-8?q?security=40?= =?utf-8?q?bank=2Eexample?= <a@evil.example>"},
	{"in a comment", "From: a@evil.example (security@bank.example)"},
	{"in a comment before", "From: (security@bank.example) a@evil.example"},
	{"with a full-width at sign", "From: \"security\uff20bank.example\" <a@evil.example>"},
	{"with invisible characters", "From: \"secu\u200brity@ba\u200bnk.example\" <a@evil.example>"},
	{"with an invisible at sign's neighbour", "From: \"security\u2060@\u2060bank.example\" <a@evil.example>"},
	{"in the local part", `From: "security@bank.example"@evil.example`},
	{"as a quoted local part with a bracket", `From: "security@bank.example> "@evil.example`},
	{"our own address as the name", `From: "anna@example.org" <a@evil.example>`},
	{"text that turns", "From: \"\u202eelpmaxe.knab@ytiruces\u202c\" <a@evil.example>"},
	// A domain that looks like another one.
	{"a Cyrillic letter", "From: security@b\u0430nk.example"},
	{"the same as an A-label", "From: security@xn--bnk-7cd.example"},
}

// TestForged delivers each from a server that passes SPF and DMARC for its own domain.
func TestForged(t *testing.T) {
	refused, marked := 0, 0
	for _, tc := range forged {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.addRecords(hostile)
				reply := w.deliver("a@evil.example", tc.header+"\r\nTo: anna@example.org\r\n\r\nLog in at once.\r\n")
				kept := w.letters("anna@example.org")
				switch {
				case strings.HasPrefix(reply, "550 ") && len(kept) == 0:
					refused++
				case strings.HasPrefix(reply, "250 ") && len(kept) == 1 && strings.Contains(kept[0], "Subject: [suspicious]") && strings.Contains(kept[0], "x-postroom=suspicious"):
					marked++
				default:
					t.Errorf("%q was answered with %q, and %q was kept", tc.header, reply, kept)
				}
			})
		})
	}
	t.Logf("%d forged headers: %d refused, %d marked", len(forged), refused, marked)
}

// TestHonest has headers that resemble those above and are in order: a check that marks everything proves nothing.
func TestHonest(t *testing.T) {
	for _, header := range []string{
		"From: a@evil.example", "From: Alice <a@evil.example>", `From: "a@evil.example" <a@evil.example>`, "From: a@evil.example (Alice)",
		`From: "Alice @ Evil" <a@evil.example>`, "From: a@mail.evil.example", "From: a@evil.example, b@evil.example", "From: =?utf-8?q?J=C3=BCrgen?= <a@evil.example>",
		`From: "list@sub.evil.example via List" <a@evil.example>`, "From: \u4e2d\u6587 <a@evil.example>", "Sender: x@bank.example\r\nFrom: a@evil.example",
		"From: a@b\u00fccher.example",
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.addRecords(hostile)
			reply := w.deliver("a@evil.example", header+"\r\n\r\nHello.\r\n")
			if kept := w.letters("anna@example.org"); !strings.HasPrefix(reply, "250 ") || len(kept) != 1 || strings.Contains(kept[0], "suspicious") {
				t.Errorf("%q was answered with %q: %q", header, reply, kept)
			}
		})
	}
}

// addRecords adds lines of a zone file.
func (w *world) addRecords(lines string) {
	w.t.Helper()
	for line := range strings.Lines(lines) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if err := w.dns.Add(line); err != nil {
			w.t.Fatal(err)
		}
	}
}

// deliver hands a letter to anna over and returns the final reply.
func (w *world) deliver(from, letter string) (reply string) {
	w.t.Helper()
	client, server := net.Pipe()
	go w.server().ServeConn(fromOutside{server})
	all := make(chan string)
	go func() {
		said, _ := io.ReadAll(client) // the server closes after QUIT
		all <- string(said)
	}()
	fmt.Fprintf(client, "EHLO mail.evil.example\r\nMAIL FROM:<%s> BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<anna@example.org>\r\nDATA\r\n%s.\r\nQUIT\r\n", from, letter)
	said := <-all
	_, after, found := strings.Cut(said, "\r\n354 ")
	if !found {
		w.t.Fatalf("no 354 in %q", said)
	}
	_, reply, _ = strings.Cut(after, "\r\n")
	reply, _, _ = strings.Cut(reply, "\r\n")
	return reply
}
