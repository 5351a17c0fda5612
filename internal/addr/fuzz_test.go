package addr

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

var seeds = []string{
	"anna@example.org", `"a b\"\\"@x.example`, `""@x.example`, "a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", "a@[IPv6:::ffff:192.0.2.1]",
	"jürgen@bücher.example", "a@xn--bcher-kva.example", "ΣΊΣΥΦΟΣ@x.example", "a@straße.example", "postmaster", "@a,@b:c@d",
	"a@x。example", "a@１２.example", "a@xn--a.example", "a..b@c", `"a@b`, "a@b.", "a\x00@b", "a\xff@b", "ｱ@x.example",
}

func FuzzParsePath(f *testing.F) {
	for _, s := range seeds {
		f.Add("<" + s + "> SIZE=1")
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, rest, err := ParsePath(s)
		if err != nil {
			if !errors.Is(err, ErrSyntax) && !errors.Is(err, ErrTooLong) {
				t.Fatalf("ParsePath(%q): an error of no kind: %v", s, err)
			}
			return
		}
		if !strings.HasSuffix(s, rest) || strings.HasPrefix(rest, " ") {
			t.Errorf("rest %q of %q", rest, s)
		}
		if again, rest, err := ParsePath(p.String()); err != nil || rest != "" || again.Address != p.Address || again.Null != p.Null || again.Postmaster != p.Postmaster {
			t.Errorf("ParsePath(%q) = %+v; parsed again %+v, %q, %v", s, p, again, rest, err)
		}
		if len(p.String()) > maxPath {
			t.Errorf("String of %q has %d octets", s, len(p.String()))
		}
		if !p.Null && !p.Postmaster {
			checkAddress(t, p.Address)
		}
	})
}

func checkAddress(t *testing.T, a Address) {
	t.Helper()
	if again, err := Parse(a.String()); err != nil || again != a {
		t.Errorf("Parse(%q) = %+v, %v, want %+v", a.String(), again, err, a)
	}
	key := a.Key()
	folded := a
	folded.Local = key[:strings.LastIndexByte(key, '@')]
	if folded.Key() != key {
		t.Errorf("Key of %q is %q, and the Key of that %q", a.String(), key, folded.Key())
	}
	for _, form := range []string{a.String(), a.Unicode(), key} {
		if !utf8.ValidString(form) || strings.ContainsAny(form, "\r\n\x00") {
			t.Errorf("form %q", form)
		}
	}
}

func FuzzParseDomain(f *testing.F) {
	for _, s := range seeds {
		f.Add(s[strings.LastIndexByte(s, '@')+1:])
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDomain(s)
		if err != nil {
			return
		}
		if again, err := ParseDomain(d.ASCII()); err != nil || again != d {
			t.Errorf("ParseDomain(%q) = %q; parsed again %q, %v", s, d, again, err)
		}
		if again, err := ParseDomain(d.Unicode()); err != nil || again != d {
			t.Errorf("ParseDomain(%q) = %q, shown as %q; parsed again %q, %v", s, d, d.Unicode(), again, err)
		}
		if !isASCII(d.ASCII()) || d.ASCII() != strings.ToLower(d.ASCII()) || len(d.ASCII()) > maxDomain || d.IsZero() {
			t.Errorf("ParseDomain(%q) = %q", s, d)
		}
	})
}
