package authres

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/postroom/postroom/internal/addr"
)

// ServID reads the authserv-id from the body of a field, whatever follows it. It reports false if the field is malformed
// before the authserv-id ends; the string is then what could be read of it, and may be empty.
func ServID(value string) (string, bool) {
	p := parser{s: value}
	if p.skip() != nil {
		return "", false
	}
	if p.peek() == '"' {
		id, err := p.servID()
		return id, err == nil && (p.atEnd() || endsServID(p.peek()))
	}
	id := p.takeAll(func(c byte) bool { return !endsServID(c) })
	for i := range len(id) {
		if id[i] < utf8.RuneSelf && !isTokenOctet(id[i]) {
			return id, false
		}
	}
	return id, id != "" && utf8.ValidString(id)
}

func endsServID(c byte) bool { return isBlank(c) || c == ';' || c == '(' }

// Names tells whether the body of a field claims to be from hostname, which a field that comes from outside must not do:
// RFC 8601 section 5. Letter case, a dot at the end, and A-labels for U-labels make no difference.
//
// Programs that read the field later may read a malformed one in their own way, so Names also answers true when one of
// the simpler readings in use (see reading) finds hostname before the first semicolon, and, when the field is malformed
// before its authserv-id ends, if hostname occurs in it anywhere.
func Names(value, hostname string) bool {
	h := newHost(hostname)
	if h.isZero() {
		return false
	}
	if len(value) > maxBody {
		return h.occurs(value)
	}
	for _, r := range readings {
		if h.claimed(r.head(value)) {
			return true
		}
	}
	_, ok := ServID(value)
	return !ok && h.occurs(value)
}

// reading is a way to read comments and quoted strings: the right one, and those of programs that do not know that
// comments can be nested, or what a backslash does. Where they disagree, a name can be shown to one and hidden from the
// other.
type reading struct{ nested, escapes bool }

var readings = [...]reading{{true, true}, {false, true}, {true, false}, {false, false}}

// head is the field up to its first semicolon with a blank for each comment and the text of each quoted string.
func (r reading) head(s string) string {
	var b strings.Builder
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		c := s[i]
		escaped := c == '\\' && r.escapes && (depth > 0 || quoted) && i+1 < len(s)
		if escaped {
			i++
			c = s[i]
		}
		switch {
		case depth > 0:
			depth += r.deeper(c, escaped)
		case escaped:
			b.WriteByte(c)
		case c == '"':
			quoted = !quoted
		case quoted:
			b.WriteByte(c)
		case c == '(':
			depth = 1
			b.WriteByte(' ')
		case c == ';':
			return b.String()
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// deeper is by how much the octet c inside a comment changes the depth.
func (r reading) deeper(c byte, escaped bool) int {
	switch {
	case escaped:
		return 0
	case c == ')':
		return -1
	case c == '(' && r.nested:
		return 1
	}
	return 0
}

// host is our name in the forms that it is looked for in.
type host struct {
	domain addr.Domain // zero when the name is not a domain name
	forms  []string    // lower case
}

func newHost(name string) host {
	name = strings.Trim(name, ". ")
	if name == "" {
		return host{}
	}
	d, err := addr.ParseDomain(name)
	if err != nil {
		return host{forms: []string{strings.ToLower(name)}}
	}
	return host{domain: d, forms: []string{d.ASCII(), strings.ToLower(d.Unicode())}}
}

func (h host) isZero() bool { return len(h.forms) == 0 }

// claimed tells whether the head of a field has our name as one of its words, or in pieces, as in "mail . example . org".
// A well-formed head has one word, and perhaps a version.
func (h host) claimed(head string) bool {
	words := strings.FieldsFunc(head, func(r rune) bool { return unicode.IsSpace(r) || isControl(r) })
	joined, before := "", ""
	for _, word := range words {
		if h.is(word) {
			return true
		}
		if len(joined) <= maxText {
			before, joined = joined, joined+word
			if h.isForm(joined) {
				return true
			}
		}
	}
	return h.is(joined) || h.is(before) // the last word may be a version
}

// is tells whether word is our name, perhaps between punctuation.
func (h host) is(word string) bool {
	if h.isForm(word) {
		return true
	}
	d, err := addr.ParseDomain(bare(word))
	return err == nil && d == h.domain
}

func (h host) isForm(word string) bool {
	word = bare(word)
	for _, form := range h.forms {
		if strings.EqualFold(word, form) {
			return true
		}
	}
	return false
}

// bare is word without the punctuation around it.
func bare(word string) string {
	return strings.TrimFunc(word, func(r rune) bool { return !isHostRune(r) || r == '.' })
}

func isHostRune(r rune) bool {
	switch {
	case r == utf8.RuneError:
		return false
	case r == '.', r == '-', r == '_':
		return true
	}
	return unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r)
}

// occurs tells whether our name is anywhere in s, be it in another form or with blanks, quotes or controls inside it.
func (h host) occurs(s string) bool {
	plain := strings.ToLower(s)
	compact := strings.Map(func(r rune) rune {
		if !isHostRune(r) {
			return -1
		}
		return r
	}, plain)
	for _, form := range h.forms {
		if strings.Contains(plain, form) || strings.Contains(compact, form) {
			return true
		}
	}
	for word := range strings.FieldsFuncSeq(s, func(r rune) bool { return r < utf8.RuneSelf && !isHostRune(r) }) {
		if h.is(word) {
			return true
		}
	}
	return false
}
