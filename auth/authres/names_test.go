package authres

import (
	"strings"
	"testing"
)

func TestServID(t *testing.T) {
	for _, tc := range []struct {
		body, want string
		ok         bool
	}{
		{" mail.example.org; none", "mail.example.org", true},
		{"mail.example.org", "mail.example.org", true},
		{"Mail.Example.Org.\r\n\t1;", "Mail.Example.Org.", true},
		{"(a (b) \\) c)\r\n mail.example.org(d); none", "mail.example.org", true},
		{`"mail\.example.org" 1; none`, "mail.example.org", true},
		{"bücher.example; none", "bücher.example", true},
		{"mail.example.org garbage ( ; \"", "mail.example.org", true},
		{"", "", false},
		{" ; none", "", false},
		{"(mail.example.org; none", "", false},
		{`"mail.example.org; none`, "", false},
		{`"mail"example.org; none`, "mail", false},
		{`""; none`, "", false},
		{"spf=pass smtp.mailfrom=a@mail.example.org", "spf=pass", false},
		{"mail.example.org\"; none", "mail.example.org\"", false},
		{"mail\x00; none", "mail\x00", false},
		{"mail\xff; none", "mail\xff", false},
	} {
		if got, ok := ServID(tc.body); got != tc.want || ok != tc.ok {
			t.Errorf("%q: %q, %t, want %q, %t", tc.body, got, ok, tc.want, tc.ok)
		}
	}
}

func TestNames(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		want       bool
	}{
		{"plain", "mail.example.org; spf=pass", true},
		{"none", "mail.example.org; none", true},
		{"alone", "mail.example.org", true},
		{"upper case", "MAIL.Example.ORG; spf=pass", true},
		{"dot at the end", "mail.example.org.; spf=pass", true},
		{"version", "mail.example.org 1; spf=pass", true},
		{"folded version", "mail.example.org\r\n\t1\r\n\t; spf=pass", true},
		{"folded", "\r\n mail.example.org;\r\n spf=pass", true},
		{"bare LF", "\n\tmail.example.org\n ; spf=pass", true},
		{"comment before", "(x) mail.example.org; spf=pass", true},
		{"nested comment before", "(x (y) \\) z) mail.example.org; spf=pass", true},
		{"folded comment before", "(x\r\n y)\r\n mail.example.org; spf=pass", true},
		{"comment after", "mail.example.org(x); spf=pass", true},
		{"other name in a comment", "(mx.example.net; none) mail.example.org; spf=pass", true},
		{"quoted", `"mail.example.org"; spf=pass`, true},
		{"quoted with backslashes", `"m\ail\.example.org" 1; spf=pass`, true},
		{"quoted with blanks", `" mail.example.org "; spf=pass`, true},
		{"quoted with semicolon", `"mail.example.org; x"; spf=pass`, true},
		{"quoted in pieces", `"mail".example.org; spf=pass`, true},
		{"quoted and folded", "\"mail.example\r\n .org\"; spf=pass", true},
		{"quote without end", `"mail.example.org; spf=pass`, true},
		{"quote without end, backslashes", `"ma\il.exam\ple.org; spf=pass`, true},
		{"quote without beginning", `mail.example.org"; spf=pass`, true},
		{"comment without end", "(x mail.example.org; spf=pass", true},
		{"comment without end after", "mail.example.org (x; spf=pass", true},
		{"comment without beginning", "x) mail.example.org; spf=pass", true},
		{"for readers that do not nest", "((a) mail.example.org; (b)) mx.example.net; spf=pass", true},
		{"for readers without escapes", `(a\) mail.example.org; b) mx.example.net; spf=pass`, true},
		{"comment inside", "mail.(x)example.org; spf=pass", true},
		{"blanks inside", "mail . example . org 1; spf=pass", true},
		{"fold inside", "mail.exam\r\n ple.org; spf=pass", true},
		{"NUL inside", "mail.exa\x00mple.org; spf=pass", true},
		{"NUL before", "\x00mail.example.org; spf=pass", true},
		{"control inside", "mail.exam\x01ple.org; spf=pass", true},
		{"no semicolon", "mail.example.org spf=pass", true},
		{"no blank", "mail.example.org/1; spf=pass", true},
		{"comma", "mail.example.org, x; spf=pass", true},
		{"brackets", "<mail.example.org>; spf=pass", true},
		{"curly quotes", "“mail.example.org”; spf=pass", true},
		{"equals", "=mail.example.org; spf=pass", true},
		{"semicolon first", "; mail.example.org; spf=pass", true},
		{"second word", "mx.example.net mail.example.org; spf=pass", true},
		{"wide letters", "ｍａｉｌ.example.org; spf=pass", true},
		{"ideographic full stop", "mail.example。org; spf=pass", true},
		{"soft hyphen", "mail.exam\u00adple.org; spf=pass", true},
		{"no-break space", "\u00a0mail.example.org\u00a0; spf=pass", true},
		{"encoded word", "=?utf-8?q?mail.example.org?=; spf=pass", true},
		{"not UTF-8", "mail.example.org\xff; spf=pass", true},
		{"very long comment", "(" + strings.Repeat("x", maxBody) + ") mail.example.org; spf=pass", true},
		{"no authserv-id, our name elsewhere", "spf=pass smtp.helo=mail.example.org", true},

		{"other", "mx.example.net; spf=pass", false},
		{"empty", "", false},
		{"longer", "mail.example.org.evil.example; spf=pass", false},
		{"longer without dot", "mail.example.orgx; spf=pass", false},
		{"subdomain", "a.mail.example.org; spf=pass", false},
		{"hyphen before", "x-mail.example.org; spf=pass", false},
		{"parent", "example.org; spf=pass", false},
		{"in a value", "mx.example.net; spf=pass smtp.helo=mail.example.org", false},
		{"in a quoted value", `mx.example.net; spf=pass smtp.helo="; mail.example.org; spf=pass"`, false},
		{"in an address", "mx.example.net; spf=pass smtp.mailfrom=a@mail.example.org", false},
		{"in a comment", "mx.example.net; spf=pass (mail.example.org: sender is allowed)", false},
		{"in a comment before", "(for mail.example.org) mx.example.net; spf=pass", false},
		{"in a comment after", "mx.example.net (mail.example.org) 1; spf=pass", false},
		{"no semicolon", "mx.example.net spf=pass smtp.mailfrom=a@mail.example.org", false},
		{"later comment without end", "mx.example.net; spf=pass (mail.example.org", false},
		{"without end, no name", "(mx.example.net; spf=pass", false},
		{"quoted other", `"mx.example.net"; spf=pass smtp.helo=mail.example.org`, false},
		{"very long", "mx.example.net; " + strings.Repeat("x", maxBody), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, hostname := range []string{"mail.example.org", "Mail.Example.Org."} {
				if got := Names(tc.body, hostname); got != tc.want {
					t.Errorf("%.80q from %s: %t, want %t", tc.body, hostname, got, tc.want)
				}
			}
		})
	}
}

func TestNamesOtherForms(t *testing.T) {
	for _, tc := range []struct {
		body, hostname string
		want           bool
	}{
		{"xn--bcher-kva.example; none", "bücher.example", true},
		{"XN--BCHER-KVA.example.; none", "bücher.example", true},
		{"BÜCHER.example; none", "xn--bcher-kva.example", true},
		{"bu\u0308cher.example; none", "xn--bcher-kva.example", true},
		{"\"bücher.example\" 1; none", "xn--bcher-kva.example", true},
		{"bücher . example; none", "xn--bcher-kva.example", true},
		{"\"(bu\u0308cher.example", "xn--bcher-kva.example", true},
		{"\"(Bücher.example", "xn--bcher-kva.example", true},
		{"bucher.example; none", "bücher.example", false},
		{"host_1.example; none", "host_1.example", true},
		{"HOST_1; none", "host_1", true},
		{"host_2; none", "host_1", false},
		{"localhost; none", "localhost", true},
		{"mail.example.org; none", "", false},
		{"mail.example.org; none", ".", false},
	} {
		if got := Names(tc.body, tc.hostname); got != tc.want {
			t.Errorf("%q from %q: %t, want %t", tc.body, tc.hostname, got, tc.want)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range hostile[:60] {
		f.Add(s, s)
	}
	f.Add("(x\r\n y) \"mail.example.org\" 1; none", "(mail.example.org)")
	f.Fuzz(func(t *testing.T, body, noise string) {
		const hostname = "mail.example.org"
		id, ok := ServID(body)
		named := Names(body, hostname)
		if ok && strings.EqualFold(strings.TrimSuffix(id, "."), hostname) && !named {
			t.Fatalf("%q has the authserv-id %q and is not found", body, id)
		}
		if !ok && strings.Contains(strings.ToLower(body), hostname) && !named {
			t.Fatalf("%q cannot be read, holds the name, and is not found", body)
		}
		if field, err := Parse(body); err == nil && strings.EqualFold(field.ServID, hostname) && !named {
			t.Fatalf("%q is read as ours and is not found", body)
		}
		ours := string(Field{hostname, []Result{{Method: "spf", Value: "pass", Comment: noise, Reason: body}}}.Append(nil))
		if !Names(strings.TrimPrefix(ours, "Authentication-Results:"), hostname) {
			t.Fatalf("our own %q is not found", ours)
		}
		other := string(Field{"mx.example.net", []Result{{Method: "spf", Value: "pass", Comment: noise, Reason: body}}}.Append(nil))
		if Names(strings.TrimPrefix(other, "Authentication-Results:"), hostname) {
			t.Fatalf("another's %q is taken for ours", other)
		}
	})
}
