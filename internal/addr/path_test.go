package addr

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		out      string // String
		rest     string
		flags    Path // without its Address
	}{
		{"mailbox", "<anna@example.org>", "<anna@example.org>", "", Path{}},
		{"parameters", "<anna@example.org> SIZE=100 BODY=8BITMIME", "<anna@example.org>", "SIZE=100 BODY=8BITMIME", Path{}},
		{"several blanks", "<anna@example.org>   SIZE=100 ", "<anna@example.org>", "SIZE=100 ", Path{}},
		{"trailing blank", "<anna@example.org> ", "<anna@example.org>", "", Path{}},
		{"null", "<>", "<>", "", Path{Null: true}},
		{"null with parameters", "<> SIZE=1", "<>", "SIZE=1", Path{Null: true}},
		{"postmaster", "<postmaster>", "<postmaster>", "", Path{Postmaster: true}},
		{"postmaster in any case", "<PostMaster> NOTIFY=NEVER", "<postmaster>", "NOTIFY=NEVER", Path{Postmaster: true}},
		{"postmaster at a domain is a mailbox", "<postmaster@x.example>", "<postmaster@x.example>", "", Path{}},
		{"source route", "<@a.example,@b.example:anna@x.example> SIZE=1", "<anna@x.example>", "SIZE=1", Path{SourceRoute: true}},
		{"source route of one host", "<@a.example:anna@x.example>", "<anna@x.example>", "", Path{SourceRoute: true}},
		{"bracket in quotes", `<"a>b c"@x.example> SIZE=1`, `<"a>b c"@x.example>`, "SIZE=1", Path{}},
		{"literal", "<anna@[192.0.2.1]>", "<anna@[192.0.2.1]>", "", Path{}},
		{"UTF-8 local part", "<jürgen@x.example>", "<jürgen@x.example>", "", Path{UTF8: true}},
		{"U-label", "<a@bücher.example>", "<a@xn--bcher-kva.example>", "", Path{UTF8: true}},
		{"U-label in the source route", "<@bücher.example:a@x.example>", "<a@x.example>", "", Path{UTF8: true, SourceRoute: true}},
		{"UTF-8 in the parameters", "<a@x.example> ORCPT=ü", "<a@x.example>", "ORCPT=ü", Path{}},
		{"path of 256", longPath(256), longPath(256), "", Path{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, rest, err := ParsePath(tc.in)
			if err != nil || p.String() != tc.out || rest != tc.rest {
				t.Fatalf("ParsePath(%q) = %s, %q, %v, want %s, %q", tc.in, p, rest, err, tc.out, tc.rest)
			}
			if p.Address = (Address{}); p != tc.flags {
				t.Errorf("flags %+v, want %+v", p, tc.flags)
			}
		})
	}
}

// longPath is a path of n octets, 193 to 256.
func longPath(n int) string {
	label := strings.Repeat("a", 63) + "."
	domain := strings.Repeat(label, 3)[:n-len("<@>")-64]
	return "<" + strings.Repeat("l", 64) + "@" + strings.TrimSuffix(domain, ".") + ">"
}

func TestParsePathRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     error
	}{
		{"empty", "", ErrSyntax},
		{"no brackets", "anna@x.example", ErrSyntax},
		{"leading blank", " <anna@x.example>", ErrSyntax},
		{"open", "<anna@x.example", ErrSyntax},
		{"only an open bracket", "<", ErrSyntax},
		{"blank inside", "< >", ErrSyntax},
		{"blanks inside", "< anna@x.example >", ErrSyntax},
		{"no domain", "<anna>", ErrSyntax},
		{"empty domain", "<anna@>", ErrSyntax},
		{"no blank before the parameters", "<anna@x.example>SIZE=1", ErrSyntax},
		{"no blank after null", "<>SIZE=1", ErrSyntax},
		{"two brackets", "<<anna@x.example>>", ErrSyntax},
		{"name before", "Anna <anna@x.example>", ErrSyntax},
		{"NUL", "<an\x00na@x.example>", ErrSyntax},
		{"source route without end", "<@a.example,@b.example>", ErrSyntax},
		{"source route without mailbox", "<@a.example:>", ErrSyntax},
		{"source route to postmaster", "<@a.example:postmaster>", ErrSyntax},
		{"source route without host", "<@:a@x.example>", ErrSyntax},
		{"source route, comma only", "<@a.example,:a@x.example>", ErrSyntax},
		{"source route, bad host", "<@a_b:a@x.example>", ErrSyntax},
		{"path of 257", "<@a.example:" + longPath(246)[1:], ErrTooLong},
		{"source routes without bound", "<" + strings.Repeat("@a.example,", 200) + "@b.example:a@x.example>", ErrTooLong},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if p, rest, err := ParsePath(tc.in); !errors.Is(err, tc.want) {
				t.Errorf("ParsePath(%q) = %s, %q, %v, want %v", tc.in, p, rest, err, tc.want)
			}
		})
	}
}

func TestDirections(t *testing.T) {
	if _, _, err := ParseReversePath("<postmaster>"); !errors.Is(err, ErrSyntax) {
		t.Errorf("MAIL FROM:<postmaster>: %v", err)
	}
	if p, _, err := ParseReversePath("<>"); err != nil || !p.Null {
		t.Errorf("MAIL FROM:<>: %v", err)
	}
	if _, _, err := ParseForwardPath("<>"); !errors.Is(err, ErrSyntax) {
		t.Errorf("RCPT TO:<>: %v", err)
	}
	if p, _, err := ParseForwardPath("<postmaster>"); err != nil || !p.Postmaster {
		t.Errorf("RCPT TO:<postmaster>: %v", err)
	}
}

func BenchmarkParsePath(b *testing.B) {
	for _, bc := range []struct{ name, in string }{
		{"plain", "<anna.karenina@mail.example.org> SIZE=12345 BODY=8BITMIME"},
		{"upper", "<Anna@Example.ORG>"},
		{"quoted", `<"anna k"@example.org>`},
		{"ulabel", "<anna@bücher.example>"},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := ParsePath(bc.in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestPathInJSON shows a path as it is written, not as it is kept.
func TestPathInJSON(t *testing.T) {
	for _, text := range []string{"<>", "<postmaster>", "<anna@example.org>"} {
		p, _, err := ParsePath(text)
		if err != nil {
			t.Fatal(err)
		}
		var back []string
		if b, err := json.Marshal([]Path{p}); err != nil || json.Unmarshal(b, &back) != nil || len(back) != 1 || !strings.EqualFold(back[0], text) {
			t.Errorf("%s: %s, %v", text, b, err)
		}
	}
}
