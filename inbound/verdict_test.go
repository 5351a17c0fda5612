package inbound

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	library "github.com/emersion/go-msgauth/dkim"

	"github.com/postroom/postroom/internal/mailtest"
	"github.com/postroom/postroom/internal/resolve/zone"
)

// TestVerdicts goes through the whole engine: what the sender reads, and what is kept.
func TestVerdicts(t *testing.T) {
	const (
		bank  = "From: a@bank.example\r\nSubject: x\r\n\r\n"
		evil  = "From: a@evil.example\r\nSubject: x\r\n\r\n"
		loose = "_dmarc.bank.example. 60 IN TXT \"v=DMARC1; p=quarantine\""
	)
	for _, tc := range []struct {
		name, from, letter string
		prepare            func(*world)
		reply              string
		kept               string // a part of what is kept
	}{
		{"honest", "a@evil.example", evil, nil, "250 2.0.0", "\r\nSubject: x\r\n"},
		{"reject", "a@evil.example", bank, nil, "550 5.7.26 bank.example asks to reject mail that it did not authenticate (DMARC policy of bank.example): SPF is pass for evil.example, and there is no DKIM signature", ""},
		{"reject, through a list", "a@evil.example", "List-Id: <l.evil.example>\r\n" + bank, nil, "250 2.0.0", "\r\nSubject: [suspicious] x\r\n"},
		{"reject, through a list that SPF cannot tell", "a@evil.example", "List-Id: <l.evil.example>\r\n" + bank,
			func(w *world) {
				w.addRecords("evil.example. 60 IN TXT \"v=spf1 include:slow.example -all\"\nslow.example. 60 IN A 192.0.2.9")
				w.dns.Remove("evil.example")
				w.addRecords("evil.example. 60 IN MX 10 mail.evil.example.\nevil.example. 60 IN TXT \"v=spf1 include:slow.example -all\"")
				w.dns.SetFault("slow.example", zone.ServFail)
			}, "451 4.4.3 who passed this message on", ""},
		{"quarantine", "a@evil.example", bank, func(w *world) { w.dns.Remove("_dmarc.bank.example"); w.addRecords(loose) }, "250 2.0.0", "\r\nSubject: [suspicious] x\r\n"},
		{"quarantine, no Subject", "a@evil.example", "From: a@bank.example\r\n\r\n", func(w *world) { w.dns.Remove("_dmarc.bank.example"); w.addRecords(loose) },
			"250 2.0.0", "\r\nSubject: [suspicious]\r\n"},
		{"quarantine, two Subjects", "a@evil.example", "Subject: y\r\n" + bank, func(w *world) { w.dns.Remove("_dmarc.bank.example"); w.addRecords(loose) }, "550 5.6.0", ""},
		{"quarantine, folded Subject", "a@evil.example", "Subject:\r\n\tx\r\nFrom: a@bank.example\r\n\r\n", func(w *world) { w.dns.Remove("_dmarc.bank.example"); w.addRecords(loose) },
			"250 2.0.0", "\r\nSubject: [suspicious]\r\n\tx\r\n"},
		{"testing", "a@evil.example", bank, func(w *world) {
			w.dns.Remove("_dmarc.bank.example")
			w.addRecords("_dmarc.bank.example. 60 IN TXT \"v=DMARC1; p=reject; t=y\"")
		}, "250 2.0.0", "\r\nSubject: [suspicious] x\r\n"},
		{"the policy cannot be looked up", "a@evil.example", bank, func(w *world) { w.dns.SetFault("_dmarc.bank.example", zone.ServFail) }, "451 4.4.3", ""},
		{"SPF cannot be looked up, and decides", "a@bank.example", bank, func(w *world) { w.dns.SetFault("bank.example", zone.Timeout) }, "451 4.4.3 the domain of the sender", ""},
		{"whether the author's domain exists cannot be looked up, np is mild", "a@evil.example", "From: a@x.soft.example\r\n\r\n", func(w *world) {
			w.addRecords("_dmarc.soft.example. 60 IN TXT \"v=DMARC1; p=reject; sp=reject; np=none\"")
			w.dns.SetFault("x.soft.example", zone.ServFail)
		}, "451 4.4.3", ""},
		{"the sender does not exist", "a@nowhere.example", evil, nil, "550 5.1.8", ""},
		{"the sender has a null MX", "a@null.example", evil, func(w *world) { w.addRecords("null.example. 60 IN MX 0 .") }, "550 5.7.27", ""},
		{"no author", "a@evil.example", "Subject: x\r\n\r\n", nil, "550 5.6.0 this message has no From field", ""},
		{"a bounce", "", evil, nil, "250 2.0.0", "Return-Path: <>\r\n"},
		{"results in our name are removed, others stay", "a@evil.example", "Authentication-Results: MAIL.example.ORG (x); dmarc=pass\r\nAuthentication-Results: other.example; dkim=pass\r\n" + evil,
			nil, "250 2.0.0", "\r\nAuthentication-Results: other.example; dkim=pass\r\nFrom: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.addRecords(hostile)
				if tc.prepare != nil {
					tc.prepare(w)
				}
				if reply := w.deliver(tc.from, tc.letter); !strings.HasPrefix(reply, tc.reply) {
					t.Errorf("answered %q, want %q", reply, tc.reply)
				}
				kept := strings.Join(w.letters("anna@example.org"), "")
				if (kept == "") != (tc.kept == "") || !strings.Contains(kept, tc.kept) {
					t.Errorf("kept %q, want %q", kept, tc.kept)
				}
				if strings.Count(strings.ToLower(kept), "authentication-results: mail.example.org") > 1 {
					t.Errorf("a forged result is kept: %q", kept)
				}
			})
		})
	}
}

// TestAborted begins 1,000 letters that end in every wrong way, with a DNS that never answers: no goroutine is left (the
// bubble would not end) and nothing is kept.
func TestAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, name := range []string{"outside.example", "mail.outside.example", "1.2.0.192.in-addr.arpa", "_dmarc.outside.example"} {
			w.dns.SetFault(name, zone.Timeout)
		}
		envelope := "EHLO c.outside.example\r\nMAIL FROM:<a@outside.example>\r\nRCPT TO:<anna@example.org>\r\n"
		for i := range 1000 {
			ending := []string{"DATA\r\nFrom: a@outside.example\r\n\r\nhalf", "BDAT 1000 LAST\r\nhalf", "RSET\r\nQUIT\r\n", "BDAT 4\r\nhalfRSET\r\nQUIT\r\n", "EHLO again\r\n", ""}[i%6]
			mailtest.Exchange(func(c net.Conn) { w.server().ServeConn(fromOutside{c}) }, []byte(envelope+ending))
		}
		if kept := w.letters("anna@example.org"); len(kept) > 0 {
			t.Errorf("%d letters are kept", len(kept))
		}
	})
}

// hostileLetters cost other servers minutes.
func hostileLetters() map[string]string {
	signature := func(names int) string {
		return "DKIM-Signature: v=1; a=ed25519-sha256; c=simple/simple; d=evil.example; s=s; bh=" + strings.Repeat("A", 43) + "=; h=From" +
			strings.Repeat(":\r\n From", names-1) + "; b=" + strings.Repeat("A", 86) + "==\r\n"
	}
	const from = "From: a@evil.example\r\n"
	line := "A line of a very large letter, of which there are many.\r\n"
	return map[string]string{
		"8 MB of empty lines":       signature(1) + from + "\r\n" + strings.Repeat("\r\n", 4<<20),
		"16,000 fields":             strings.Repeat("X: y\r\n", 16000) + from + "\r\n",
		"16,000 names in h=":        signature(16000) + from + "\r\n",
		"1,000 signatures":          strings.Repeat("DKIM-Signature: v=1; a=ed25519-sha256; d=evil.example; s=s; bh=AA==; h=From; b=AA==\r\n", 1000) + from + "\r\n",
		"50 ARC sets":               strings.Repeat("ARC-Seal: i=1; a=rsa-sha256; d=evil.example; s=s; cv=none; b=AA==\r\nARC-Message-Signature: i=1; d=evil.example\r\n", 50) + from + "\r\n",
		"50 MB with 8 signatures":   strings.Repeat(signature(1), 8) + from + "\r\n" + strings.Repeat(line, 49<<20/len(line)),
		"200,000 open comments":     "From: " + strings.Repeat("((((((((((((((((((((\r\n ", 9_000) + "\r\n\r\n",
		"12,000 authors":            "From: " + strings.Repeat("a@evil.example,\r\n ", 12_000) + "b@evil.example\r\n\r\n",
		"encoded words in the name": "From: " + strings.Repeat("=?utf-8?b?QUFB?=\r\n ", 12_000) + "<a@evil.example>\r\n\r\n",
	}
}

// TestHostileLetters hands each to the engine: it is answered, within 2 s of processor time and bounded look-ups.
func TestHostileLetters(t *testing.T) {
	for name, letter := range hostileLetters() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { handHostile(t, name, letter) })
		})
	}
}

func handHostile(t *testing.T, name, letter string) {
	w := newWorld(t)
	w.addRecords(hostile)
	w.dns.AddTXT("s._domainkey.evil.example", "v=DKIM1; k=ed25519; p="+strings.Repeat("A", 43)+"=") // so that bodies are hashed
	before := cpu(t)
	reply := w.deliver("a@evil.example", letter)
	used := cpu(t) - before
	if !strings.HasPrefix(reply, "250 ") && !strings.HasPrefix(reply, "55") {
		t.Errorf("answered %q", reply)
	}
	if limit := 2 * time.Second * raceFactor; used > limit || w.dns.Queries() > 40 {
		t.Errorf("%v of CPU and %d look-ups; at most %v and 40", used, w.dns.Queries(), limit)
	}
	kept := strings.Join(w.letters("anna@example.org"), "")
	if strings.Contains(name, " MB ") && !strings.Contains(kept, "dkim=fail (the body was changed)") {
		t.Errorf("the body was not hashed: %.900q", kept)
	}
	t.Logf("%v of CPU, %d look-ups, %.80s", used, w.dns.Queries(), reply)
}

// cpu is the processor time that this process has used.
func cpu(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// signedLetter is a letter of about 10 KB with a signature, and the key record for it.
func signedLetter(tb testing.TB) (letter, record string) {
	tb.Helper()
	key := must(rsa.GenerateKey(rand.Reader, 2048))
	der := must(x509.MarshalPKIXPublicKey(&key.PublicKey))
	text := "From: a@evil.example\r\nTo: anna@example.org\r\nSubject: hello\r\nDate: Thu, 01 Oct 2026 10:00:00 +0000\r\nMessage-ID: <1@evil.example>\r\n\r\n" +
		strings.Repeat(strings.Repeat("word ", 15)+"\r\n", 130)
	var signed bytes.Buffer
	err := library.Sign(&signed, strings.NewReader(text), &library.SignOptions{Domain: "evil.example", Selector: "s", Signer: key, Hash: crypto.SHA256,
		HeaderCanonicalization: "relaxed", BodyCanonicalization: "relaxed", HeaderKeys: []string{"From", "From", "To", "Subject", "Date", "Message-ID"}})
	if err != nil {
		tb.Fatal(err)
	}
	return signed.String(), "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
}
