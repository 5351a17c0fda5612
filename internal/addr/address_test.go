package addr

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

func TestParse(t *testing.T) {
	label := strings.Repeat("a", 63)
	for _, tc := range []struct {
		name, in string
		want     Address
		out      string // String, when it differs from in
	}{
		{"plain", "anna@example.org", Address{Local: "anna", Domain: Domain{"example.org"}}, ""},
		{"case of the domain", "Anna@Example.ORG", Address{Local: "Anna", Domain: Domain{"example.org"}}, "Anna@example.org"},
		{"single label", "anna@localhost", Address{Local: "anna", Domain: Domain{"localhost"}}, ""},
		{"all of atext", "!#$%&'*+-/=?^_`{|}~@x.example", Address{Local: "!#$%&'*+-/=?^_`{|}~", Domain: Domain{"x.example"}}, ""},
		{"needless quotes", `"anna"@x.example`, Address{Local: "anna", Domain: Domain{"x.example"}}, "anna@x.example"},
		{"needless backslash", `"\a\nna"@x.example`, Address{Local: "anna", Domain: Domain{"x.example"}}, "anna@x.example"},
		{"blank", `"a b"@x.example`, Address{Local: "a b", Domain: Domain{"x.example"}}, ""},
		{"quote and backslash", `"\"\\"@x.example`, Address{Local: `"\`, Domain: Domain{"x.example"}}, ""},
		{"at and bracket", `"a@b>c"@x.example`, Address{Local: "a@b>c", Domain: Domain{"x.example"}}, ""},
		{"dots in quotes", `".a..b."@x.example`, Address{Local: ".a..b.", Domain: Domain{"x.example"}}, ""},
		{"empty quotes", `""@x.example`, Address{Local: "", Domain: Domain{"x.example"}}, ""},
		{"IPv4", "a@[192.0.2.1]", Address{Local: "a", Literal: netip.MustParseAddr("192.0.2.1")}, ""},
		{"IPv6", "a@[ipv6:2001:DB8:0:0:0:0:0:1]", Address{Local: "a", Literal: netip.MustParseAddr("2001:db8::1")}, "a@[IPv6:2001:db8::1]"},
		{"UTF-8 local part", "jürgen@x.example", Address{Local: "jürgen", Domain: Domain{"x.example"}}, ""},
		{"UTF-8 in quotes", `"jür gen"@x.example`, Address{Local: "jür gen", Domain: Domain{"x.example"}}, ""},
		{"U-label", "a@bücher.example", Address{Local: "a", Domain: Domain{"xn--bcher-kva.example"}}, "a@xn--bcher-kva.example"},
		{"U-label, upper case", "a@BÜCHER.example", Address{Local: "a", Domain: Domain{"xn--bcher-kva.example"}}, "a@xn--bcher-kva.example"},
		{"A-label, upper case", "a@XN--BCHER-KVA.example", Address{Local: "a", Domain: Domain{"xn--bcher-kva.example"}}, "a@xn--bcher-kva.example"},
		{"sharp s is not ss", "a@straße.example", Address{Local: "a", Domain: Domain{"xn--strae-oqa.example"}}, "a@xn--strae-oqa.example"},
		{"two hyphens in third place", "a@ab--c.example", Address{Local: "a", Domain: Domain{"ab--c.example"}}, ""},
		{"local part of 64", strings.Repeat("a", 64) + "@x.example", Address{Local: strings.Repeat("a", 64), Domain: Domain{"x.example"}}, ""},
		{"label of 63", "a@" + label + ".example", Address{Local: "a", Domain: Domain{label + ".example"}}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Parse(tc.in)
			if err != nil || got != tc.want {
				t.Fatalf("Parse(%q) = %+v, %v, want %+v", tc.in, got, err, tc.want)
			}
			if tc.out == "" {
				tc.out = tc.in
			}
			if got.String() != tc.out {
				t.Errorf("String() = %q, want %q", got.String(), tc.out)
			}
			if again, err := Parse(got.String()); err != nil || again != got {
				t.Errorf("Parse(String()) = %+v, %v, want the same", again, err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	label := strings.Repeat("a", 63)
	for _, tc := range []struct {
		name, in string
		want     error
	}{
		{"empty", "", ErrSyntax},
		{"no domain", "anna", ErrSyntax},
		{"empty domain", "anna@", ErrSyntax},
		{"no local part", "@x.example", ErrSyntax},
		{"leading dot", ".a@x.example", ErrSyntax},
		{"trailing dot in the local part", "a.@x.example", ErrSyntax},
		{"double dot in the local part", "a..b@x.example", ErrSyntax},
		{"trailing dot", "a@x.example.", ErrSyntax},
		{"trailing ideographic dot", "a@x.example\u3002", ErrSyntax},
		{"double dot", "a@x..example", ErrSyntax},
		{"underscore", "a@x_y.example", ErrSyntax},
		{"underscore in a full-width form", "a@x＿y.example", ErrSyntax},
		{"leading hyphen", "a@-x.example", ErrSyntax},
		{"two addresses", "a@b@x.example", ErrSyntax},
		{"blank", "a b@x.example", ErrSyntax},
		{"surrounding blank", " a@x.example", ErrSyntax},
		{"comment", "a(c)@x.example", ErrSyntax},
		{"percent hack is an ordinary local part, bang too, but not a colon", "a:b@x.example", ErrSyntax},
		{"NUL", "a\x00@x.example", ErrSyntax},
		{"NUL in quotes", "\"a\x00\"@x.example", ErrSyntax},
		{"quoted NUL", "\"a\\\x00\"@x.example", ErrSyntax},
		{"CRLF", "a@x.example\r\n", ErrSyntax},
		{"tab in quotes", "\"a\tb\"@x.example", ErrSyntax},
		{"DEL", "a\x7f@x.example", ErrSyntax},
		{"malformed UTF-8 in the local part", "a\xff@x.example", ErrSyntax},
		{"overlong UTF-8", "a\xc0\xaf@x.example", ErrSyntax},
		{"malformed UTF-8 in the domain", "a@x\xff.example", ErrSyntax},
		{"C1 control", "a\u0085@x.example", ErrSyntax},
		{"false A-label", "a@xn--a-.example", ErrSyntax},
		{"A-label of plain ASCII", "a@xn--abc-.example", ErrSyntax},
		{"quote in the middle", `a"b"@x.example`, ErrSyntax},
		{"open quote", `"a@x.example`, ErrSyntax},
		{"quoted pair beyond ASCII", `"\é"@x.example`, ErrSyntax},
		{"literal without tag", "a@[2001:db8::1]", ErrSyntax},
		{"IPv4 with the tag", "a@[IPv6:192.0.2.1]", ErrSyntax},
		{"zone", "a@[IPv6:fe80::1%eth0]", ErrSyntax},
		{"open literal", "a@[192.0.2.1", ErrSyntax},
		{"after the literal", "a@[192.0.2.1]x", ErrSyntax},
		{"local part of 65", strings.Repeat("a", 65) + "@x.example", ErrTooLong},
		{"quoted local part of 65", `"` + strings.Repeat("a", 63) + `"@x.example`, ErrTooLong},
		{"label of 64", "a@a" + label + ".example", ErrTooLong},
		{"domain of 255", "a@" + strings.Repeat(label+".", 3) + label, ErrTooLong},
		{"mailbox of 255", strings.Repeat("a", 64) + "@" + strings.Repeat(label+".", 2) + strings.Repeat("a", 62), ErrTooLong},
		{"A-labels that are too long", "a@" + strings.Repeat("ü.", 30) + strings.Repeat(strings.Repeat("a", 58)+"ü.", 3) + "example", ErrTooLong},
		{"huge", "a@" + strings.Repeat("ü", 1<<20), ErrTooLong},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := Parse(tc.in); !errors.Is(err, tc.want) {
				t.Errorf("Parse(%.100q) = %+v, %v, want %v", tc.in, got, err, tc.want)
			}
		})
	}
}

func TestKey(t *testing.T) {
	for _, tc := range []struct {
		name  string
		same  []string
		other string // a different mailbox, if not empty
	}{
		{"case", []string{"Anna@Example.org", "anna@example.org", `"ANNA"@EXAMPLE.ORG`, `"\anna"@example.org`}, "anna@example.com"},
		{"normalization", []string{"j\u00fcrgen@x.example", "ju\u0308rgen@x.example", "JU\u0308RGEN@x.example"}, "jurgen@x.example"},
		{"full folding", []string{"straße@x.example", "STRASSE@x.example"}, "strase@x.example"},
		{"final sigma", []string{"ΣΊΣΥΦΟΣ@x.example", "σίσυφος@x.example"}, ""},
		{"order of combining marks", []string{"\u03b1\u0345\u0301@x.example", "\u03b1\u0301\u0345@x.example", "\u0391\u0301\u0345@x.example"}, ""},
		{"Cherokee", []string{"\u13a0\u13f0@x.example", "\uab70\u13f8@x.example"}, "\u13a1\u13f0@x.example"},
		{"domain", []string{"a@bücher.example", "a@xn--bcher-kva.example", "A@BÜCHER.example"}, "a@buecher.example"},
		{"full width is another mailbox", []string{"a@x.example"}, "ａ@x.example"},
		{"literal", []string{"a@[IPv6:2001:DB8:0::1]", "A@[ipv6:2001:db8::1]"}, "a@[IPv6:2001:db8::2]"},
		{"at in the local part", []string{`"b@c"@x.example`}, "b@c.example"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := mustParse(t, tc.same[0]).Key()
			for _, s := range tc.same[1:] {
				if got := mustParse(t, s).Key(); got != want {
					t.Errorf("Key of %s is %q, want %q", s, got, want)
				}
			}
			if tc.other != "" && mustParse(t, tc.other).Key() == want {
				t.Errorf("%s has the same Key", tc.other)
			}
		})
	}
}

func mustParse(t testing.TB, s string) Address {
	t.Helper()
	a, err := Parse(s)
	if err != nil {
		t.Fatalf("Parse(%q): %v", s, err)
	}
	return a
}

// TestFoldIsStable folds every character that has a case, a decomposition or a combining class, alone and between
// combining marks, twice.
func TestFoldIsStable(t *testing.T) {
	for r := rune(0x80); r <= unicode.MaxRune; r++ {
		p := norm.NFD.PropertiesString(string(r))
		if unicode.SimpleFold(r) == r && p.Decomposition() == nil && p.CCC() == 0 {
			continue
		}
		for _, s := range []string{string(r), "\u03b1\u0345" + string(r), string(r) + "\u0345\u0301"} {
			once := foldLocal(s)
			if twice := foldLocal(once); twice != once {
				t.Errorf("fold(%+q) = %+q, folded again %+q", s, once, twice)
			}
		}
	}
}

func TestForms(t *testing.T) {
	a := mustParse(t, "Jürgen@BÜCHER.example")
	if got := a.Unicode(); got != "Jürgen@bücher.example" {
		t.Errorf("Unicode() = %q", got)
	}
	if a.IsASCII() || !mustParse(t, "a@bücher.example").IsASCII() {
		t.Error("IsASCII is not decided by the local part")
	}
	if got := mustParse(t, "a@[192.0.2.1]").Unicode(); got != "a@[192.0.2.1]" {
		t.Errorf("Unicode() = %q", got)
	}
	var none Address
	if !none.IsZero() || none.String() != "" || none.Unicode() != "" || a.IsZero() {
		t.Error("the zero Address is not none")
	}
	if d := a.Domain; d.String() != d.ASCII() || d.IsZero() || !none.Domain.IsZero() {
		t.Error("Domain forms")
	}
}

func TestBase(t *testing.T) {
	for _, tc := range []struct {
		in, want string
		tagged   bool
	}{
		{"anna@x.example", "anna@x.example", false},
		{"anna+shop@x.example", "anna@x.example", true},
		{"anna+a+b@x.example", "anna@x.example", true},
		{"anna+@x.example", "anna@x.example", true},
		{"+anna@x.example", "+anna@x.example", false},
		{`"a b+c"@x.example`, `"a b"@x.example`, true},
	} {
		got, tagged := mustParse(t, tc.in).Base('+')
		if got.String() != tc.want || tagged != tc.tagged {
			t.Errorf("Base of %s = %s, %t, want %s, %t", tc.in, got, tagged, tc.want, tc.tagged)
		}
	}
}

func BenchmarkKey(b *testing.B) {
	for _, s := range []string{"anna@example.org", "Anna@example.org", "jürgen@example.org"} {
		a := mustParse(b, s)
		b.Run(s, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = a.Key()
			}
		})
	}
}
