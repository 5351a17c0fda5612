package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// addresses are recipients, and the reply that each gets from the installation of confusing.
var addresses = []struct{ address, reply string }{
	{"anna@example.org", "250 2.1.5"},
	{"ANNA@EXAMPLE.ORG", "250 2.1.5"},
	{`"anna"@example.org`, "250 2.1.5"},
	{"anna+shop@example.org", "250 2.1.5"},
	{"anna+@example.org", "250 2.1.5"},
	{"+anna@example.org", "550 5.1.1"},
	{"nobody@example.org", "550 5.1.1"},
	{"gone@example.org", "550 5.1.1"},
	{"off@example.org", "250 2.1.5"},
	{"full@example.org", "452 4.2.2"},
	{"full+tag@example.org", "452 4.2.2"},
	{"heap@example.org", "452 4.2.2"},
	{"info@example.org", "250 2.1.5"},
	{"all+x@example.org", "250 2.1.5"},
	{"postmaster", "250 2.1.5"},
	{"PostMaster", "250 2.1.5"},
	{"postmaster@example.org", "250 2.1.5"},
	{"abuse@bücher.example", "250 2.1.5"},
	{"postmaster@nobody.example", "451 4.3.0"},
	{"abuse@nobody.example", "451 4.3.0"},
	{"anna@nobody.example", "550 5.1.1"},
	{"anyone@open.example", "250 2.1.5"},
	{"a%b@open.example", "550 5.7.1"},
	{"a!b@open.example", "550 5.7.1"},
	{`"a@b"@open.example`, "550 5.7.1"},
	{`"a@b.example"@example.org`, "550 5.7.1"},
	{`"postmaster@b.example"@example.org`, "550 5.7.1"},
	{"user%other.example@example.org", "550 5.7.1"},
	{`"b c"@plain.example`, "250 2.1.5"},
	{`"b\ c"@plain.example`, "250 2.1.5"},
	{`"b c+x"@plain.example`, "550 5.1.1"},
	{"jürgen@bücher.example", "250 2.1.5"},
	{"JÜRGEN@xn--bcher-kva.example", "250 2.1.5"},
	{"jürgen-x@bücher.example", "250 2.1.5"},
	{"jürgen+x@bücher.example", "550 5.1.1"},
	{"someone@other.example", "550 5.7.1"},
	{"someone@[127.0.0.1]", "550 5.7.1"},
	{"someone@[IPv6:::1]", "550 5.7.1"},
	{"@relay.example:anna@example.org", "250 2.1.5"},
	{"@a.example,@b.example:someone@other.example", "550 5.7.1"},
}

// confusing serves a little of everything that an address can lead to.
func confusing(t *testing.T) *running {
	t.Helper()
	in := settled(t)
	for _, args := range []string{
		"domain add bücher.example", "domain add nobody.example", "domain add open.example", "domain add plain.example",
		"account add jürgen@bücher.example --generate",
		"account add off@example.org --generate", "account disable off@example.org",
		"account add gone@example.org --generate", "account remove gone@example.org",
		"account add full@example.org --generate --quota 300",
		"alias add info@example.org anna@example.org", "alias add all@example.org info@example.org ben@example.org",
		"alias add heap@example.org anna@example.org full@example.org",
		"account add first@open.example --generate", "domain set open.example --catch-all anna@example.org",
		"domain set plain.example --no-plus", "domain set bücher.example --plus -",
	} {
		in.must("", strings.Fields(args)...)
	}
	in.must("", "account", "add", `"b c"@plain.example`, "--generate")
	r := in.serve()
	d := r.smtp()
	d.reply("MAIL FROM:<ben@elsewhere.example>")
	d.reply("RCPT TO:<full@example.org>")
	d.reply("DATA")
	if reply := d.reply("From: ben@elsewhere.example\r\nSubject: " + strings.Repeat("x", 400) + "\r\n\r\n."); !strings.HasPrefix(reply, "250 ") {
		t.Fatalf("the letter that fills the mailbox: %s", reply)
	}
	return r
}

// TestResolveAgreesWithRCPT asks both for each address, and wants the same reply.
func TestResolveAgreesWithRCPT(t *testing.T) {
	r := confusing(t)
	for _, tc := range addresses {
		t.Run(tc.address, func(t *testing.T) {
			asked := r.try("", "resolve", tc.address, "--json")
			var shown shownRoute
			if err := json.Unmarshal([]byte(asked.stdout), &shown); err != nil {
				t.Fatalf("%v: %q %q", err, asked.stdout, asked.stderr)
			}
			answered := r.rcpt("<" + tc.address + ">")
			if shown.Reply != answered || !strings.HasPrefix(answered, tc.reply) {
				t.Errorf("resolve says %q, RCPT answers %q, want %q", shown.Reply, answered, tc.reply)
			}
			accepted := strings.HasPrefix(answered, "250")
			if shown.Accepted != accepted || (asked.status == statusDone) != accepted || len(shown.Steps) == 0 {
				t.Errorf("status %d, %+v for %q", asked.status, shown, answered)
			}
		})
	}
}

// TestNeitherTakesWhatIsNoAddress has the syntax errors, which are wrong usage for one and 501 for the other.
func TestNeitherTakesWhatIsNoAddress(t *testing.T) {
	r := settled(t).serve()
	for _, address := range []string{"", "anna", "anna@", "@example.org", "a b@example.org", "anna@example.org> SIZE=1", "anna@under_score.org"} {
		t.Run("<"+address+">", func(t *testing.T) {
			oneSentence(t, r.try("", "resolve", address), statusUsage, "`postroom resolve --help`")
			if answered := r.rcpt("<" + address + ">"); !strings.HasPrefix(answered, "501 5.1.3") && !strings.HasPrefix(answered, "555 ") {
				t.Errorf("RCPT answers %q", answered)
			}
		})
	}
}
