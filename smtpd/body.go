package smtpd

import (
	"bytes"
	"errors"
	"io"

	"github.com/postroom/postroom/internal/limit"
)

// errAborted ends the body of a message that its client gave up with RSET, QUIT or EHLO between two chunks.
var errAborted = errors.New("smtpd: the client gave the message up")

// source is where the octets of a message come from: DATA or BDAT.
type source interface {
	// Read returns io.EOF only when the end of the message was seen.
	io.Reader
	// bare tells, at the end, whether a CR or LF stood alone.
	bare() bool
	// skip drops what the client is bound to send now: all of DATA, or the rest of a chunk.
	skip(limit int64) error
}

// body is a message on its way to the hook. It enforces what RFC 5321 section 4.5.3 lets a server limit.
//
//	reading --end seen--> ended --nothing wrong--> io.EOF
//	   |                    \--bare CR or LF--> refused
//	   |--too large, line too long--> the rest is skipped --> refused
//	   \--cut, too slow, given up--> broken: there is no way back to commands, or nobody to answer
type body struct {
	src     source
	size    int64
	maxSize int64
	line    int  // octets of the line so far
	strict  bool // a bare CR or LF refuses the message
	err     error
	ended   bool
}

// Read gives the hook the message.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.src.Read(p)
	b.size += int64(n)
	switch {
	case b.size > b.maxSize:
		return 0, b.refuse(replyTooLarge)
	case b.lineTooLong(p[:n]):
		return 0, b.refuse(replyTextLine)
	case errors.Is(err, io.EOF):
		b.ended = true
		if b.err = io.EOF; b.strict && b.src.bare() {
			b.err = &Refusal{Reply: replyBareNewline}
		}
	case err != nil:
		b.err = err
	}
	if n > 0 && b.err == io.EOF {
		return n, nil
	}
	return n, b.err
}

// refuse ends the body with a reply that will be sent once the client has said all of it.
func (b *body) refuse(r Reply) error {
	b.err = &Refusal{Reply: r}
	if err := b.src.skip(b.maxSize); err != nil {
		b.err = err
	}
	return b.err
}

// finish skips what the hook left unread, and tells whether it had read the message to its end.
func (b *body) finish() (whole bool) {
	if b.err == nil {
		if err := b.src.skip(b.maxSize); err != nil {
			b.err = err
		}
		return false
	}
	return b.ended
}

func (b *body) lineTooLong(p []byte) bool {
	if b.line+len(p) <= maxTextLine {
		if i := bytes.LastIndexByte(p, '\n'); i >= 0 {
			b.line = len(p) - i - 1
		} else {
			b.line += len(p)
		}
		return false
	}
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			b.line += len(p)
			return b.line > maxTextLine
		}
		if b.line+i+1 > maxTextLine {
			return true
		}
		b.line, p = 0, p[i+1:]
	}
}

// normalised turns every bare CR and bare LF of a message into CR LF, as RFC 6409 section 8 lets a submission server do.
type normalised struct {
	src     io.Reader
	in      []byte
	out     []byte // converted and not given out yet
	afterCR bool
	err     error
}

func (r *normalised) Read(p []byte) (int, error) {
	for len(r.out) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if r.in == nil {
			r.in = make([]byte, 4096)
		}
		n, err := r.src.Read(r.in)
		r.err = err
		r.convert(r.in[:n])
		if r.afterCR && errors.Is(err, io.EOF) {
			r.out, r.afterCR = append(r.out, '\n'), false
		}
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}

func (r *normalised) convert(in []byte) {
	r.out = r.out[:0]
	for _, c := range in {
		switch {
		case c == '\n' && !r.afterCR:
			r.out = append(r.out, '\r')
		case c != '\n' && r.afterCR:
			r.out = append(r.out, '\n')
		}
		r.out = append(r.out, c)
		r.afterCR = c == '\r'
	}
}

// slow tells whether the body ended because it trickled in.
func slow(err error) bool { return errors.Is(err, limit.ErrTooSlow) }
