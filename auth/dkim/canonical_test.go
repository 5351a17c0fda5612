package dkim

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"regexp"
	"strings"
	"testing"

	library "github.com/emersion/go-msgauth/dkim"

	"github.com/postroom/postroom/internal/message"
)

// canonicalBody is the slow way, by the words of RFC 6376 section 3.4.3 and 3.4.4.
func canonicalBody(body string, relaxed bool) string {
	body = regexp.MustCompile(`\r?\n`).ReplaceAllString(body, "\r\n")
	lines := strings.Split(body, "\r\n")
	if relaxed {
		for i, line := range lines {
			lines[i] = strings.TrimRight(regexp.MustCompile(`[ \t]+`).ReplaceAllString(line, " "), " ")
		}
	}
	body = strings.Join(lines, "\r\n")
	for strings.HasSuffix(body, "\r\n") {
		body = strings.TrimSuffix(body, "\r\n")
	}
	if body == "" && relaxed {
		return ""
	}
	return body + "\r\n"
}

// recorder is a hash that keeps what it hashes.
type recorder struct{ bytes.Buffer }

func (r *recorder) Sum([]byte) []byte { return r.Bytes() }
func (r *recorder) Size() int         { return 0 }
func (r *recorder) BlockSize() int    { return 1 }

func hashed(body string, relaxed bool, pieces int) string {
	b := newBodyHasher(&recorder{}, relaxed)
	for len(body) > 0 {
		n := min(len(body), pieces)
		_, _ = b.Write([]byte(body[:n]))
		body = body[n:]
	}
	return string(b.sum())
}

func TestBody(t *testing.T) {
	for body, want := range map[string][2]string{ // simple, relaxed
		"":                          {"\r\n", ""},
		"\r\n\r\n":                  {"\r\n", ""},
		" \t\r\n\r\n":               {" \t\r\n", ""},
		" C \r\nD \t E\r\n\r\n\r\n": {" C \r\nD \t E\r\n", " C\r\nD E\r\n"}, // RFC 6376 section 3.4.5
		"no end":                    {"no end\r\n", "no end\r\n"},
		"blank at the end ":         {"blank at the end \r\n", "blank at the end\r\n"},
		"a\r\n\r\n b":               {"a\r\n\r\n b\r\n", "a\r\n\r\n b\r\n"},
		"a\rb\r\r\n":                {"a\rb\r\r\n", "a\rb\r\r\n"},
		"a\n\nb\n":                  {"a\r\n\r\nb\r\n", "a\r\n\r\nb\r\n"},
		"\r":                        {"\r\r\n", "\r\r\n"},
	} {
		for i, relaxed := range []bool{false, true} {
			for _, pieces := range []int{1, 2, 3, 1000} {
				if got := hashed(body, relaxed, pieces); got != want[i] {
					t.Errorf("%q, relaxed %t, in pieces of %d: %q, want %q", body, relaxed, pieces, got, want[i])
				}
			}
		}
	}
	long := strings.Repeat("word  word\t", 5000) + "\r\n"
	if got := hashed(long, true, 4096); got != canonicalBody(long, true) {
		t.Errorf("a long line: %d octets", len(got))
	}
}

func TestHeaderField(t *testing.T) {
	for raw, want := range map[string]string{ // RFC 6376 section 3.4.2
		"A: X":                       "a:X",
		"B : Y\t\r\n\tZ  ":           "b:Y Z",
		"SUBJect:  a \t b \r\n  c\t": "subject:a b c",
		"Empty:":                     "empty:",
		"Blank: \r\n ":               "blank:",
	} {
		header, err := message.ReadHeader(strings.NewReader(raw+"\r\n\r\n"), message.HeaderLimits{})
		if err != nil || len(header.Fields) != 1 {
			t.Fatalf("%q: %v", raw, err)
		}
		if got := string(appendField(nil, header.Fields[0], []byte(raw), true)); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
		if got := string(appendField(nil, header.Fields[0], []byte(raw), false)); got != raw {
			t.Errorf("%q, simple: %q", raw, got)
		}
	}
}

func TestWithoutSignature(t *testing.T) {
	for raw, want := range map[string]string{
		"DKIM-Signature: v=1; b=abc; d=x":               "DKIM-Signature: v=1; b=; d=x",
		"DKIM-Signature: v=1; b = a\r\n b c":            "DKIM-Signature: v=1; b =",
		"DKIM-Signature: bh=b=1; b=2;":                  "DKIM-Signature: bh=b=1; b=;",
		"DKIM-Signature: v=1;\r\n\tb=abc\r\n def ; d=x": "DKIM-Signature: v=1;\r\n\tb=; d=x",
		"DKIM-Signature: v=1":                           "DKIM-Signature: v=1",
	} {
		if got := withoutSignature(raw); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
}

func FuzzBody(f *testing.F) {
	for _, body := range []string{" C \r\nD \t E\r\n\r\n\r\n", "a\rb\r\r\n\n", " \t\r\n", "x"} {
		f.Add(body, 3)
	}
	f.Fuzz(func(t *testing.T, body string, pieces int) {
		pieces = max(1, pieces&0xff)
		for _, relaxed := range []bool{false, true} {
			if got, want := hashed(body, relaxed, pieces), canonicalBody(body, relaxed); got != want {
				t.Errorf("%q, relaxed %t: %q, want %q", body, relaxed, got, want)
			}
		}
	})
}

// FuzzAgainstLibrary signs with go-msgauth, and changes one octet: the library and this package agree on what still passes.
func FuzzAgainstLibrary(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	record := "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	f.Add("Subject:  a \t b\r\n  c\r\nX: y\r\n", "Hello \t you.\r\n\r\n \r\n", byte(0), uint16(0), byte(0))
	f.Add("Subject: x\r\nSubject: y\r\n", "", byte(3), uint16(40), byte('z'))
	f.Fuzz(func(t *testing.T, fields, body string, form byte, at uint16, c byte) {
		letter := []byte("From: a@fuzz.example\r\n" + onlyFields(fields) + "\r\n" + wholeLines(body))
		canonical := []library.Canonicalization{"simple", "relaxed"}
		var signed bytes.Buffer
		err := library.Sign(&signed, bytes.NewReader(letter), &library.SignOptions{Domain: "fuzz.example", Selector: "s", Signer: key, Hash: crypto.SHA256,
			HeaderCanonicalization: canonical[form&1], BodyCanonicalization: canonical[form>>1&1], HeaderKeys: []string{"From", "From", "Subject", "Subject", "X"}})
		if err != nil {
			return
		}
		octets := signed.Bytes()
		if c > ' ' && int(at) < len(octets) && octets[at] > ' ' { // line ends stay what they are
			octets[at] = c
		}
		header, err := message.ReadHeader(bytes.NewReader(octets), message.HeaderLimits{})
		if err != nil || header.Malformed > 0 {
			return
		}
		txt := func(string) ([]string, error) { return []string{record}, nil }
		theirs, err := library.VerifyWithOptions(bytes.NewReader(octets), &library.VerifyOptions{LookupTXT: txt})
		if err != nil {
			return
		}
		ours := Verify(t.Context(), Letter{bytes.NewReader(octets), int64(len(octets)), header}, Options{TXT: func(_ context.Context, n string) ([]string, error) { return txt(n) }})
		if len(theirs) != len(ours) {
			return
		}
		for i := range ours {
			if ours[i].Status == Pass && theirs[i].Err != nil || ours[i].Status == Fail && theirs[i].Err == nil {
				t.Errorf("%s (%s), the library says %v\n%q", ours[i].Status, ours[i].Reason, theirs[i].Err, octets)
			}
		}
	})
}

// onlyFields makes text a sequence of header fields.
func onlyFields(text string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.Map(func(r rune) rune {
			if r == '\r' || r == 0 {
				return -1
			}
			return r
		}, line)
		if name, _, ok := strings.Cut(line, ":"); ok && (name == "Subject" || name == "X") || b.Len() > 0 && strings.HasPrefix(line, " ") && strings.TrimSpace(line) != "" {
			b.WriteString(line + "\r\n")
		}
	}
	return b.String()
}

func wholeLines(text string) string {
	text = strings.ReplaceAll(text, "\r", "")
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return strings.ReplaceAll(text, "\n", "\r\n")
}

func BenchmarkBodyHash(b *testing.B) {
	body := []byte(strings.Repeat("A line of a letter, with words of the usual length and a blank between them.\r\n", 1300))
	for _, relaxed := range []bool{false, true} {
		b.Run(map[bool]string{false: "simple", true: "relaxed"}[relaxed], func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				h := newBodyHasher(sha256.New(), relaxed)
				_, _ = h.Write(body)
				h.sum()
			}
		})
	}
}
