package authres

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestAppend(t *testing.T) {
	for _, tc := range []struct {
		name  string
		field Field
		want  []string // lines
	}{
		{"no results", Field{ServID: "mail.example.org"}, []string{"Authentication-Results: mail.example.org; none"}},
		{"several", Field{"mail.example.org", []Result{
			{Method: "spf", Value: "pass", Properties: []Property{{"smtp", "mailfrom", "sam@example.net"}}},
			{Method: "dkim", Value: "fail", Reason: "body hash", Properties: []Property{
				{"header", "d", "example.net"}, {"header", "b", "AbC/d+e="}}},
			{Method: "iprev", Value: "pass", Properties: []Property{{"policy", "iprev", "2001:db8::1"}}},
			{Method: "dmarc", Value: "pass", Comment: "p=reject", Properties: []Property{{"header", "from", "example.net"}}},
		}}, []string{
			"Authentication-Results: mail.example.org;",
			"\tspf=pass smtp.mailfrom=sam@example.net;",
			"\tdkim=fail reason=\"body hash\" header.d=example.net header.b=\"AbC/d+e=\";",
			"\tiprev=pass policy.iprev=\"2001:db8::1\";",
			"\tdmarc=pass (p=reject) header.from=example.net",
		}},
		{"folds between words and properties", Field{"a", []Result{{
			Method: "spf", Value: "softfail",
			Comment:    "the domain of sam@example.net does not designate 192.0.2.1 as a permitted sender of mail",
			Properties: []Property{{"smtp", "mailfrom", "sam@example.net"}, {"smtp", "helo", strings.Repeat("h", 60) + ".example"}},
		}}}, []string{
			"Authentication-Results: a;",
			"\tspf=softfail (the domain of sam@example.net does not designate 192.0.2.1 as",
			"\ta permitted sender of mail) smtp.mailfrom=sam@example.net",
			"\tsmtp.helo=" + strings.Repeat("h", 60) + ".example",
		}},
		{"line of 78 with its semicolon", Field{"a", []Result{
			{Method: "spf", Value: "pass", Properties: []Property{{"smtp", "helo", strings.Repeat("h", 57)}}},
			{Method: "spf", Value: "pass", Properties: []Property{{"smtp", "helo", strings.Repeat("h", 58)}}},
		}}, []string{
			"Authentication-Results: a;",
			"\tspf=pass smtp.helo=" + strings.Repeat("h", 57) + ";",
			"\tspf=pass",
			"\tsmtp.helo=" + strings.Repeat("h", 58),
		}},
		{"values", Field{"a", []Result{{Method: "x", Value: "pass", Properties: []Property{
			{"p", "null", ""}, {"p", "domain", "@example.org"}, {"p", "host", "sam@localhost"}, {"p", "ip", "sam@[192.0.2.1]"},
			{"p", "dots", "a..b@example.org"}, {"p", "batv", "prvs=1=a@example.org"}, {"p", "two", "a@b@example.org"},
			{"p", "utf8", "jürgen@example.org"}, {"p", "idn", "a@bücher.example"}, {"p", "bad", "a\xff\xfeb"},
			{"p", "quote", `"a b"@example.org`},
		}}}}, []string{
			"Authentication-Results: a;",
			"\tx=pass p.null=\"\" p.domain=@example.org p.host=\"sam@localhost\"",
			"\tp.ip=\"sam@[192.0.2.1]\" p.dots=\"a..b@example.org\"",
			"\tp.batv=\"prvs=1=a@example.org\" p.two=\"a@b@example.org\"",
			"\tp.utf8=\"jürgen@example.org\" p.idn=\"a@bücher.example\" p.bad=\"a?b\"",
			"\tp.quote=\"\\\"a b\\\"@example.org\"",
		}},
		{"keywords", Field{"a", []Result{{Method: "s pf", Value: "pass;", Properties: []Property{
			{"smtp.x", "helo", "1"}, {"smtp", "", "2"}, {"smtp", "x-", "3"}, {"", "x", "4"}, {"x", "y", "5"}}},
			{Method: strings.Repeat("m", 65), Value: ""}}}, []string{
			"Authentication-Results: a;",
			"\tunknown=permerror x.y=5;",
			"\tunknown=permerror",
		}},
		{"comment and reason", Field{"a", []Result{
			{Method: "spf", Value: "none", Comment: "a) (b\\ \r\n\x00\tc\u00a0d", Reason: "e\r\n f\"g\\"},
			{Method: "spf", Value: "none", Comment: " \r\n", Reason: "\x00"}}}, []string{
			"Authentication-Results: a;",
			"\tspf=none (a\\) \\(b\\\\ c d) reason=\"e f\\\"g\\\\\";",
			"\tspf=none",
		}},
		{"no authserv-id", Field{ServID: " \r\n"}, []string{"Authentication-Results: unknown; none"}},
		{"odd authserv-id", Field{ServID: "a@example.org; spf=pass"}, []string{
			"Authentication-Results: \"a@example.org; spf=pass\"; none"}},
		{"address as reason", Field{"a", []Result{{Method: "x", Value: "y", Reason: "a@example.org"}}}, []string{
			"Authentication-Results: a;", "\tx=y reason=\"a@example.org\""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := string(tc.field.Append([]byte("before ")))
			want := "before " + strings.Join(tc.want, "\r\n") + "\r\n"
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			check(t, tc.field)
		})
	}
}

func TestAppendBounds(t *testing.T) {
	f := Field{ServID: strings.Repeat("s", 2000)}
	for range 100 {
		r := Result{Method: "spf", Value: "pass", Comment: strings.Repeat("(", 2000), Reason: strings.Repeat("ü", 2000)}
		for range 100 {
			r.Properties = append(r.Properties, Property{"smtp", "helo", strings.Repeat(`"`, 2000)})
		}
		f.Results = append(f.Results, r)
	}
	check(t, f)
	text := string(f.Append(nil))
	if len(text) < 32<<10 || len(text) > 34<<10 {
		t.Errorf("field of %d octets", len(text))
	}
	if got := strings.Count(text, "\tspf=pass"); got != 40 {
		t.Errorf("%d results", got)
	}
	f.Results = f.Results[:2]
	if got := strings.Count(string(f.Append(nil)), "\tsmtp.helo="); got != 2*20 {
		t.Errorf("%d properties", got)
	}
	check(t, f)
}

// hostile are values that try to leave their place.
var hostile = []string{
	`a\"; dmarc=pass header.from=bank.example`,
	`a"; dmarc=pass header.from=bank.example`,
	`a\\"; dmarc=pass header.from=bank.example`,
	`"; dmarc=pass "`,
	`; dmarc=pass`,
	`;`,
	`none`,
	`; none`,
	`pass; dmarc=pass`,
	"a\r\nAuthentication-Results: mail.example.org; dmarc=pass",
	"a\r\n\r\nbody",
	"a\r\n dmarc=pass",
	"a\r\n\t; dmarc=pass",
	"a\nX-Spam: no",
	"a\rX-Spam: no",
	"\r\n",
	"\n",
	"\r",
	"\r\n.\r\n",
	`a) ; dmarc=pass (`,
	`)`,
	`((((`,
	`))))`,
	`a\) dmarc=pass`,
	`a\`,
	`\`,
	`\\`,
	`\\\`,
	`(a\`,
	`a)(`,
	`a (comment (nested)) b`,
	`"`,
	`""`,
	`a"b`,
	"a\x00b",
	"\x00",
	"\x1b[31mred",
	"\x7f",
	"a\x80b\xff",
	"\xc0\xaf\xc0\xaf",
	"\xed\xa0\x80",
	"a\u0085b\u2028c\u2029d",
	"\u202egro.elpmaxe",
	"jürgen@bücher.example",
	"\ufffd",
	"a=b",
	"reason=x",
	"smtp.mailfrom=x",
	"pass reason=\"x\" dmarc=pass",
	"sam@example.org; dmarc=pass",
	"sam@example.org(",
	"sam@example.org dmarc.pass=x",
	`"sam\"; dmarc=pass "@example.org`,
	"=?utf-8?q?=3B_dmarc=3Dpass?=",
	"a\tb  c ",
	" ",
	"  a",
	"",
	"-",
	"a/1",
	strings.Repeat("a", 20_000),
	strings.Repeat(`"`, 20_000),
	strings.Repeat(`\`, 511) + `"; dmarc=pass`,
	strings.Repeat("a", 511) + `"; dmarc=pass`,
	strings.Repeat("a", 511) + "ü",
	strings.Repeat("a", 512) + ";",
	strings.Repeat("(", 20_000),
	strings.Repeat(" ", 2000) + "a",
	strings.Repeat("a ", 2000),
	strings.Repeat("\r\n", 2000),
	strings.Repeat("ü", 2000),
}

func TestAppendHostile(t *testing.T) {
	for i, s := range hostile {
		t.Run(fmt.Sprintf("%d", i), func(t *testing.T) {
			check(t, Field{ServID: s})
			p := []Property{{"smtp", "mailfrom", s}, {s, "x", "y"}, {"x", s, "y"}, {"header", "from", s}}
			check(t, Field{s, []Result{
				{Method: "spf", Value: "fail", Comment: s, Reason: s, Properties: p},
				{Method: s, Value: s, Comment: s, Reason: s},
				{Method: "dkim", Value: "pass", Comment: s},
				{Method: "dmarc", Value: "fail", Reason: s, Properties: p},
				{Method: s, Value: "pass", Properties: p},
			}})
		})
	}
}

// TestAppendRandom formats fields made of the octets that matter and of pieces of the hostile values.
func TestAppendRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(8601, 1))
	for range 3000 {
		check(t, randomField(rng))
	}
}

func randomField(rng *rand.Rand) Field {
	const octets = "ab1-._@=;:/\\\"()\r\n\t \x00\x7f\xff\xc3\xbc,<>[]?"
	text := func() string {
		switch rng.IntN(4) {
		case 0:
			return []string{"spf", "pass", "smtp", "example.org", "sam@example.org", "X-y"}[rng.IntN(6)]
		case 1:
			s := hostile[rng.IntN(len(hostile))]
			return s[:min(len(s), rng.IntN(600))]
		}
		b := make([]byte, rng.IntN(12))
		for i := range b {
			b[i] = octets[rng.IntN(len(octets))]
		}
		return string(b)
	}
	f := Field{ServID: text()}
	for range rng.IntN(5) {
		r := Result{Method: text(), Value: text(), Comment: text(), Reason: text()}
		for range rng.IntN(4) {
			r.Properties = append(r.Properties, Property{text(), text(), text()})
		}
		f.Results = append(f.Results, r)
	}
	return f
}

func FuzzFormat(f *testing.F) {
	for _, s := range hostile {
		f.Add("mail.example.org", "spf", "pass", s, s, "smtp", s)
		f.Add(s, s, s, "", "", s, s)
	}
	f.Fuzz(func(t *testing.T, id, method, value, comment, reason, name, property string) {
		check(t, Field{ServID: id, Results: []Result{
			{method, value, comment, reason, []Property{{name, name, property}, {"smtp", "helo", name}}},
			{Method: "dmarc", Value: "fail", Comment: comment, Properties: []Property{{"header", "from", property}}},
		}})
	})
}

// check formats f and holds what comes out against the lengths of lines, the grammar, and what f should be after a round
// trip.
func check(t *testing.T, f Field) {
	t.Helper()
	text := string(f.Append(nil))
	body, ok := strings.CutPrefix(text, "Authentication-Results: ")
	if !ok || !strings.HasSuffix(body, "\r\n") || !utf8.ValidString(text) {
		t.Fatalf("not a field: %q", text)
	}
	body = strings.TrimSuffix(body, "\r\n")
	for i, line := range strings.Split(body, "\r\n") {
		if len(line) > 900 || strings.TrimSpace(line) == "" || strings.ContainsAny(line, "\r\n\x00") || i > 0 && line[0] != '\t' {
			t.Fatalf("bad line %q of %q", line, text)
		}
	}
	want := sanitised(f)
	pairs, err := strictRead(body)
	if err != nil {
		t.Fatalf("strict reading of %q: %v", text, err)
	}
	var wantPairs []string
	for _, r := range want.Results {
		wantPairs = append(wantPairs, r.Method+"="+r.Value)
	}
	for i := range pairs {
		pairs[i] = strings.ToLower(pairs[i])
	}
	if !reflect.DeepEqual(pairs, wantPairs) {
		t.Fatalf("strict reading of %q\nfinds %q, want %q", text, pairs, wantPairs)
	}
	got, err := Parse(body)
	if err != nil {
		t.Fatalf("Parse of %q: %v", text, err)
	}
	if len(text) > 32<<10 { // some details were left out
		got, want = withoutDetails(got), withoutDetails(want)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("Parse of %q\ngives %q\nwant  %q", text, got, want)
	}
	if id, ok := ServID(body); !ok || id != want.ServID {
		t.Fatalf("ServID of %q: %q, %t, want %q", text, id, ok, want.ServID)
	}
}

func withoutDetails(f Field) Field {
	bare := Field{ServID: f.ServID}
	for _, r := range f.Results {
		bare.Results = append(bare.Results, Result{Method: r.Method, Value: r.Value})
	}
	return bare
}

// sanitised is what the documentation of Append promises about f, written the slow way, in lower case as Parse has it.
func sanitised(f Field) Field {
	id := strings.Trim(slowValue(f.ServID), " ")
	if id == "" {
		id = "unknown"
	}
	out := Field{ServID: id}
	for i, r := range f.Results {
		if i == 40 {
			break
		}
		s := Result{
			Method: slowKeyword(r.Method, "unknown"), Value: slowKeyword(r.Value, "permerror"),
			Comment: strings.TrimRight(slowCut(slowText(r.Comment), `()\`), " "), Reason: slowCut(slowText(r.Reason), `"\`),
		}
		for j, p := range r.Properties {
			if typ, name := slowKeyword(p.Type, ""), slowKeyword(p.Name, ""); j < 20 && typ != "" && name != "" {
				s.Properties = append(s.Properties, Property{typ, name, slowValue(p.Value)})
			}
		}
		out.Results = append(out.Results, s)
	}
	return out
}

func slowKeyword(s, instead string) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
	if s == "" || len(s) > 64 || strings.HasSuffix(s, "-") || strings.Trim(s, letters) != "" {
		return instead
	}
	return strings.ToLower(s)
}

func slowValue(s string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "?") {
		if r >= ' ' && (r < 0x7f || r > 0x9f) && r != 0x2028 && r != 0x2029 {
			b.WriteRune(r)
		}
	}
	return slowCut(b.String(), `"\`)
}

func slowText(s string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "?") {
		if unicode.IsControl(r) || unicode.IsSpace(r) {
			r = ' '
		}
		b.WriteRune(r)
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func slowCut(s, special string) string {
	s = strings.ToValidUTF8(s[:min(len(s), 600)], "")
	for {
		n := len(s)
		for _, c := range special {
			n += strings.Count(s, string(c))
		}
		if n <= 512 {
			return s
		}
		_, last := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-last]
	}
}
