package authres

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// The grammar of RFC 8601 section 2.2 as regular expressions over a body without comments. They share nothing with the
// package, and allow nothing that the grammar does not. UTF-8 is where RFC 6532 puts it.
const (
	reWS      = `[ ]*`
	reKeyword = `[A-Za-z0-9-]*[A-Za-z0-9]`
	reToken   = "[!#$%&'*+.0-9A-Z^_`a-z{|}~-]+"
	reQuoted  = `"(?:[ !#-\[\]-~\x{80}-\x{10ffff}]|\\[ -~\x{80}-\x{10ffff}])*"`
	reValue   = `(?:` + reQuoted + `|` + reToken + `)`
	reAtom    = "[!#$%&'*+/=?^_`{|}~0-9A-Za-z-]+"
	reLabel   = `[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?`
	reDomain  = reLabel + `(?:\.` + reLabel + `)+`
	reLocal   = `(?:` + reAtom + `(?:\.` + reAtom + `)*|` + reQuoted + `)`
	rePvalue  = `(?:(?:` + reLocal + `)?@` + reDomain + `|` + reValue + `)`
	reMethod  = reKeyword + `(?:` + reWS + `/` + reWS + `[0-9]+)?`
	reReason  = `(?: ` + reWS + `reason` + reWS + `=` + reWS + reValue + `)?`
	reProp    = ` ` + reWS + reKeyword + reWS + `\.` + reWS + reKeyword + reWS + `=` + reWS + rePvalue
	reResinfo = `;` + reWS + `(` + reMethod + reWS + `=` + reWS + reKeyword + `)` + reReason + `(?:` + reProp + `)*` + reWS
	reStart   = `^` + reWS + reValue + `(?: ` + reWS + `[0-9]+)?` + reWS
)

var (
	strictResinfo = regexp.MustCompile(`^` + reResinfo)
	strictStart   = regexp.MustCompile(reStart)
	strictNone    = regexp.MustCompile(`^;` + reWS + `none` + reWS + `$`)
)

// strictRead returns the "method=result" pairs of a body that is well-formed, and an error for any other.
func strictRead(body string) ([]string, error) {
	flat, err := flatten(body)
	if err != nil {
		return nil, err
	}
	start := strictStart.FindString(flat)
	if start == "" {
		return nil, errors.New("no authserv-id")
	}
	flat = flat[len(start):]
	if strictNone.MatchString(flat) {
		return nil, nil
	}
	var pairs []string
	for flat != "" || pairs == nil {
		m := strictResinfo.FindStringSubmatch(flat)
		if m == nil {
			return pairs, fmt.Errorf("no resinfo at %q", flat)
		}
		pairs = append(pairs, strings.ReplaceAll(m[1], " ", ""))
		flat = flat[len(m[0]):]
	}
	return pairs, nil
}

// flatten unfolds body and puts one blank in the place of each blank outside of quotes and of each comment.
func flatten(body string) (string, error) {
	for before, rest, more := strings.Cut(body, "\r\n"); more; before, rest, more = strings.Cut(rest, "\r\n") {
		if slashes := len(before) - len(strings.TrimRight(before, "\\")); slashes%2 == 1 {
			return "", errors.New("folded behind a backslash") // which can quote no CR: RFC 5322 section 3.2.1
		}
	}
	body = strings.NewReplacer("\r\n\t", "\t", "\r\n ", " ").Replace(body)
	var b strings.Builder
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		c := body[i]
		if (c < ' ' && c != '\t') || c == 0x7f {
			return "", fmt.Errorf("control %#x", c)
		}
		if c == '\t' {
			c = ' '
		}
		if c == '\\' && (depth > 0 || quoted) {
			if i++; i == len(body) {
				return "", errors.New("backslash at the end")
			}
			if depth == 0 {
				b.WriteByte('\\')
				b.WriteByte(body[i])
			}
			continue
		}
		switch {
		case c == '(' && !quoted:
			depth++
		case c == ')' && !quoted:
			if depth--; depth < 0 {
				return "", errors.New("closing parenthesis")
			}
			if depth == 0 {
				b.WriteByte(' ')
			}
		case depth == 0:
			if c == '"' {
				quoted = !quoted
			}
			b.WriteByte(c)
		}
	}
	if depth > 0 || quoted {
		return "", errors.New("not closed")
	}
	return b.String(), nil
}

// TestStrictRead shows that the reader can refuse and that it counts.
func TestStrictRead(t *testing.T) {
	for _, tc := range []struct {
		body string
		want int // -1: refused
	}{
		{"example.com; none", 0},
		{"example.com 1; spf=pass smtp.mailfrom=example.net", 1},
		{`foo.example.net (foobar) 1 (baz); dkim (Because I like it) / 1 (One yay) = (wait for it) fail` +
			` policy (A dot can go here) . (like that) expired (this surprised me) = (as I wasn't expecting it) 1362471462`, 1},
		{`a; x=y reason="b" c.d="e;f"; g=h (;;)`, 2},
		{"a", -1},
		{"a;", -1},
		{"a; spf", -1},
		{"a; spf=pass b", -1},
		{"a; spf=pass b.c=d/e", -1},
		{"a; spf=pass (", -1},
		{`a; spf=pass b.c="`, -1},
		{"a\r\n; spf=pass", -1},
		{"a; spf=pass)", -1},
		{"a b; none", -1},
		{"a@b; none", -1},
	} {
		pairs, err := strictRead(tc.body)
		if (err != nil) != (tc.want < 0) || err == nil && len(pairs) != tc.want {
			t.Errorf("%q: %q, %v, want %d", tc.body, pairs, err, tc.want)
		}
	}
}
