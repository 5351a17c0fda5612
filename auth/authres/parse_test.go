package authres

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		want       Field
	}{
		// RFC 8601 appendix B.
		{"B.2", " example.org 1; none", Field{ServID: "example.org"}},
		{"B.3", " example.com;\r\n\tspf=pass smtp.mailfrom=example.net\r\n", Field{"example.com", []Result{
			{Method: "spf", Value: "pass", Properties: []Property{{"smtp", "mailfrom", "example.net"}}}}}},
		{"B.4", " example.com;\r\n auth=pass (cram-md5) smtp.auth=sender@example.net;\r\n spf=pass smtp.mailfrom=example.net",
			Field{"example.com", []Result{
				{Method: "auth", Value: "pass", Comment: "cram-md5", Properties: []Property{{"smtp", "auth", "sender@example.net"}}},
				{Method: "spf", Value: "pass", Properties: []Property{{"smtp", "mailfrom", "example.net"}}}}}},
		{"B.6", " example.com;\r\n dkim=pass reason=\"good signature\"\r\n  header.i=@mail-router.example.net;\r\n" +
			" dkim=fail reason=\"bad signature\"\r\n  header.i=@newyork.example.com", Field{"example.com", []Result{
			{Method: "dkim", Value: "pass", Reason: "good signature", Properties: []Property{{"header", "i", "@mail-router.example.net"}}},
			{Method: "dkim", Value: "fail", Reason: "bad signature", Properties: []Property{{"header", "i", "@newyork.example.com"}}}}}},
		{"B.7", " foo.example.net (foobar) 1 (baz);\r\n dkim (Because I like it) / 1 (One yay) = (wait for it) fail\r\n" +
			"  policy (A dot can go here) . (like that) expired\r\n  (this surprised me) = (as I wasn't expecting it) 1362471462",
			Field{"foo.example.net", []Result{{Method: "dkim", Value: "fail",
				Comment: "Because I like it One yay wait for it A dot can go here like that this surprised me " +
					"as I wasn't expecting it",
				Properties: []Property{{"policy", "expired", "1362471462"}}}}}},

		{"case", "Mail.Example.ORG; SPF=Pass SMTP.MailFrom=Sam@Example.ORG", Field{"Mail.Example.ORG", []Result{
			{Method: "spf", Value: "pass", Properties: []Property{{"smtp", "mailfrom", "Sam@Example.ORG"}}}}}},
		{"nested comment", `a; spf=pass (b (c \) \( "d;) e)(f)()`, Field{"a", []Result{
			{Method: "spf", Value: "pass", Comment: `b (c ) ( "d;) e f`}}}},
		{"quoted", `"a b"; x=y p.q="c;\"\\ d` + "\r\n\t" + `e"`, Field{"a b", []Result{
			{Method: "x", Value: "y", Properties: []Property{{"p", "q", "c;\"\\ d\te"}}}}}},
		{"quoted local part", `a; x=y p.q="a \"b"@example.org p.r=c (d) @e.example p.s=@f.example`, Field{"a", []Result{
			{Method: "x", Value: "y", Comment: "d", Properties: []Property{
				{"p", "q", `"a \"b"@example.org`}, {"p", "r", "c@e.example"}, {"p", "s", "@f.example"}}}}}},
		{"bare LF folds", "a;\n spf=pass\n\tp.q=r", Field{"a", []Result{
			{Method: "spf", Value: "pass", Properties: []Property{{"p", "q", "r"}}}}}},
		{"as some servers write", "a; compauth=pass reason=100 action=none policy.is_org=yes header.b=ab/c=; dkim=none;;", Field{"a", []Result{
			{Method: "compauth", Value: "pass", Reason: "100", Properties: []Property{{"policy", "is_org", "yes"}, {"header", "b", "ab/c="}}},
			{Method: "dkim", Value: "none"}}}},
		{"empty value", "a; spf=none smtp.mailfrom=; none", Field{"a", []Result{
			{Method: "spf", Value: "none", Properties: []Property{{"smtp", "mailfrom", ""}}}}}},
		{"method none", "a; none=none", Field{"a", []Result{{Method: "none", Value: "none"}}}},
		{"no results", "a", Field{ServID: "a"}},
		{"UTF-8", "bücher.example; spf=pass smtp.mailfrom=jürgen@bücher.example", Field{"bücher.example", []Result{
			{Method: "spf", Value: "pass", Properties: []Property{{"smtp", "mailfrom", "jürgen@bücher.example"}}}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Parse(tc.body)
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %q, %v\nwant %q", got, err, tc.want)
			}
		})
	}
}

func TestParseMalformed(t *testing.T) {
	for _, tc := range []struct {
		body string
		want error
	}{
		{"", errServID},
		{"; spf=pass", errServID},
		{`""; spf=pass`, errServID},
		{"(a", errComment},
		{`(a\`, errComment},
		{`"a`, errQuote},
		{`"a\`, errQuote},
		{"\"a\x00\"", errControl},
		{"a (b", errComment},
		{"a b; none", errNext},
		{"a\x00; none", errNext},
		{"a 1 (b", errComment},
		{"a; (b", errComment},
		{"a; =b", errKeyword},
		{"a; spf", errEquals},
		{"a; spf (b", errComment},
		{"a; spf/ (b", errComment},
		{"a; spf/1 (b", errComment},
		{"a; spf/1", errEquals},
		{"a; spf= (", errComment},
		{"a; spf=", errKeyword},
		{"a; spf=\"pass\"", errKeyword},
		{"a; spf=pass (b", errComment},
		{"a; spf=pass )", errKeyword},
		{"a; spf=pass b", errEquals},
		{"a; spf=pass b.(", errComment},
		{"a; spf=pass b.=c", errProperty},
		{"a; spf=pass b.c", errEquals},
		{"a; spf=pass b.c=\"", errQuote},
		{"a; spf=pass b.c=d (", errComment},
		{"a; spf=pass b.c=d @e (", errComment},
		{"a; spf=pass b.c=d\"e\"", errKeyword},
		{"a; spf=pass b.c=d\\", errKeyword},
		{"a" + strings.Repeat("; b=c", maxRead+1), errTooMany},
		{"a; " + strings.Repeat(" ", maxBody), ErrMalformed},
	} {
		if _, err := Parse(tc.body); !errors.Is(err, tc.want) || !errors.Is(err, ErrMalformed) {
			t.Errorf("%.40q: %v, want %v", tc.body, err, tc.want)
		}
	}
}

// TestLong shows that deep nesting and long fields take no long time.
func TestLong(t *testing.T) {
	runes := make([]rune, 300) // of one long label: what takes the most time to convert
	for i := range runes {
		runes[i] = rune(0x4e00 + 7*i)
	}
	start := time.Now()
	for _, piece := range []string{"(", "()", `"`, `\`, "a", ";", "a ", "a. ", "a; ", "ü", "ü.", "ü ", "xn--a ", "\r\n ", "=", "@",
		string(runes) + " "} {
		for _, n := range []int{maxBody, 2 * maxBody} {
			body := strings.Repeat(piece, n/len(piece))
			_, _ = Parse(body) // only the time is of interest
			ServID(body)
			Names(body, "bücher.example")
		}
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("example.com 1; spf=pass (a (b) c) smtp.mailfrom=\"a\\\"b\"@example.net; dkim/1=fail reason=x; none")
	for _, s := range hostile[:60] {
		f.Add("a; spf=pass (" + s + ") smtp.mailfrom=" + s)
		f.Add("\"" + s + "\"; spf=pass reason=\"" + s + "\"")
	}
	f.Fuzz(func(t *testing.T, body string) {
		field, err := Parse(body)
		pairs, strictErr := strictRead(strings.TrimRight(body, "\r\n"))
		if err != nil {
			tolerable := errors.Is(err, errTooMany) || errors.Is(err, errServID) // "" is a value, but no name
			if strictErr == nil && !tolerable && len(body) <= maxBody {
				t.Fatalf("%q is well-formed: %v", body, err)
			}
			return
		}
		if strictErr == nil && len(pairs) != len(field.Results) {
			t.Fatalf("%q: %d results, want %d", body, len(field.Results), len(pairs))
		}
		if id, ok := ServID(body); ok && id != field.ServID {
			t.Fatalf("%q: ServID %q, Parse %q", body, id, field.ServID)
		}
		check(t, field)
	})
}
