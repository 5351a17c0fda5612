package wire

import (
	"bufio"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The limits of a reply that a client reads: more than any honest server sends, and little enough to hold.
const (
	maxReadLine  = 2048
	maxReadLines = 128
)

// ErrBadReply is returned for what is no SMTP reply, or one without an end.
var ErrBadReply = errors.New("wire: not an SMTP reply")

// ReadReply reads one reply of a server. It holds at most 128 lines of 2,048 octets; beyond that the connection is not
// worth keeping. An enhanced status code is taken out of the text where all lines have the same one.
func ReadReply(br *bufio.Reader) (Reply, error) {
	var r Reply
	for range maxReadLines {
		line, err := ReadLine(br, maxReadLine)
		switch {
		case errors.Is(err, ErrLineTooLong), errors.Is(err, ErrBadOctet), errors.Is(err, ErrBareNewline):
			return Reply{}, fmt.Errorf("%w: %w", ErrBadReply, err)
		case err != nil:
			return Reply{}, err
		}
		code, text, more, ok := parseReplyLine(string(line))
		if !ok || (r.Code != 0 && r.Code != code) {
			return Reply{}, fmt.Errorf("%w: %.60q", ErrBadReply, line)
		}
		r.Code = code
		r.Lines = append(r.Lines, text)
		if !more {
			r.takeEnhanced()
			return r, nil
		}
	}
	return Reply{}, fmt.Errorf("%w: more than %d lines", ErrBadReply, maxReadLines)
}

// parseReplyLine takes "250-text", "250 text" or "250" apart. RFC 5321 section 4.2.
func parseReplyLine(line string) (code int, text string, more, ok bool) {
	if len(line) < 3 {
		return 0, "", false, false
	}
	code, err := strconv.Atoi(line[:3])
	if err != nil || code < 200 || code > 599 {
		return 0, "", false, false
	}
	switch rest := line[3:]; {
	case rest == "":
		return code, "", false, true
	case rest[0] == ' ' || rest[0] == '-':
		return code, rest[1:], rest[0] == '-', true
	}
	return 0, "", false, false
}

// takeEnhanced moves the enhanced status code from the lines to its field.
func (r *Reply) takeEnhanced() {
	var common Enhanced
	for i, line := range r.Lines {
		e, _, ok := cutEnhanced(r.Code/100, line)
		if !ok || (i > 0 && e != common) {
			return
		}
		common = e
	}
	if r.Code/100 == 3 {
		return // Append would not write it
	}
	r.Enhanced = common
	for i, line := range r.Lines {
		_, r.Lines[i], _ = cutEnhanced(r.Code/100, line)
	}
}

// cutEnhanced takes "2.1.5 text" apart, where the class is the given one. RFC 2034 section 4: subject and detail are at
// most three digits.
func cutEnhanced(class int, line string) (e Enhanced, text string, ok bool) {
	word, text, ok := strings.Cut(line, " ")
	parts := strings.Split(word, ".")
	if !ok || len(parts) != 3 || parts[0] != strconv.Itoa(class) {
		return Enhanced{}, line, false
	}
	subject, ok1 := parseDetail(parts[1])
	detail, ok2 := parseDetail(parts[2])
	return Enhanced{subject, detail, true}, text, ok1 && ok2
}

func parseDetail(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && len(s) <= 3 && strconv.FormatUint(n, 10) == s
}
