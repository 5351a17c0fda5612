package wire

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxReplyLine is the longest reply line with its CR LF. RFC 5321 section 4.5.3.1.5.
const maxReplyLine = 512

// Enhanced is an enhanced status code without its class, which is the first digit of the reply code: a 450 with 5.x.x
// cannot be written. RFC 2034, RFC 3463.
type Enhanced struct {
	Subject, Detail uint16
	present         bool
}

// Reply is an SMTP reply. The zero value is no reply.
type Reply struct {
	Code     int
	Enhanced Enhanced // none when zero: the greeting, the answer to EHLO and 3yz replies have none (RFC 2034 section 4)
	Lines    []string // the text, a line each; what cannot stand in a line is replaced when it is written
}

// NewReply returns a reply with an enhanced status code.
func NewReply(code int, subject, detail uint16, lines ...string) Reply {
	return Reply{Code: code, Enhanced: Enhanced{subject, detail, true}, Lines: lines}
}

// PlainReply returns a reply without an enhanced status code.
func PlainReply(code int, lines ...string) Reply { return Reply{Code: code, Lines: lines} }

// IsZero tells whether there is no reply.
func (r Reply) IsZero() bool { return r.Code == 0 }

// Positive tells whether the reply is 2yz or 3yz.
func (r Reply) Positive() bool { return r.Code/100 == 2 || r.Code/100 == 3 }

// Temporary tells whether the reply is 4yz.
func (r Reply) Temporary() bool { return r.Code/100 == 4 }

// Permanent tells whether the reply is 5yz.
func (r Reply) Permanent() bool { return r.Code/100 == 5 }

// Append appends the reply as it goes over the wire. Every line of several repeats both codes, as the example of
// RFC 2034 section 6 does.
func (r Reply) Append(b []byte) []byte {
	lines := r.Lines
	if len(lines) == 0 {
		lines = []string{""}
	}
	for i, text := range lines {
		b = strconv.AppendInt(b, int64(r.Code), 10)
		start := len(b) - 3
		if i < len(lines)-1 {
			b = append(b, '-')
		} else {
			b = append(b, ' ')
		}
		b = r.appendEnhanced(b)
		b = appendText(b, text, maxReplyLine-2-(len(b)-start))
		b = append(b, '\r', '\n')
	}
	return b
}

func (r Reply) appendEnhanced(b []byte) []byte {
	if !r.Enhanced.present || r.Code/100 == 3 {
		return b
	}
	b = strconv.AppendInt(b, int64(r.Code/100), 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(r.Enhanced.Subject), 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(r.Enhanced.Detail), 10)
	return append(b, ' ')
}

// appendText appends at most room octets of text. Control characters become blanks, so that no text can begin a line,
// and what is not UTF-8 becomes the replacement character.
func appendText(b []byte, text string, room int) []byte {
	for _, c := range text {
		if c < ' ' || c == 0x7f {
			c = ' '
		}
		if room -= utf8.RuneLen(c); room < 0 {
			break
		}
		b = utf8.AppendRune(b, c)
	}
	return b
}

// String returns the reply on one line, for logs.
func (r Reply) String() string {
	var b []byte
	b = strconv.AppendInt(b, int64(r.Code), 10)
	b = append(b, ' ')
	b = r.appendEnhanced(b)
	return string(appendText(b, strings.Join(r.Lines, " / "), 4*maxReplyLine))
}

// Refusal is an error with the words that the peer reads. Why is for the log only.
type Refusal struct {
	Reply Reply
	Why   error
}

// Error returns the reply and the reason.
func (r *Refusal) Error() string {
	if r.Why == nil {
		return r.Reply.String()
	}
	return fmt.Sprintf("%s (%v)", r.Reply, r.Why)
}

// Unwrap returns the reason.
func (r *Refusal) Unwrap() error { return r.Why }
