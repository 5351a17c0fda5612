package pop3d

import (
	"bufio"
	"fmt"
	"strings"
)

// maxReplyLine is the longest first line of a response with its CR LF. RFC 2449 section 4.
const maxReplyLine = 512

// reply is one response: a first line, and the lines or the message that may follow it.
type reply struct {
	ok    bool
	code  Code
	text  string
	lines []string                    // RFC 1939 section 3: a multi-line response
	send  func(w *bufio.Writer) error // writes what follows the first line, its final dot included
}

func done(text string) reply { return reply{ok: true, text: text} }

func donef(format string, args ...any) reply { return done(fmt.Sprintf(format, args...)) }

func failed(code Code, text string) reply { return reply{code: code, text: text} }

// All that the engine says by itself, but for the numbers.
var (
	replyBye         = done("bye")
	replyOK          = done("ok")
	replyCapa        = "capability list follows"
	replyStartTLS    = done("begin TLS")
	replyPassword    = done("send PASS")
	replyReset       = done("nothing is marked as deleted")
	replyUTF8        = done("UTF8 enabled")
	replyUnknown     = failed("", "command not recognised")
	replySequence    = failed("", "command out of order")
	replyArguments   = failed("", "wrong arguments")
	replyNeedsTLS    = failed("", "start TLS first (STLS)")
	replyNoTLS       = failed("", "TLS is not available here")
	replyNoTLSYet    = failed(CodeSysTemp, "TLS is not available yet, come back later")
	replyTLSAlready  = failed("", "TLS has begun already")
	replyLineTooLong = failed("", "line too long")
	replyNewline     = failed("", "lines end with CR LF")
	replyBadOctet    = failed("", "a NUL or a bare CR has no place in a command")
	replyNotUTF8     = failed("", "not UTF-8")
	replyNoMessage   = failed("", "there is no such message")
	replyDeleted     = failed("", "this message is marked as deleted")
	replyErrors      = failed("", "too many errors, closing")
	replyMechanism   = failed("", "this mechanism is not offered")
	replyBase64      = failed("", "not base64")
	replyCancelled   = failed("", "authentication cancelled")
	replyLanguage    = failed("", "this language is not known here")
	replyNotDeleted  = failed(CodeSysTemp, "the deletions could not be carried out, nothing was deleted")
	replyConnections = failed(CodeSysTemp, "too many connections, try again later")
	replyIdle        = failed(CodeSysTemp, "nothing heard for too long, closing")
	replyShutdown    = failed(CodeSysTemp, "shutting down, try again later")
	replyLost        = failed(CodeSysTemp, "another session has taken this maildrop over, nothing was deleted")
	replyPanic       = failed(CodeSysTemp, "local error, closing")
)

// localError is what a client reads of an error that was not written for it.
func localError(sessionID string) reply {
	return failed(CodeSysTemp, "local error, try again later (session "+sessionID+")")
}

// line is the first line without its CR LF. Nothing in the text can end it.
func (r reply) line() string {
	var b strings.Builder
	if r.ok {
		b.WriteString("+OK")
	} else {
		b.WriteString("-ERR")
	}
	if r.code != "" {
		b.WriteString(" [" + string(r.code) + "]")
	}
	if r.text != "" {
		b.WriteString(" " + r.text)
	}
	clean := strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, b.String())
	if len(clean) > maxReplyLine-2 {
		clean = strings.ToValidUTF8(clean[:maxReplyLine-2], "")
	}
	return clean
}
