package dkim

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestParseSignature has one row for each rule: what is changed in a good signature, and what comes of it.
func TestParseSignature(t *testing.T) {
	const good = "v=1; a=rsa-sha256; c=relaxed/simple; d=Example.ORG; s=sel; h=From:To;\r\n\tbh=abc=; b=de\r\n fg; t=1000; x=2000; i=anna@sub.EXAMPLE.org"
	now := time.Unix(1500, 0)
	for _, tc := range []struct {
		name, old, new string
		status         Status // "" for a good one
	}{
		{"good", "", "", ""},
		{"a semicolon at the end", "i=anna@sub.EXAMPLE.org", "i=anna@sub.EXAMPLE.org;\r\n ", ""},
		{"unknown tag", "t=1000", "foo=bar; t=1000", ""},
		{"version missing", "v=1; ", "", PermError},
		{"other version", "v=1", "v=2", PermError},
		{"tag twice", "v=1;", "v=1; v=1;", PermError},
		{"tag without a value sign", "v=1;", "v=1; x;", PermError},
		{"empty tag name", "v=1;", "v=1; =x;", PermError},
		{"name with a hyphen", "v=1;", "v=1; a-b=x;", PermError},
		{"no algorithm", "a=rsa-sha256;", "", PermError},
		{"unknown algorithm", "rsa-sha256", "rsa-sha512", PermError},
		{"algorithm in capitals", "rsa-sha256", "RSA-sha256", PermError},
		{"sha1", "rsa-sha256", "rsa-sha1", Policy},
		{"ed25519", "rsa-sha256", "ed25519-sha256", ""},
		{"domain missing", "d=Example.ORG;", "", PermError},
		{"malformed domain", "Example.ORG", "exa_mple..org", PermError},
		{"selector missing", "s=sel;", "", PermError},
		{"selector with a slash", "s=sel", "s=a/b", PermError},
		{"selector of two labels", "s=sel", "s=a.b", ""},
		{"selector with an empty label", "s=sel", "s=a..b", PermError},
		{"From not signed", "h=From:To", "h=Subject:To", PermError},
		{"From in another case", "h=From:To", "h=to:FROM", ""},
		{"201 names", "h=From:To", "h=From" + strings.Repeat(":x", 200), Policy},
		{"200 names", "h=From:To", "h=From" + strings.Repeat(":x", 199), ""},
		{"l=", "t=1000", "l=5; t=1000", Policy},
		{"expired", "x=2000", "x=1400", Fail},
		{"expires before it begins", "x=2000", "x=900", PermError},
		{"x= no number", "x=2000", "x=soon", PermError},
		{"t= no number", "t=1000", "t=-1", PermError},
		{"t= in the future", "t=1000", "t=1999", ""},
		{"t= of 13 digits", "t=1000", "t=1000000000000", PermError},
		{"identity elsewhere", "sub.EXAMPLE.org", "example.net", PermError},
		{"identity of a sibling by name only", "sub.EXAMPLE.org", "evilexample.org", PermError},
		{"no identity", "; i=anna@sub.EXAMPLE.org", "", ""},
		{"c= unknown", "relaxed/simple", "nowsp/simple", PermError},
		{"c= body unknown", "relaxed/simple", "relaxed/nowsp", PermError},
		{"c= without a body", "relaxed/simple", "relaxed", ""},
		{"q= known", "t=1000", "q=dns/txt; t=1000", ""},
		{"q= unknown", "t=1000", "q=http; t=1000", PermError},
		{"q= one of two known", "t=1000", "q=http:dns/txt; t=1000", ""},
		{"body hash missing", "bh=abc=;", "", PermError},
		{"signature empty", "b=de\r\n fg", "b=", PermError},
	} {
		if !strings.Contains(good, tc.old) {
			t.Fatalf("%s: nothing to replace", tc.name)
		}
		s, err := parseSignature(strings.Replace(good, tc.old, tc.new, 1), now)
		u, ok := errors.AsType[*unfit](err)
		switch {
		case err != nil && (!ok || u.status != tc.status || u.reason == ""), err == nil && tc.status != "":
			t.Errorf("%s: %v, want %q", tc.name, err, tc.status)
		case err == nil && (s.Domain != "example.org" || s.B != "defg" || s.Short() != "defg"):
			t.Errorf("%s: %+v", tc.name, s)
		}
	}
}

// TestParseKey has one row for each rule of key records.
func TestParseKey(t *testing.T) {
	const p = "p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
	s := Signature{Algorithm: "ed25519-sha256", Domain: "example.org", Identity: "@example.org"}
	below := s
	below.Identity = "@sub.example.org"
	rsa := s
	rsa.Algorithm = "rsa-sha256"
	for _, tc := range []struct {
		name, record string
		s            Signature
		good         bool
	}{
		{"good", "v=DKIM1; k=ed25519; " + p, s, true},
		{"no version", "k=ed25519; " + p, s, true},
		{"other version", "v=DKIM2; k=ed25519; " + p, s, false},
		{"other algorithm", "v=DKIM1; k=rsa; " + p, s, false},
		{"algorithm left out means rsa", "v=DKIM1; " + p, s, false},
		{"the same, asked for rsa, no RSA key", "v=DKIM1; " + p, rsa, false},
		{"not base64", "v=DKIM1; k=rsa; p=???", rsa, false},
		{"revoked", "v=DKIM1; k=ed25519; p=", s, false},
		{"no key", "v=DKIM1; k=ed25519", s, false},
		{"for this hash", "k=ed25519; h=sha1:sha256; " + p, s, true},
		{"for other hashes", "k=ed25519; h=sha512; " + p, s, false},
		{"for mail", "k=ed25519; s=web:email; " + p, s, true},
		{"for all services", "k=ed25519; s=*; " + p, s, true},
		{"for other services", "k=ed25519; s=web; " + p, s, false},
		{"t=s, the domain itself", "k=ed25519; t=s; " + p, s, true},
		{"t=s, one below", "k=ed25519; t=y:s; " + p, below, false},
		{"one below", "k=ed25519; " + p, below, true},
		{"tag twice", "k=ed25519; k=ed25519; " + p, s, false},
		{"no tags", "hello", s, false},
	} {
		if _, err := parseKey(tc.record, tc.s, nil); (err == nil) != tc.good {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	if k, _ := parseKey("k=ed25519; t=y; "+p, s, nil); !k.testing {
		t.Error("t=y is not seen")
	}
}

// TestKeys: a key is read once, what is no key stays none, and what strangers publish does not grow without bound.
func TestKeys(t *testing.T) {
	var known Keys
	private, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der := x509.MarshalPKCS1PublicKey(&private.PublicKey)
	one, err := known.parse(der)
	two, again := known.parse(der)
	if err != nil || again != nil || one != two || !one.Equal(&private.PublicKey) {
		t.Errorf("%v, %v; %v, %v", one, err, two, again)
	}
	for range 2 {
		if k, err := known.parse([]byte("no key")); err == nil {
			t.Errorf("%v", k)
		}
	}
	for i := range 3 * maxKnown {
		known.remember(fmt.Append(nil, i), one)
	}
	if n := len(known.byDER); n > maxKnown {
		t.Errorf("%d keys are remembered", n)
	}
}

func FuzzParseSignature(f *testing.F) {
	f.Add("v=1; a=rsa-sha256; d=example.org; s=sel; h=From; bh=x; b=y")
	f.Add("a=;;b=c\r\n ;=;")
	f.Fuzz(func(t *testing.T, body string) {
		s, err := parseSignature(body, time.Unix(0, 0))
		if err == nil && (s.Domain == "" || s.Selector == "" || !s.Covers("from") || len(s.Signed) > maxSignedNames) {
			t.Errorf("%q: %+v", body, s)
		}
		if _, ok := errors.AsType[*unfit](err); err != nil && !ok {
			t.Errorf("%q: %v", body, err)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
	f.Add("k=rsa; t=y:s; h=sha256; s=*; p=")
	f.Fuzz(func(t *testing.T, record string) {
		_, err := parseKey(record, Signature{Algorithm: "rsa-sha256", Domain: "example.org", Identity: "@example.org"}, &Keys{})
		if _, ok := errors.AsType[*unfit](err); err != nil && !ok {
			t.Errorf("%q: %v", record, err)
		}
	})
}

// FuzzVerify gives any octets to the whole verification: no panic, and nothing passes that was not signed.
func FuzzVerify(f *testing.F) {
	f.Add([]byte(forge("s", 1, []byte("\r\n"), "simple/simple") + top + "\r\n"))
	f.Add([]byte(forge("s", 3, []byte("x"), "relaxed/relaxed") + forge("t", 1, nil, "simple") + "From : a\r\nbad\r\n\r\nx\r\n \r\n\r\n"))
	f.Add([]byte("DKIM-Signature:\r\n\r\n"))
	k := keys{"s._domainkey.evil.example": {"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="}}
	f.Fuzz(func(t *testing.T, letter []byte) {
		for _, r := range verifyOctets(t, k, letter) {
			if r.Status == Pass || r.Status == "" {
				t.Errorf("%q: %+v", letter, r)
			}
		}
	})
}
