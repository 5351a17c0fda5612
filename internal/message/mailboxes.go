package message

import (
	"errors"
	"mime"
	"strings"
)

// ErrMailboxes is the error of ParseMailboxes.
var ErrMailboxes = errors.New("not a list of mailboxes")

// maxMailboxes bounds a list. A From field with more authors is nobody's.
const maxMailboxes = 1000

// Mailbox is one entry of an address list in a header field (RFC 5322 section 3.4).
type Mailbox struct {
	Name     string   // the display name, with encoded words (RFC 2047) decoded
	Local    string   // the local part without its quotes
	Domain   string   // as written, without comments and blanks; a domain literal has its brackets
	Comments []string // what stands in parentheses, decoded, for people only
}

// ParseMailboxes reads the value of a From, Sender, Reply-To, To or Cc field: RFC 5322 section 3.4 with the obsolete forms
// of section 4.4, in linear time. Groups are left out, their members are not. In display names it takes what is often seen
// and not allowed: dots, octets beyond ASCII. Where the list cannot be read without guessing it returns
// ErrMailboxes, and what it read before: a mail program that guesses might show another author.
func ParseMailboxes(value string) ([]Mailbox, error) {
	p := mailboxParser{rest: value}
	err := p.list()
	return p.found, err
}

// mailboxParser reads one value from left to right and never goes back.
type mailboxParser struct {
	rest     string
	comments []string
	words    []string // of the entry that is being read
	quoted   bool     // whether the last of words is a quoted string
	inGroup  bool
	found    []Mailbox
}

func (p *mailboxParser) list() error {
	for {
		if err := p.blanks(); err != nil {
			return err
		}
		if p.rest == "" {
			return p.end()
		}
		if err := p.token(); err != nil {
			return err
		}
	}
}

// token reads one word or one special and what belongs to it.
func (p *mailboxParser) token() error {
	switch c := p.rest[0]; c {
	case '"':
		word, err := p.quotedString()
		p.words, p.quoted = append(p.words, word), true
		return err
	case '<':
		return p.angle()
	case '@':
		return p.bare()
	case ',':
		p.rest = p.rest[1:]
		return p.separator()
	case ':':
		p.rest = p.rest[1:]
		if p.inGroup || len(p.words) == 0 {
			return ErrMailboxes
		}
		p.inGroup = true
		p.next()
		return nil
	case ';':
		p.rest = p.rest[1:]
		if !p.inGroup {
			return ErrMailboxes
		}
		p.inGroup = false
		return p.separator()
	default:
		word := p.atom()
		if word == "" {
			return ErrMailboxes
		}
		p.words, p.quoted = append(p.words, word), false
		return nil
	}
}

// separator ends an entry: an empty one is an obsolete form, words without an address are none.
func (p *mailboxParser) separator() error {
	if len(p.words) > 0 {
		return ErrMailboxes
	}
	p.next()
	return nil
}

// end is the end of the value.
func (p *mailboxParser) end() error {
	if p.inGroup {
		return ErrMailboxes
	}
	if err := p.separator(); err != nil {
		return err
	}
	return nil
}

func (p *mailboxParser) next() { p.words, p.comments, p.quoted = nil, nil, false }

// bare reads addr-spec without angle brackets: the one word before is the local part.
func (p *mailboxParser) bare() error {
	if len(p.words) != 1 {
		return ErrMailboxes
	}
	local := p.words[0]
	if !p.quoted && !isDotAtom(local) {
		return ErrMailboxes
	}
	domain, err := p.domain()
	if err != nil {
		return err
	}
	return p.add(Mailbox{Local: local, Domain: domain})
}

// angle reads angle-addr, with the route of obs-angle-addr dropped.
func (p *mailboxParser) angle() error {
	name := decodeWords(strings.Join(p.words, " "))
	p.words = nil
	p.rest = p.rest[1:]
	if err := p.route(); err != nil {
		return err
	}
	local, err := p.local()
	if err != nil {
		return err
	}
	domain, err := p.domain()
	if err != nil {
		return err
	}
	if !strings.HasPrefix(p.rest, ">") {
		return ErrMailboxes
	}
	p.rest = p.rest[1:]
	return p.add(Mailbox{Name: name, Local: local, Domain: domain})
}

// route drops "@a,@b:" at the start of an obsolete angle-addr.
func (p *mailboxParser) route() error {
	if err := p.blanks(); err != nil {
		return err
	}
	for strings.HasPrefix(p.rest, "@") {
		if _, err := p.domain(); err != nil {
			return err
		}
		switch {
		case strings.HasPrefix(p.rest, ","):
			p.rest = p.rest[1:]
			if err := p.blanks(); err != nil {
				return err
			}
		case strings.HasPrefix(p.rest, ":"):
			p.rest = p.rest[1:]
			return p.blanks()
		default:
			return ErrMailboxes
		}
	}
	return nil
}

// local reads the local part up to the "@", which it leaves.
func (p *mailboxParser) local() (string, error) {
	var local strings.Builder
	for {
		if err := p.blanks(); err != nil {
			return "", err
		}
		switch {
		case p.rest == "":
			return "", ErrMailboxes
		case p.rest[0] == '@':
			return local.String(), nil
		case p.rest[0] == '"':
			word, err := p.quotedString()
			if err != nil {
				return "", err
			}
			local.WriteString(word)
		default:
			word := p.atom()
			if word == "" || local.Len() > 0 && word[0] != '.' && !strings.HasSuffix(local.String(), ".") {
				return "", ErrMailboxes // two words with a blank between them
			}
			local.WriteString(word)
		}
	}
}

// domain reads "@" and the domain behind it, with the blanks of obs-domain dropped, and the blanks and comments after it.
func (p *mailboxParser) domain() (string, error) {
	p.rest = p.rest[1:]
	if err := p.blanks(); err != nil {
		return "", err
	}
	if strings.HasPrefix(p.rest, "[") {
		end := strings.IndexByte(p.rest, ']')
		if end < 0 {
			return "", ErrMailboxes
		}
		literal := p.rest[:end+1]
		p.rest = p.rest[end+1:]
		return literal, p.blanks()
	}
	var domain strings.Builder
	for {
		word := p.atom()
		if word == "" {
			return "", ErrMailboxes
		}
		domain.WriteString(word)
		if err := p.blanks(); err != nil {
			return "", err
		}
		dots := strings.HasPrefix(p.rest, ".") || strings.HasSuffix(word, ".")
		if !dots || p.rest == "" || isSpecial(p.rest[0]) {
			break
		}
	}
	if !isDotAtom(domain.String()) {
		return "", ErrMailboxes
	}
	return domain.String(), nil
}

// add ends an entry with an address; only a comma, the end of the group or of the value may follow.
func (p *mailboxParser) add(m Mailbox) error {
	if err := p.blanks(); err != nil {
		return err
	}
	if p.rest != "" && p.rest[0] != ',' && p.rest[0] != ';' || len(p.found) == maxMailboxes {
		return ErrMailboxes
	}
	m.Comments = p.comments
	p.found = append(p.found, m)
	p.next()
	return nil
}

// blanks skips white space and comments, which may nest (RFC 5322 section 3.2.2), and keeps what the comments say.
func (p *mailboxParser) blanks() error {
	for p.rest != "" {
		switch p.rest[0] {
		case ' ', '\t', '\r', '\n':
			p.rest = p.rest[1:]
		case '(':
			if err := p.comment(); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

func (p *mailboxParser) comment() error {
	depth, escaped := 0, false
	for i := range len(p.rest) {
		switch c := p.rest[i]; {
		case isControl(c):
			return ErrMailboxes
		case escaped:
			escaped = false
		case c == '\\':
			escaped = true
		case c == '(':
			depth++
		case c == ')':
			depth--
		}
		if depth == 0 {
			p.comments = append(p.comments, decodeWords(p.rest[1:i]))
			p.rest = p.rest[i+1:]
			return nil
		}
	}
	return ErrMailboxes
}

func (p *mailboxParser) quotedString() (string, error) {
	var word strings.Builder
	escaped := false
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case isControl(c):
			return "", ErrMailboxes
		case escaped:
			escaped = false
			word.WriteByte(c)
		case c == '\\':
			escaped = true
		case c == '"':
			p.rest = p.rest[i+1:]
			return word.String(), nil
		default:
			word.WriteByte(c)
		}
	}
	return "", ErrMailboxes
}

// atom reads atoms and dots; "" where there is none.
func (p *mailboxParser) atom() string {
	i := 0
	for i < len(p.rest) && !isSpecial(p.rest[i]) && !isControl(p.rest[i]) && strings.IndexByte(" \t\r\n", p.rest[i]) < 0 {
		i++
	}
	word := p.rest[:i]
	p.rest = p.rest[i:]
	return word
}

// isDotAtom tells whether s is dot-atom-text, with octets beyond ASCII (RFC 6532 section 3.2). A dot at the end or two in a
// row, as some mobile carriers gave out, pass in local parts of obsolete mail; a domain is judged where it is used.
func isDotAtom(s string) bool { return s != "" && s[0] != '.' && !strings.Contains(s, "[") }

// isSpecial tells the specials of RFC 5322 section 3.2.3, without the dot.
func isSpecial(c byte) bool { return strings.IndexByte("()<>[]:;@\\,\"", c) >= 0 }

// isControl tells the octets that no field may hold; the line ends of folding are gone, or white space.
func isControl(c byte) bool {
	return c < ' ' && c != '\t' && c != '\r' && c != '\n' || c == 0x7f
}

// decodeWords decodes RFC 2047 encoded words, also where RFC 2047 section 5 does not allow them, since mail programs do
// so, too. What cannot be decoded stays.
func decodeWords(s string) string {
	if !strings.Contains(s, "=?") {
		return s
	}
	decoded, err := (&mime.WordDecoder{}).DecodeHeader(s)
	if err != nil {
		return s
	}
	return decoded
}
