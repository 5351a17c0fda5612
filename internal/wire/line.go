package wire

import (
	"bufio"
	"bytes"
	"errors"
)

var (
	// ErrLineTooLong is returned for a line over the limit. The rest of it is still unread: call DiscardLine.
	ErrLineTooLong = errors.New("wire: line too long")
	// ErrBareNewline is returned for a line that ended with LF alone. RFC 5321 section 2.3.8: lines end with CR LF,
	// and nothing else ends one. The line is consumed.
	ErrBareNewline = errors.New("wire: line ended without a CR")
	// ErrBadOctet is returned for a line that holds a NUL or a CR that is not part of its end. The line is consumed.
	ErrBadOctet = errors.New("wire: NUL or bare CR in a line")
)

// ReadLine reads one line and returns it without its CR LF. max counts the CR LF (RFC 5321 section 4.5.3.1.4 does). The
// result is valid until the next read of br. Besides the errors above it returns those of br as they are; an end of
// input inside a line is io.EOF, like one before it, since neither is a command.
func ReadLine(br *bufio.Reader, max int) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) && len(line) < max {
		line, err = readLong(br, line, max)
	}
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, ErrLineTooLong
	case err != nil:
		return nil, err
	case len(line) > max:
		// The line is consumed, but DiscardLine will be called and must not eat the next one.
		return nil, unreadNewline(br)
	}
	return trimLine(line)
}

// readLong collects a line that is longer than the buffer of br.
func readLong(br *bufio.Reader, start []byte, max int) ([]byte, error) {
	line := bytes.Clone(start)
	for {
		more, err := br.ReadSlice('\n')
		line = append(line, more...)
		if !errors.Is(err, bufio.ErrBufferFull) || len(line) >= max {
			return line, err
		}
	}
}

// unreadNewline puts the LF of an overlong line back, so that DiscardLine finds it.
func unreadNewline(br *bufio.Reader) error {
	if err := br.UnreadByte(); err != nil {
		return err
	}
	return ErrLineTooLong
}

func trimLine(line []byte) ([]byte, error) {
	content, ok := bytes.CutSuffix(line, []byte("\r\n"))
	switch {
	case !ok:
		return nil, ErrBareNewline
	case bytes.IndexByte(content, 0) >= 0 || bytes.IndexByte(content, '\r') >= 0:
		return nil, ErrBadOctet
	}
	return content, nil
}

// DiscardLine drops input up to the next LF. After more than limit octets without one it returns ErrLineTooLong, and
// the connection is not worth keeping.
func DiscardLine(br *bufio.Reader, limit int64) error {
	for {
		part, err := br.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if limit -= int64(len(part)); limit < 0 {
			return ErrLineTooLong
		}
	}
}
