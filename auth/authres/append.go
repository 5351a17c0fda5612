package authres

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/postroom/postroom/internal/addr"
)

// Words for what is no keyword. They are well-formed, and neither is good news that a reader could act upon.
const (
	unknownServID = "unknown"
	unknownMethod = "unknown"
	unknownResult = "permerror"
)

// Append appends the whole field with its line ends, each result on a line of its own, folded at about 78 octets.
//
// No value can break out of its place. A method or result that is no keyword becomes "unknown" or "permerror"; a property
// whose type or name is none is left out. Values lose their controls, and beyond 512 octets their end; what is not UTF-8
// becomes '?'. In a comment and a reason each run of blanks and controls becomes one blank. There are at most 40 results,
// with 20 properties each, and what would make the field longer than 32 KiB is left out, but never a method and its result.
// An empty comment or reason is not written.
func (f Field) Append(b []byte) []byte {
	b = append(b, fieldName...)
	b = append(b, ' ')
	b = append(b, servID(f.ServID)...)
	if len(f.Results) == 0 {
		return append(b, "; none\r\n"...) // RFC 8601 section 2.2: no-result
	}
	l := line{b: b, room: maxDetails}
	for _, r := range f.Results[:min(len(f.Results), maxResults)] {
		l.b = append(l.b, ';')
		l.breakLine()
		l.result(r)
	}
	return append(l.b, "\r\n"...)
}

// servID is the authserv-id as written.
func servID(id string) string {
	id = strings.Trim(bound(withoutControls(id), `"\`), " ")
	if id == "" {
		return unknownServID
	}
	return word(id)
}

// line writes the pieces of a field and breaks the line between two of them when it becomes too long.
type line struct {
	b      []byte
	column int // octets on the line so far
	room   int // octets of details that the field may still have
}

// softLength is RFC 5322 section 2.1.1: a line should have no more octets than this.
const softLength = 78

func (l *line) breakLine() {
	l.b = append(l.b, "\r\n\t"...)
	l.column = len("\t")
}

func (l *line) put(piece string) {
	l.b = append(l.b, piece...)
	l.column += len(piece)
}

// detail writes pieces with a blank or a fold before each, all of them or none. A semicolon may still follow on the line.
func (l *line) detail(pieces ...string) {
	for _, piece := range pieces {
		l.room -= len("\r\n\t") + len(piece)
	}
	if l.room < 0 {
		return // and nothing else fits: a reader is not shown some of the later details
	}
	for _, piece := range pieces {
		if l.column+len(" ")+len(piece)+len(";") > softLength {
			l.breakLine()
		} else {
			l.put(" ")
		}
		l.put(piece)
	}
}

// result writes one resinfo of RFC 8601 section 2.2, without the semicolon before it.
func (l *line) result(r Result) {
	l.put(keyword(r.Method, unknownMethod) + "=" + keyword(r.Value, unknownResult))
	l.detail(commentPieces(r.Comment)...)
	if reason := bound(oneLine(r.Reason), `"\`); reason != "" {
		l.detail("reason=" + word(reason))
	}
	for _, p := range r.Properties[:min(len(r.Properties), maxProperties)] {
		if isKeyword(p.Type) && isKeyword(p.Name) {
			l.detail(p.Type + "." + p.Name + "=" + pvalue(p.Value))
		}
	}
}

func keyword(s, instead string) string {
	if isKeyword(s) {
		return s
	}
	return instead
}

// pvalue is the value of a property as written.
func pvalue(s string) string {
	s = bound(withoutControls(s), `"\`)
	if isPlainAddress(s) {
		return s
	}
	return word(s)
}

// word is s as a value, RFC 2045 section 5.1: bare if it is a token, and else a quoted string.
func word(s string) string {
	if isToken(s) {
		return s
	}
	return `"` + escape(s, `"\`) + `"`
}

// isPlainAddress tells whether s is [local-part] "@" domain-name, which a pvalue may be without quotes (RFC 8601 section
// 2.2). Local parts with '=', '/' or '?' would be allowed too, but some readers split at these.
func isPlainAddress(s string) bool {
	local, domain, found := strings.Cut(s, "@")
	if !found || local != "" && !isDotAtom(local) || !strings.Contains(domain, ".") {
		return false // RFC 6376 section 3.5: a domain-name has two labels at least
	}
	_, err := addr.ParseDomain(domain)
	return err == nil && isToken(domain) // no U-labels: they go in quotes
}

func isDotAtom(s string) bool {
	return isToken(s) && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..")
}

// commentPieces is the comment in the pieces between which the line may be broken, or nothing when it is empty.
func commentPieces(comment string) []string {
	text := strings.TrimRight(bound(oneLine(comment), `()\`), " ")
	if text == "" {
		return nil
	}
	return strings.Split("("+escape(text, `()\`)+")", " ")
}

// withoutControls is s as valid UTF-8 without controls, and without the two separators that some readers take for the end
// of a line. A quoted string may hold the rest: RFC 6532 section 3.2.
func withoutControls(s string) string {
	return strings.Map(func(r rune) rune {
		if isControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// oneLine is s as valid UTF-8 with one blank for each run of blanks and controls.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(r rune) bool {
		return isControl(r) || unicode.IsSpace(r)
	}), " ")
}

func isControl(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }

// bound cuts s so that it has no more than maxText octets once the special ones are escaped.
func bound(s, special string) string {
	written := 0
	for i, r := range s {
		written += utf8.RuneLen(r)
		if strings.ContainsRune(special, r) {
			written++
		}
		if written > maxText {
			return s[:i]
		}
	}
	return s
}

// escape puts a backslash before each special octet: RFC 5322 section 3.2.1, quoted-pair.
func escape(s, special string) string {
	if !strings.ContainsAny(s, special) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(special, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
