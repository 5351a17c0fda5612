package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

// ErrHeaderTooLarge is the error of a header beyond its HeaderLimits.
var ErrHeaderTooLarge = errors.New("message: header too large")

// HeaderLimits bounds what ReadHeader reads. A zero value in it stands for the default: 256 KiB, 2,000 fields.
type HeaderLimits struct {
	Octets int // with the empty line at the end
	Fields int
}

const (
	defaultHeaderOctets = 256 << 10
	defaultHeaderFields = 2000
)

// Header is the header of a letter: its fields in order, as spans of octets counted from the start of the letter.
//
// Malformed letters are read so that no field that some mail program would show stays unseen. Lines end with LF or CR LF.
// The header ends with the first empty line, or with the letter. A line in it that is neither a field nor a continuation
// is malformed: it belongs to the span of the field before it, not to its value, and the header goes on. Such lines before
// the first field (a continuation, the "From " of an mbox file) belong to no field. Only if the very first line is none
// of all these, and not empty, is there no header at all: the whole letter is body.
type Header struct {
	Fields     []Field
	BodyOffset int64 // where the body starts, after the empty line
	Malformed  int   // lines that are neither a field nor the continuation of one
}

// Field is one header field.
type Field struct {
	Name       string // as written, without the blanks that may precede the colon
	Body       string // what follows the colon: raw, folded, without the last line's end
	Start, End int64  // the whole field in the letter, with its lines' ends and the malformed lines after it
	BodyStart  int64  // where Body is in the letter
}

// Is tells whether the field has this name, in any case.
func (f Field) Is(name string) bool { return strings.EqualFold(f.Name, name) }

// Value is the body unfolded (RFC 5322 section 2.2.3) and without blanks around it.
func (f Field) Value() string {
	value := f.Body
	if strings.Contains(value, "\n") {
		value = strings.ReplaceAll(strings.ReplaceAll(value, "\r\n", ""), "\n", "")
	}
	return strings.Trim(value, " \t\r")
}

// Get returns the value of the first field of this name, or "".
func (h *Header) Get(name string) string {
	for f := range h.All(name) {
		return f.Value()
	}
	return ""
}

// Count is how many fields have this name.
func (h *Header) Count(name string) int {
	n := 0
	for range h.All(name) {
		n++
	}
	return n
}

// All yields the fields of this name, in order.
func (h *Header) All(name string) iter.Seq[Field] {
	return func(yield func(Field) bool) {
		for _, f := range h.Fields {
			if f.Is(name) && !yield(f) {
				return
			}
		}
	}
}

// ReadHeader reads the header at the start of r, which it reads a little further than the header. Its errors are
// ErrHeaderTooLarge and those of r: no letter is too malformed to have a Header.
func ReadHeader(r io.Reader, limits HeaderLimits) (*Header, error) {
	if limits.Octets <= 0 {
		limits.Octets = defaultHeaderOctets
	}
	if limits.Fields <= 0 {
		limits.Fields = defaultHeaderFields
	}
	block, tooLarge, err := readBlock(r, limits.Octets)
	if err != nil {
		return nil, fmt.Errorf("message: read header: %w", err)
	}
	if !startsHeader(block) {
		return &Header{}, nil
	}
	if tooLarge {
		return nil, ErrHeaderTooLarge
	}
	return parseHeader(string(block), limits.Fields)
}

// readBlock reads up to and including the first empty line, or the end of the letter. It is too large when neither is
// within limit octets.
func readBlock(r io.Reader, limit int) (block []byte, tooLarge bool, err error) {
	block = make([]byte, 0, min(4<<10, limit)+1)
	line := 0 // where the first line starts that has not been looked at
	for {
		if len(block) == cap(block) {
			block = append(make([]byte, 0, min(2*cap(block), limit)+1), block...)
		}
		n, err := r.Read(block[len(block):cap(block)])
		searched := len(block)
		block = block[:searched+n]
		for {
			i := bytes.IndexByte(block[searched:], '\n')
			if i < 0 {
				break
			}
			next := searched + i + 1
			if isEmptyLine(block[line:next]) && next <= limit {
				return block[:next], false, nil
			}
			line, searched = next, next
		}
		switch {
		case len(block) > limit:
			return block, true, nil
		case err == io.EOF:
			return block, false, nil
		case err != nil:
			return nil, false, err
		}
	}
}

// isEmptyLine tells whether the line, given with its end, holds nothing else.
func isEmptyLine(line []byte) bool {
	return len(line) == 1 || len(line) == 2 && line[0] == '\r'
}

// startsHeader tells whether the first line can be in a header.
func startsHeader(block []byte) bool {
	line := block
	if i := bytes.IndexByte(block, '\n'); i >= 0 {
		line = block[:i+1]
		if isEmptyLine(line) {
			return true
		}
	}
	if len(line) == 0 {
		return true
	}
	first := string(line[:min(len(line), maxName)])
	_, _, isField := cutName(first)
	return isField || isBlank(line[0]) || strings.HasPrefix(first, "From ") || strings.HasPrefix(first, ">From ")
}

// maxName bounds a field name with its colon: RFC 5322 section 2.1.1 allows no longer line.
const maxName = 998

// parseHeader parses a block of complete lines, all of which are the header's.
func parseHeader(block string, maxFields int) (*Header, error) {
	h := &Header{BodyOffset: int64(len(block))}
	var last *Field
	body := -1 // where the body of the last field starts, or -1 when a malformed line has ended it
	for start, end := 0, 0; start < len(block); start = end {
		end = lineEnd(block, start)
		line := block[start:end]
		name, colon, isField := cutName(line)
		switch {
		case line == "\n" || line == "\r\n":
			return h, nil
		case isField && len(h.Fields) == maxFields:
			return nil, ErrHeaderTooLarge
		case isField:
			h.Fields = append(h.Fields, Field{Name: name, Start: int64(start)})
			last = &h.Fields[len(h.Fields)-1]
			body = start + colon + 1
			last.BodyStart = int64(body)
		case !isBlank(line[0]) || body < 0:
			h.Malformed++
			body = -1
		}
		if body >= 0 {
			last.Body = trimLineEnd(block[body:end])
		}
		if last != nil {
			last.End = int64(end)
		}
	}
	return h, nil
}

// lineEnd is where the line ends that starts at start, after its LF.
func lineEnd(block string, start int) int {
	if i := strings.IndexByte(block[start:], '\n'); i >= 0 {
		return start + i + 1
	}
	return len(block)
}

// cutName returns the field name at the start of line and where its colon is. RFC 5322 section 2.2: printable ASCII but
// the colon; section 4.5: blanks may precede the colon.
func cutName(line string) (name string, colon int, ok bool) {
	n := 0
	for n < len(line) && n < maxName && line[n] > ' ' && line[n] < 0x7f && line[n] != ':' {
		n++
	}
	colon = n
	for colon < len(line) && isBlank(line[colon]) {
		colon++
	}
	if n == 0 || colon == len(line) || line[colon] != ':' {
		return "", 0, false
	}
	return line[:n], colon, true
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func trimLineEnd(s string) string {
	return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
}
