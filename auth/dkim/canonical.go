package dkim

import (
	"hash"
	"strings"
	"sync"

	"github.com/postroom/postroom/internal/message"
)

// bodyHasher hashes the canonical form of a body that is written to it in pieces: RFC 6376 section 3.4.3 (simple) and 3.4.4
// (relaxed). It takes time in proportion to the body, whatever is in it, and no memory. A line that ends with LF alone is
// taken for one that ends with CR LF.
type bodyHasher struct {
	hash    hash.Hash
	relaxed bool

	lines   int  // line ends that were read and not written: those at the end of the body do not count
	blank   bool // white space that was read and not written: that at the end of a line does not count
	cr      bool // a CR that may begin a line end
	written bool // anything at all
	out     []byte
}

// maxPending is how much a hasher gathers before it hashes.
const maxPending = 8 << 10

// pending keeps what hashers gather in for the next ones.
var pending = sync.Pool{New: func() any { return new([maxPending]byte) }}

func newBodyHasher(h hash.Hash, relaxed bool) *bodyHasher {
	return &bodyHasher{hash: h, relaxed: relaxed, out: pending.Get().(*[maxPending]byte)[:0]}
}

// free gives up what the hasher gathered in. It must not be written to any more.
func (b *bodyHasher) free() {
	pending.Put((*[maxPending]byte)(b.out[:maxPending]))
	b.out = nil
}

// Write takes the next piece.
func (b *bodyHasher) Write(p []byte) (int, error) {
	for i := 0; i < len(p); {
		c := p[i]
		switch {
		case c == '\n':
			b.lines, b.blank, b.cr = b.lines+1, false, false
			i++
		case b.cr: // it began no line end
			b.cr = false
			b.emit([]byte("\r"))
		case c == '\r':
			b.cr = true
			i++
		case b.relaxed && (c == ' ' || c == '\t'):
			b.blank = true
			i++
		default:
			n := b.run(p[i:])
			b.emit(p[i : i+n])
			i += n
		}
	}
	return len(p), nil
}

// run is how many octets at the start of p are in the canonical form as they are: all but line ends and, if relaxed, white
// space that is not one blank between two others.
func (b *bodyHasher) run(p []byte) int {
	for i, c := range p {
		switch {
		case c > ' ':
		case c == '\r' || c == '\n' || b.relaxed && c == '\t':
			return i
		case c != ' ' || !b.relaxed:
		case i+1 == len(p) || p[i+1] <= ' ':
			return i
		}
	}
	return len(p)
}

// emit writes what is in the canonical form, and before it what was held back.
func (b *bodyHasher) emit(text []byte) {
	for ; b.lines > 0; b.lines-- {
		b.gather(crlf)
	}
	if b.blank {
		b.gather(blank)
		b.blank = false
	}
	b.gather(text)
}

var (
	crlf  = []byte("\r\n")
	blank = []byte(" ")
)

func (b *bodyHasher) gather(text []byte) {
	b.written = true
	if len(b.out)+len(text) > maxPending {
		b.hash.Write(b.out)
		b.out = b.out[:0]
	}
	if len(text) > maxPending {
		b.hash.Write(text)
		return
	}
	b.out = append(b.out, text...)
}

// sum ends the body and returns its hash. A body that is not empty ends with one line end; an empty one is a line end if
// simple, and nothing if relaxed.
func (b *bodyHasher) sum() []byte {
	if b.cr {
		b.cr = false
		b.emit([]byte("\r"))
	}
	if b.written || !b.relaxed {
		b.gather(crlf)
	}
	b.hash.Write(b.out)
	return b.hash.Sum(nil)
}

// appendField appends the canonical form of a header field without its line end: RFC 6376 section 3.4.1 (simple), where it is
// raw, and 3.4.2 (relaxed).
func appendField(b []byte, f message.Field, raw []byte, relaxed bool) []byte {
	if !relaxed {
		return append(b, raw...)
	}
	b = append(append(b, strings.ToLower(f.Name)...), ':')
	return appendUnfolded(b, f.Body)
}

// appendUnfolded appends text with each run of white space, line ends among it, as one blank, and none at either end.
func appendUnfolded(b []byte, text string) []byte {
	start := len(b)
	gap := false
	for i := range len(text) {
		switch c := text[i]; c {
		case ' ', '\t', '\r', '\n':
			gap = true
		default:
			if gap && len(b) > start {
				b = append(b, ' ')
			}
			gap = false
			b = append(b, c)
		}
	}
	return b
}

// withoutSignature is a DKIM-Signature field, raw, with an empty b=: RFC 6376 section 3.5, what a signature itself signs.
func withoutSignature(raw string) string {
	_, tags, _ := strings.Cut(raw, ":")
	at := len(raw) - len(tags)
	for part := range strings.SplitSeq(tags, ";") {
		name, value, ok := strings.Cut(part, "=")
		if ok && strings.Trim(name, " \t\r\n") == "b" {
			end := at + len(part)
			return raw[:end-len(value)] + raw[end:]
		}
		at += len(part) + 1
	}
	return raw
}
