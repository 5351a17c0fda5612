package message

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestParseMailboxes(t *testing.T) {
	for _, tc := range []struct{ value, want string }{
		{`anna@example.org`, `[|anna|example.org]`},
		{`<anna@example.org>`, `[|anna|example.org]`},
		{`Anna <anna@example.org>`, `[Anna|anna|example.org]`},
		{`"Anna, the first" <anna@example.org>, ben@example.net`, `[Anna, the first|anna|example.org] [|ben|example.net]`},
		{`John Q. Public <john@example.org>`, `[John Q. Public|john|example.org]`},
		{`Grüße <g@example.org>`, `[Grüße|g|example.org]`},
		{`=?utf-8?q?Gr=C3=BC=C3=9Fe?= <g@example.org>`, `[Grüße|g|example.org]`},
		{`"=?utf-8?q?a=40b?=" <g@example.org>`, `[a@b|g|example.org]`},
		{`=?x-unknown?q?a?= <g@example.org>`, `[=?x-unknown?q?a?=|g|example.org]`},
		{`anna@example.org (Anna (the first))`, `[|anna|example.org](Anna (the first))`},
		{`(x)anna(y)@(z)example.org`, `[|anna|example.org](x)(y)(z)`},
		{`a@b.example(\) c)`, `[|a|b.example](\) c)`},
		{`"a b"@example.org`, `[|a b|example.org]`},
		{`"a\"b" <"c\\d"@example.org>`, `[a"b|c\d|example.org]`},
		{`<@a.example,@b.example:c@d.example>`, `[|c|d.example]`},
		{`x <a . b @ c . d>`, `[x|a.b|c.d]`},
		{`<a."b".c@d.example>`, `[|a.b.c|d.example]`},
		{`a@[192.0.2.1]`, `[|a|[192.0.2.1]]`},
		{`friends: a@b.example, C <c@d.example>;`, `[|a|b.example] [C|c|d.example]`},
		{`undisclosed-recipients:;`, ``},
		{`, a@b.example, ,`, `[|a|b.example]`},
		{`a..b@c.example`, `[|a..b|c.example]`},
		{``, ``},
	} {
		got, err := ParseMailboxes(tc.value)
		if s := show(got); s != tc.want || err != nil {
			t.Errorf("%q: %s, %v; want %s", tc.value, s, err, tc.want)
		}
	}
}

func show(list []Mailbox) string {
	var all []string
	for _, m := range list {
		s := fmt.Sprintf("[%s|%s|%s]", m.Name, m.Local, m.Domain)
		for _, c := range m.Comments {
			s += "(" + c + ")"
		}
		all = append(all, s)
	}
	return strings.Join(all, " ")
}

// TestParseMailboxesRefuses has what cannot be read without guessing.
func TestParseMailboxesRefuses(t *testing.T) {
	for _, value := range []string{
		`anna`, `Anna <anna>`, `<>`, `<a@b.example`, `a@b.example>`, `Anna <a@b.example> <c@d.example>`, `<a@b.example> Anna`,
		`Anna ben@example.org`, `a@b@c.example`, `a@b.example c@d.example`, `"anna`, `(anna`, `a@b.example (`, `a@`, `@b.example`,
		"a@b.example\x00", "\"a\x00\" <a@b.example>", "(\x00) <a@b.example>", `a@[192.0.2.1`, `x: a@b.example`, `x: y: a@b.example;`, `;`,
		`: a@b.example;`, `<a b@c.example>`, `<@a.example a@b.example>`, `<"a@b.example>`, `<a@b.example, c@d.example>`, `.a@b.example`,
		`a@.b.example`, `a)b@c.example`, `\a@b.example`, `a@b.example;`, strings.Repeat("a@b.example,", 1001),
	} {
		if got, err := ParseMailboxes(value); !errors.Is(err, ErrMailboxes) {
			t.Errorf("%.80q: %s, %v", value, show(got), err)
		}
	}
}

func FuzzParseMailboxes(f *testing.F) {
	for _, value := range []string{`"A" <a@b.example>, (c) d@e.example`, `g: a@b, c@d;`, `<@a,@b:c@d>`, `=?utf-8?b?YQ==?= <a@b>`, `"a\`, `((((`} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		list, err := ParseMailboxes(value)
		for _, m := range list {
			if m.Domain == "" || strings.ContainsAny(m.Domain, " \t\r\n\x00()<>,;:@\"") && m.Domain[0] != '[' {
				t.Errorf("%q: domain %q", value, m.Domain)
			}
		}
		if err == nil && strings.IndexByte(value, 0) >= 0 && !strings.Contains(value, "[") {
			t.Errorf("%q: a NUL was taken", value)
		}
	})
}
