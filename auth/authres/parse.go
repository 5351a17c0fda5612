package authres

import (
	"errors"
	"fmt"
	"strings"
)

// ErrMalformed is the error of a field that cannot be read.
var ErrMalformed = errors.New("authres: malformed field")

// Parse reads the body of a field: what follows the colon, folded or not. The method, the result and the halves of a
// property's name come back in lower case, as they are compared without case; versions are checked and left out. All
// comments of a result become one text.
//
// The grammar is that of RFC 8601 section 2.2, and beside it what servers in use write: a semicolon at the end, values
// with '=' or ':' that have no quotes, underscores in keywords, nothing after the authserv-id, and name=value where a
// property should have a type (this is left out).
func Parse(value string) (Field, error) {
	if len(value) > maxBody {
		return Field{}, fmt.Errorf("%w: more than %d octets", ErrMalformed, maxBody)
	}
	p := parser{s: value}
	f, err := p.field()
	if err != nil {
		return Field{}, fmt.Errorf("%w: %w at octet %d", ErrMalformed, err, p.i)
	}
	return f, nil
}

// What is wrong with a field. Callers see them inside ErrMalformed.
var (
	errComment  = errors.New("comment without end")
	errQuote    = errors.New("quoted string without end")
	errServID   = errors.New("no authserv-id")
	errKeyword  = errors.New("keyword expected")
	errEquals   = errors.New("'=' expected")
	errNext     = errors.New("';' expected")
	errControl  = errors.New("control character")
	errTooMany  = errors.New("too many results")
	errProperty = errors.New("property without name")
)

// parser reads s from octet i on. Each octet is looked at a fixed number of times at most.
type parser struct {
	s        string
	i        int
	comments []string // those passed since the last result began
}

// peek is the next octet, or 0 at the end: a 0 in the field is no part of anything, so that it ends up in an error too.
func (p *parser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

func (p *parser) atEnd() bool { return p.i == len(p.s) }

// take passes the next octet if it is c.
func (p *parser) take(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.i++
	return true
}

// takeAll passes and returns the octets up to the first that is not ok.
func (p *parser) takeAll(ok func(byte) bool) string {
	start := p.i
	for !p.atEnd() && ok(p.s[p.i]) {
		p.i++
	}
	return p.s[start:p.i]
}

func (p *parser) field() (Field, error) {
	if err := p.skip(); err != nil {
		return Field{}, err
	}
	id, err := p.servID()
	if err != nil {
		return Field{}, err
	}
	if err := p.skip(); err != nil {
		return Field{}, err
	}
	p.takeAll(isDigit) // authres-version
	results, err := p.results()
	return Field{ServID: id, Results: results}, err
}

// servID reads the authserv-id, a value of RFC 2045 section 5.1. It may have U-labels, in UTF-8.
func (p *parser) servID() (string, error) {
	if p.peek() == '"' {
		id, err := p.quoted()
		if err == nil && strings.Trim(id, " \t") == "" {
			err = errServID
		}
		return id, err
	}
	id := p.takeAll(func(c byte) bool { return isTokenOctet(c) || c >= 0x80 })
	if id == "" {
		return "", errServID
	}
	return id, nil
}

// results reads to the end of the field. The word "none" is the result of no check: RFC 8601 section 2.2, no-result.
func (p *parser) results() ([]Result, error) {
	var all []Result
	for {
		if err := p.skip(); err != nil || p.atEnd() {
			return all, err
		}
		if !p.take(';') {
			return nil, errNext
		}
		p.comments = nil
		if err := p.skip(); err != nil {
			return nil, err
		}
		if p.atEnd() || p.peek() == ';' {
			continue
		}
		r, none, err := p.result()
		switch {
		case err != nil:
			return nil, err
		case len(all) == maxRead:
			return nil, errTooMany
		case !none:
			all = append(all, r)
		}
	}
}

// result reads one resinfo, or the word "none".
func (p *parser) result() (r Result, none bool, err error) {
	if r.Method, err = p.keyword(); err != nil {
		return r, false, err
	}
	if r.Method == "none" && (p.atEnd() || p.peek() == ';') {
		return r, true, nil
	}
	if err := p.methodVersion(); err != nil {
		return r, false, err
	}
	if err := p.equals(); err != nil {
		return r, false, err
	}
	if r.Value, err = p.keyword(); err != nil {
		return r, false, err
	}
	for !p.atEnd() && p.peek() != ';' {
		if err := p.statement(&r); err != nil {
			return r, false, err
		}
	}
	r.Comment = strings.Join(p.comments, " ")
	return r, false, nil
}

// methodVersion passes the version in "dkim/1". There is no other than 1 yet, and RFC 8601 section 2.3 does not say what
// another would change.
func (p *parser) methodVersion() error {
	if !p.take('/') {
		return nil
	}
	if err := p.skip(); err != nil {
		return err
	}
	p.takeAll(isDigit)
	return p.skip()
}

// statement reads one reasonspec or propspec, and the blanks and comments after it.
func (p *parser) statement(r *Result) error {
	first, err := p.keyword()
	if err != nil {
		return err
	}
	second, typed := "", p.take('.')
	if typed {
		if err := p.skip(); err != nil {
			return err
		}
		if second, err = p.keyword(); err != nil {
			return errProperty
		}
	}
	if err := p.equals(); err != nil {
		return err
	}
	value, err := p.value()
	switch {
	case err != nil:
		return err
	case typed:
		r.Properties = append(r.Properties, Property{Type: first, Name: second, Value: value})
	case first == "reason":
		r.Reason = value
	}
	return nil
}

// keyword reads a keyword in lower case, and the blanks and comments after it.
func (p *parser) keyword() (string, error) {
	word := p.takeAll(func(c byte) bool { return isLetterDigit(c) || c == '-' || c == '_' })
	if word == "" {
		return "", errKeyword
	}
	return strings.ToLower(word), p.skip()
}

// equals passes "=", and the blanks and comments after it.
func (p *parser) equals() error {
	if !p.take('=') {
		return errEquals
	}
	return p.skip()
}

// value reads a pvalue, and the blanks and comments after it. A quoted local part keeps its quotes: they are part of the
// address.
func (p *parser) value() (string, error) {
	var text string
	var err error
	quoted := p.peek() == '"'
	if quoted {
		text, err = p.quoted()
	} else {
		text = p.takeAll(isBareOctet)
	}
	if err == nil {
		err = p.skip()
	}
	if err != nil || !p.take('@') {
		return text, err
	}
	if quoted {
		text = `"` + escape(text, `"\`) + `"`
	}
	return text + "@" + p.takeAll(isBareOctet), p.skip()
}

// isBareOctet tells whether c may be in a value without quotes. RFC 8601 allows less.
func isBareOctet(c byte) bool {
	switch c {
	case '(', ')', ';', '"', '\\', 0x7f:
		return false
	}
	return c > ' '
}

// quoted reads a quoted string, RFC 5322 section 3.2.4, and takes folds and backslashes out of it.
func (p *parser) quoted() (string, error) {
	var b strings.Builder
	for p.i++; !p.atEnd(); p.i++ {
		c := p.s[p.i]
		switch {
		case c == '"':
			p.i++
			return b.String(), nil
		case c == '\r', c == '\n':
			continue
		case c == '\\' && p.i+1 < len(p.s):
			p.i++
			c = p.s[p.i]
		}
		if c < ' ' && c != '\t' || c == 0x7f {
			return "", errControl
		}
		b.WriteByte(c)
	}
	return "", errQuote
}

// skip passes blanks, folds and comments: RFC 5322 section 3.2.2, CFWS.
func (p *parser) skip() error {
	for !p.atEnd() {
		switch c := p.s[p.i]; {
		case isBlank(c):
			p.i++
		case c == '(':
			if err := p.comment(); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

// comment passes one comment and remembers its text: without backslashes, with the comments inside it, on one line.
func (p *parser) comment() error {
	var b strings.Builder
	depth := 0
	for ; !p.atEnd(); p.i++ {
		c := p.s[p.i]
		switch {
		case c == '\\' && p.i+1 < len(p.s):
			p.i++
			c = p.s[p.i]
		case c == '(':
			depth++
			if depth == 1 {
				continue
			}
		case c == ')':
			depth--
		}
		if depth == 0 {
			p.i++
			p.remember(b.String())
			return nil
		}
		b.WriteByte(c)
	}
	return errComment
}

func (p *parser) remember(comment string) {
	words := strings.FieldsFunc(comment, func(r rune) bool { return r < ' ' || r == ' ' || r == 0x7f })
	if len(words) > 0 {
		p.comments = append(p.comments, strings.Join(words, " "))
	}
}
