package pop3d

import (
	"context"
	"strconv"
	"strings"
	"unicode/utf8"
)

// command is one verb: what it does, in which states, and how many arguments it takes.
type command struct {
	run      func(s *session, ctx context.Context, arguments []string) reply
	allow    state
	min, max int
	needsTLS bool // it shows a password
	whole    bool // everything behind the blank is one argument
}

// commands is the table of all verbs. It is a function, not a variable, since the verbs' functions lead back to it.
func commands(verb string) (command, bool) {
	switch verb {
	case "CAPA":
		return command{run: (*session).capa, allow: anyState}, true
	case "STLS":
		return command{run: (*session).stls, allow: authorization}, true
	case "USER":
		return command{run: (*session).user, allow: authorization | named, min: 1, max: 1, needsTLS: true}, true
	case "PASS":
		// RFC 1939 section 7: a blank behind the first is part of the password.
		return command{run: (*session).pass, allow: named, min: 1, max: 1, needsTLS: true, whole: true}, true
	case "AUTH":
		return command{run: (*session).auth, allow: authorization | named, max: 2, needsTLS: true}, true
	case "UTF8":
		return command{run: (*session).utf8, allow: authorization}, true
	case "LANG":
		return command{run: (*session).lang, allow: anyState, max: 1}, true
	case "STAT":
		return command{run: (*session).stat, allow: transaction}, true
	case "LIST":
		return command{run: (*session).list, allow: transaction, max: 1}, true
	case "UIDL":
		return command{run: (*session).uidl, allow: transaction, max: 1}, true
	case "RETR":
		return command{run: (*session).retr, allow: transaction, min: 1, max: 1}, true
	case "TOP":
		return command{run: (*session).top, allow: transaction, min: 2, max: 2}, true
	case "DELE":
		return command{run: (*session).dele, allow: transaction, min: 1, max: 1}, true
	case "RSET":
		return command{run: (*session).rset, allow: transaction}, true
	case "NOOP":
		return command{run: (*session).noop, allow: transaction}, true
	case "QUIT":
		return command{run: (*session).quit, allow: anyState}, true
	}
	return command{}, false
}

// dispatch runs one command line and returns the answer.
func (s *session) dispatch(ctx context.Context, line []byte) reply {
	if !utf8.Valid(line) {
		return s.complain(replyNotUTF8)
	}
	verb, rest, _ := strings.Cut(string(line), " ")
	verb = strings.ToUpper(verb)
	c, known := commands(verb)
	arguments := strings.Fields(rest)
	if c.whole && rest != "" {
		arguments = []string{rest}
	}
	s.trace(verb, arguments)
	switch {
	case !known:
		return s.complain(replyUnknown)
	case c.allow&s.state == 0:
		return s.complain(replySequence)
	case c.needsTLS && s.client.TLS == nil:
		return s.complain(replyNeedsTLS)
	case len(arguments) < c.min || len(arguments) > c.max:
		return s.complain(replyArguments)
	}
	return c.run(s, ctx, arguments)
}

// trace logs a command for those who debug a dialogue. What opens a mailbox is masked here, once.
func (s *session) trace(verb string, arguments []string) {
	switch {
	case verb == "PASS":
		arguments = []string{"***"}
	case verb == "AUTH" && len(arguments) > 1:
		arguments = []string{arguments[0], "***"}
	}
	s.log.Debug("command", "verb", verb, "line", strings.Join(arguments, " "))
}

// message turns a message number into an index. It is the only way to one, so that no verb can reach a deleted message.
func (s *session) message(number string) (i int, refused *reply) {
	n, err := strconv.ParseUint(number, 10, 31)
	switch {
	case err != nil || strings.Trim(number, "0123456789") != "":
		r := s.complain(replyArguments)
		return 0, &r
	case n < 1 || n > uint64(len(s.marked)):
		return 0, &replyNoMessage
	case s.marked[n-1]:
		return 0, &replyDeleted
	}
	return int(n) - 1, nil
}
