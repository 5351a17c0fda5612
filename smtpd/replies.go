package smtpd

import "fmt"

// All that the engine says by itself. The codes are those of RFC 5321 section 4.2.3, 4954 section 6 and 5248.
var (
	replyOK         = NewReply(250, 0, 0, "ok")
	replyReset      = NewReply(250, 0, 0, "flushed")
	replySenderOK   = NewReply(250, 1, 0, "sender ok")
	replyRcptOK     = NewReply(250, 1, 5, "recipient ok")
	replyBye        = NewReply(221, 0, 0, "bye")
	replyHelp       = NewReply(214, 0, 0, "this server speaks RFC 5321")
	replyVerify     = NewReply(252, 1, 5, "addresses are not verified; send the message and see")
	replyNoExpand   = NewReply(502, 5, 1, "lists are not expanded here")
	replyGoAhead    = Reply{Code: 354, Lines: []string{"send the message, end with a line with a single dot"}}
	replyStartTLS   = NewReply(220, 0, 0, "ready to start TLS")
	replyNoTLSYet   = NewReply(454, 7, 0, "TLS is not available yet, come back later") // RFC 3207 section 4
	replyLoggedIn   = NewReply(235, 7, 0, "logged in")
	replyCancelled  = NewReply(501, 7, 0, "authentication cancelled")
	replyBadBase64  = NewReply(501, 5, 2, "not base64")
	replyAuthLine   = NewReply(500, 5, 6, "authentication line too long")
	replyMechanism  = NewReply(504, 5, 4, "this mechanism is not offered")
	replyTwoLogins  = NewReply(503, 5, 1, "already logged in")
	replyLoginTLS   = NewReply(538, 7, 11, "start TLS before logging in")
	replyNeedsTLS   = NewReply(530, 7, 0, "start TLS first")
	replyNeedsLogin = NewReply(530, 7, 0, "log in first")

	replyUnknown     = NewReply(500, 5, 1, "command not recognised")
	replyNotHere     = NewReply(502, 5, 1, "command not available here")
	replySequence    = NewReply(503, 5, 1, "command out of order")
	replyHelloFirst  = NewReply(503, 5, 1, "say EHLO first")
	replyNoRcpt      = NewReply(503, 5, 1, "no recipient was accepted")
	replySyntax      = NewReply(501, 5, 4, "syntax error in the arguments")
	replyNoArguments = NewReply(501, 5, 4, "this command takes no arguments")
	replyLineTooLong = NewReply(500, 5, 2, "line too long")
	replyNewline     = NewReply(500, 5, 2, "lines end with CR LF")
	replyBadOctet    = NewReply(500, 5, 2, "a NUL or a bare CR has no place in a command")
	replyNotUTF8     = NewReply(500, 5, 2, "not UTF-8")

	replyParameter = NewReply(555, 5, 4, "parameter not recognised, or not offered now")
	replyTwice     = NewReply(501, 5, 4, "parameter given twice")
	replyValue     = NewReply(501, 5, 4, "bad value of a parameter")
	replyUTF8      = NewReply(553, 6, 7, "an address beyond ASCII needs SMTPUTF8")
	replyTooMany   = NewReply(452, 5, 3, "too many recipients")

	replyTooLarge    = NewReply(552, 3, 4, "message larger than this server accepts")
	replyTextLine    = NewReply(552, 3, 4, "the message has a line of more than 65,536 octets")
	replyBareNewline = NewReply(550, 5, 2, "the message has a CR or LF that is not part of a CR LF")
	replyChunk       = NewReply(501, 5, 4, "BDAT needs a size in octets, and LAST at the end")

	replyErrors      = NewReply(421, 7, 0, "too many errors, closing")
	replyConnections = NewReply(421, 7, 0, "too many connections, try again later")
	replyIdle        = NewReply(421, 4, 2, "nothing heard for too long, closing")
	replyTooSlow     = NewReply(421, 4, 2, "the message arrives too slowly, closing")
	replyTooLong     = NewReply(421, 4, 2, "this session lasts too long, closing")
	replyShutdown    = NewReply(421, 3, 2, "shutting down, try again later")
	replyPanic       = NewReply(421, 3, 0, "local error, closing")
)

// replyLocalError is what a client reads of an error that was not written for it.
func replyLocalError(sessionID string) Reply {
	return NewReply(451, 3, 0, fmt.Sprintf("local error, try again later (session %s)", sessionID))
}
