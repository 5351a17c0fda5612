package smtpd

import (
	"bytes"
	"context"
	"strings"
	"unicode/utf8"

	"github.com/postroom/postroom/internal/wire"
)

// flags are the facts about a verb that the dispatcher enforces.
type flags uint8

const (
	noArguments    flags = 1 << iota // RFC 5321 section 4.1.1
	needsLogin                       // on a submission server
	submissionOnly                   // unknown elsewhere
	endsChunks                       // ends a message whose last BDAT has not come
	readsOn                          // reads what follows by itself, so a wrong state is its own matter
)

// command is one verb: what it does, in which states, and what else must hold.
type command struct {
	run   func(s *session, ctx context.Context, arguments string) Reply
	allow state
	flags flags
}

// commands is the table of all verbs. It is a function, not a variable, since the verbs' functions lead back to it.
func commands(verb string) (command, bool) {
	switch verb {
	case "EHLO":
		return command{(*session).ehlo, anyState, endsChunks}, true
	case "HELO":
		return command{(*session).helo, anyState, endsChunks}, true
	case "STARTTLS":
		return command{(*session).startTLS, fresh | greeted, noArguments}, true
	case "AUTH":
		return command{(*session).auth, greeted, submissionOnly}, true
	case "MAIL":
		return command{(*session).mail, greeted, needsLogin}, true
	case "RCPT":
		return command{(*session).rcpt, sender | recipients, needsLogin}, true
	case "DATA":
		return command{(*session).data, recipients, noArguments | needsLogin}, true
	case "BDAT":
		return command{(*session).bdat, anyState, readsOn}, true
	case "RSET":
		return command{(*session).rset, anyState, noArguments | endsChunks}, true
	case "NOOP":
		return command{(*session).noop, anyState, 0}, true
	case "QUIT":
		return command{(*session).quit, anyState, noArguments | endsChunks}, true
	case "VRFY":
		return command{(*session).vrfy, anyState, 0}, true
	case "EXPN":
		return command{(*session).expn, anyState, 0}, true
	case "HELP":
		return command{(*session).help, anyState, 0}, true
	}
	return command{}, false
}

// dispatch runs one command line and answers it.
func (s *session) dispatch(ctx context.Context, line []byte) {
	if !utf8.Valid(line) {
		s.complain(replyNotUTF8)
		return
	}
	verb, arguments := splitVerb(line)
	s.trace(verb, arguments)
	c, known := commands(verb)
	if refused := s.mayRun(c, known, arguments); !refused.IsZero() {
		s.complain(refused)
		return
	}
	r := c.run(s, ctx, arguments)
	switch {
	case r.IsZero(): // it answered by itself, or the connection is gone
	case r.Code/10 == 50:
		s.complain(r)
	default:
		s.reply(r)
	}
}

// mayRun enforces the columns of the table.
func (s *session) mayRun(c command, known bool, arguments string) Reply {
	switch {
	case !known:
		return replyUnknown
	case c.flags&submissionOnly != 0 && !s.server.Submission:
		return replyNotHere
	case c.flags&readsOn != 0:
		return Reply{}
	case c.flags&needsLogin != 0 && s.server.Submission && s.client.TLS == nil:
		return replyNeedsTLS
	case c.flags&needsLogin != 0 && s.server.Submission && !s.client.Authenticated:
		return replyNeedsLogin
	case c.allow&s.state == 0 && s.state == fresh:
		return replyHelloFirst
	case c.allow&s.state == 0 && s.state == sender && c.allow == recipients:
		return replyNoRcpt
	case c.allow&s.state == 0:
		return replySequence
	case c.flags&noArguments != 0 && arguments != "":
		return replyNoArguments
	}
	return Reply{}
}

// splitVerb takes the first word, in capitals, from the rest of a line. Blanks at its end are no arguments.
func splitVerb(line []byte) (verb, arguments string) {
	word, rest, _ := bytes.Cut(line, []byte(" "))
	if len(word) > 16 {
		word = word[:16] // longer than any verb
	}
	return strings.ToUpper(string(word)), strings.Trim(string(rest), " \t")
}

// trace logs a command for those who debug a dialogue. What follows AUTH opens a mailbox and is masked here, once.
func (s *session) trace(verb, arguments string) {
	if verb == "AUTH" {
		mechanism, _, _ := strings.Cut(arguments, " ")
		arguments = mechanism + " ***"
	}
	s.log.Debug("command", "verb", verb, "line", arguments)
}

// pathArgument parses "FROM:<path> parameters". RFC 5321 section 3.3: no blank stands behind the colon, but programs
// that put one there are many.
func pathArgument(arguments, keyword string, parse func(string) (Path, string, error)) (p Path, parameters string, r Reply) {
	if len(arguments) < len(keyword) || !strings.EqualFold(arguments[:len(keyword)], keyword) {
		return Path{}, "", NewReply(501, 5, 4, "expected "+keyword+"<address>")
	}
	p, parameters, err := parse(strings.TrimLeft(arguments[len(keyword):], " "))
	if err != nil {
		subject := uint16(3) // 5.1.3: bad destination mailbox address syntax
		if keyword == "FROM:" {
			subject = 7 // 5.1.7: bad sender's mailbox address syntax
		}
		return Path{}, "", wire.NewReply(501, 1, subject, err.Error())
	}
	return p, parameters, Reply{}
}
