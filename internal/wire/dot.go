package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// ErrTruncated is returned when the input ends before the final dot. It is deliberately neither io.EOF nor
// io.ErrUnexpectedEOF: no io helper takes it for the end of a message.
var ErrTruncated = errors.New("wire: input ended before the end of the data")

// dotState is where a DotReader stands in a line. Only CR LF . CR LF ends the data (RFC 5321 section 4.1.1.4).
//
//	          other    CR       LF          .
//	lineStart inLine   cr       inLine*     dot (the dot is dropped)
//	inLine    inLine   cr       inLine*     inLine
//	cr        inLine*  cr*      lineStart   inLine*
//	dot       inLine   dotCR    inLine*     inLine
//	dotCR     inLine*  cr*      end         inLine*
//
// A star marks a bare CR or LF. In dotCR the CR is held back, and given out first when the LF does not follow.
type dotState uint8

const (
	lineStart dotState = iota
	inLine
	afterCR
	afterDot
	afterDotCR
	ended
)

// DotReader decodes data that a line with a single dot ends, and removes the dots that the sender put before lines
// that begin with one. It reads nothing after the end, so that pipelined commands stay in the buffered reader.
type DotReader struct {
	br    *bufio.Reader
	state dotState
	bare  bool
	held  bool // a CR that belongs to the content waits to be given out
}

// NewDotReader returns a reader of the data that begins in br.
func NewDotReader(br *bufio.Reader) *DotReader { return &DotReader{br: br} }

// Bare tells whether a CR or LF stood alone so far. Such octets are passed on unchanged; whether the message is
// refused for them is the caller's to say.
func (d *DotReader) Bare() bool { return d.bare }

// Ended tells whether the end of the data was seen.
func (d *DotReader) Ended() bool { return d.state == ended }

// Read returns io.EOF after the end was seen and ErrTruncated when the input ended before. Other errors of the input,
// such as a passed deadline, are wrapped.
func (d *DotReader) Read(p []byte) (n int, err error) {
	for n == 0 && len(p) > 0 {
		if d.state == ended && !d.held {
			return 0, io.EOF
		}
		if d.held {
			p[0], d.held = '\r', false
			return 1, nil
		}
		buf, err := d.peek()
		if err != nil {
			return 0, err
		}
		var used int
		n, used = d.decode(p, buf)
		if _, err := d.br.Discard(used); err != nil {
			return n, err
		}
	}
	return n, nil
}

// peek returns what is buffered, and waits for input when nothing is.
func (d *DotReader) peek() ([]byte, error) {
	if d.br.Buffered() == 0 {
		switch _, err := d.br.Peek(1); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, ErrTruncated
		case err != nil:
			return nil, fmt.Errorf("wire: read data: %w", err)
		}
	}
	return d.br.Peek(d.br.Buffered())
}

// decode copies from src to dst until one of them is used up, the data ends, or a held CR must go first.
func (d *DotReader) decode(dst, src []byte) (n, used int) {
	for n < len(dst) && used < len(src) && d.state != ended && !d.held {
		if d.state == inLine {
			// The long way through a line is one search for its CR and one for a bare LF before it.
			run := src[used:min(len(src), used+len(dst)-n)]
			if i := bytes.IndexByte(run, '\r'); i >= 0 {
				run = run[:i]
			}
			if bytes.IndexByte(run, '\n') >= 0 {
				d.bare = true
			}
			copy(dst[n:], run)
			n, used = n+len(run), used+len(run)
			if n == len(dst) || used == len(src) {
				break
			}
		}
		c := src[used]
		if !d.step(c) {
			used++
			continue
		}
		if d.held {
			break // the CR before c goes out first, and c is looked at again
		}
		dst[n] = c
		n, used = n+1, used+1
	}
	return n, used
}

// step moves the state over one octet and tells whether the octet is content.
func (d *DotReader) step(c byte) (content bool) {
	switch d.state {
	case lineStart:
		return d.inside(c, afterDot)
	case inLine:
		return d.inside(c, inLine)
	case afterCR:
		if c == '\n' {
			d.state = lineStart
			return true
		}
		d.bare = true
		return d.inside(c, inLine)
	case afterDot:
		if c == '\r' {
			d.state = afterDotCR
			return false
		}
		return d.inside(c, inLine)
	case afterDotCR:
		if c == '\n' {
			d.state = ended
			return false
		}
		// The held CR is bare; c is looked at again with the CR behind it.
		d.held, d.state = true, afterCR
		return true
	}
	return false
}

// inside handles an octet that is not preceded by a CR. onDot is the state after a dot.
func (d *DotReader) inside(c byte, onDot dotState) (content bool) {
	switch c {
	case '\r':
		d.state = afterCR
	case '\n':
		d.bare, d.state = true, inLine
	case '.':
		d.state = onDot
		return onDot != afterDot
	default:
		d.state = inLine
	}
	return true
}

// DotWriter encodes data for a peer that reads it up to a line with a single dot. Lines end with CR LF; a bare CR or LF
// is written as it is and begins no line.
type DotWriter struct {
	w     *bufio.Writer
	state dotState // lineStart, inLine or afterCR
}

// NewDotWriter returns a writer of data to w. It does not flush.
func NewDotWriter(w *bufio.Writer) *DotWriter { return &DotWriter{w: w} }

// Write encodes p.
func (d *DotWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if d.state == lineStart && p[0] == '.' {
			if err := d.w.WriteByte('.'); err != nil {
				return written, err
			}
		}
		line := p
		end := bytes.IndexByte(p, '\n')
		if end >= 0 {
			line = p[:end+1]
		}
		n, err := d.w.Write(line)
		written += n
		if err != nil {
			return written, err
		}
		d.advance(line, end >= 0)
		p = p[len(line):]
	}
	return written, nil
}

// advance moves the state over a piece of a line; newline tells that it ends with LF.
func (d *DotWriter) advance(line []byte, newline bool) {
	beforeLF := d.state == afterCR
	if newline {
		if len(line) > 1 {
			beforeLF = line[len(line)-2] == '\r'
		}
		d.state = inLine
		if beforeLF {
			d.state = lineStart
		}
		return
	}
	d.state = inLine
	if line[len(line)-1] == '\r' {
		d.state = afterCR
	}
}

// Close ends the data: with a CR LF when the last line has none, and the final dot. It does not flush.
func (d *DotWriter) Close() error {
	end := ".\r\n"
	if d.state != lineStart {
		end = "\r\n.\r\n"
	}
	_, err := d.w.WriteString(end)
	return err
}
