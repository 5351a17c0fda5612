package auth

import (
	"strings"
	"testing"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/message"
)

func headerOf(t testing.TB, fields string) *message.Header {
	t.Helper()
	h, err := message.ReadHeader(strings.NewReader(fields+"\r\n\r\n"), message.HeaderLimits{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestReadAuthor(t *testing.T) {
	for _, tc := range []struct{ name, fields, domain, problem string }{
		{"ordinary", "From: Anna <anna@Example.ORG>", "example.org", ""},
		{"several authors of one domain", "From: a@example.org, b@example.org", "example.org", ""},
		{"international", "From: a@bücher.example", "xn--bcher-kva.example", ""},
		{"the same in A-labels", "From: a@xn--bcher-kva.example, b@BÜCHER.example", "xn--bcher-kva.example", ""},
		{"final dot", "From: a@example.org.", "example.org", ""},
		{"no field", "To: a@example.org", "", "missing"},
		{"empty field", "From: ", "", "missing"},
		{"two fields", "From: a@example.org\r\nfrom: a@example.org", "", "several fields"},
		{"the second with a blank before the colon", "From: a@example.org\r\nFrom : b@example.net", "", "several fields"},
		{"two domains", "From: a@example.org, b@example.net", "", "several domains"},
		{"a domain and one below", "From: a@example.org, b@sub.example.org", "", "several domains"},
		{"no address", "From: Anna", "", "unreadable"},
		{"empty group", "From: undisclosed:;", "", "unreadable"},
		{"address literal", "From: a@[192.0.2.1]", "", "unreadable"},
		{"encoded address", "From: =?utf-8?q?anna=40example=2Eorg?=", "", "unreadable"},
		{"encoded domain", "From: anna@=?utf-8?q?example=2Eorg?=", "", "unreadable"},
		{"two addresses in one", "From: <a@example.org> <b@example.net>", "", "unreadable"},
		{"two at signs", "From: a@example.org@example.net", "", "unreadable"},
		{"NUL", "From: a@example.org\x00.example.net", "", "unreadable"},
		{"NUL in the name", "From: \"a\x00\" <a@example.org>", "", "unreadable"},
		{"open comment", "From: a@example.org (", "", "unreadable"},
	} {
		a := ReadAuthor(headerOf(t, tc.fields))
		if a.Domain.ASCII() != tc.domain || string(a.Problem) != tc.problem || a.Deceptive != "" {
			t.Errorf("%s: %q, %q, %q", tc.name, a.Domain, a.Problem, a.Deceptive)
		}
	}
}

// TestDeception has tricks, and honest names that resemble them.
func TestDeception(t *testing.T) {
	for _, tc := range []struct {
		from string
		want string // a part of the reason; "" for an honest one
	}{
		{`Anna <anna@evil.example>`, ""},
		{`"anna@evil.example" <anna@evil.example>`, ""},
		{`"anna@sub.evil.example" <anna@evil.example>`, ""},
		{`"anna@evil.example" <anna@mail.evil.example>`, ""},
		{`"Anna @ Work" <anna@evil.example>`, ""},
		{`"@anna" <anna@evil.example>`, ""},
		{`"Anna (anna at example.org)" <anna@evil.example>`, ""},
		{`"anna@example.org" <x@evil.example>`, "another domain"},
		{`anna@example.org via List <x@evil.example>`, "unreadable"},
		{`"anna@example.org via List" <x@evil.example>`, "another domain"},
		{`"<anna@example.org>" <x@evil.example>`, "another domain"},
		{`x@evil.example (anna@example.org)`, "another domain"},
		{`(anna@example.org) x@evil.example`, "another domain"},
		{`x@evil.example (=?utf-8?q?anna=40example.org?=)`, "another domain"},
		{`=?utf-8?q?anna=40example=2Eorg?= <x@evil.example>`, "another domain"},
		{`=?utf-8?b?YW5uYUBleGFtcGxlLm9yZw==?= <x@evil.example>`, "another domain"},
		{`=?iso-8859-1?q?anna=40example=2Eorg?= <x@evil.example>`, "another domain"},
		{`"=?utf-8?q?anna=40example=2Eorg?=" <x@evil.example>`, "another domain"},
		{`=?utf-8?q?anna=40?= =?utf-8?q?example=2Eorg?= <x@evil.example>`, "another domain"},
		{`"anna＠example.org" <x@evil.example>`, "another domain"},
		{`"anna﹫example．org" <x@evil.example>`, "another domain"},
		{"\"anna@\u200bexample.org\" <x@evil.example>", "another domain"},
		{"\"anna@exam\u00adple.org\" <x@evil.example>", "another domain"},
		{`"anna@ example.org" <x@evil.example>`, "another domain"},
		{`"anna@example.org"@evil.example`, "another domain"},
		{"\"\u202egro.elpmaxe@anna\" <x@evil.example>", "direction"},
		{"\"a\u2066b\" <x@evil.example>", "direction"},
		{`x@exаmple.org`, "imitates"},        // Cyrillic а
		{`x@xn--exmple-4nf.org`, "imitates"}, // the same as it travels
		{`x@раураӏ.com`, "imitates"},         // all Cyrillic
		{`x@ο.com`, "imitates"},              // Greek
		{`x@почта.example`, ""},              // Cyrillic, and only that
		{`x@москва.рф`, ""},
		{`x@bücher.example`, ""},
		{`x@例え.example`, ""},
	} {
		a := ReadAuthor(headerOf(t, "From: "+tc.from))
		got := a.Deceptive + string(a.Problem)
		if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.from, got, tc.want)
		}
	}
}

func TestRelated(t *testing.T) {
	domain := func(s string) addr.Domain {
		d, err := addr.ParseDomain(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"example.org", "example.org", true},
		{"a.example.org", "example.org", true},
		{"example.org", "b.example.org", true},
		{"a.example.org", "b.example.org", false},
		{"evilexample.org", "example.org", false},
	} {
		if got := related(domain(tc.a), domain(tc.b)); got != tc.want {
			t.Errorf("%s, %s: %t", tc.a, tc.b, got)
		}
	}
}
