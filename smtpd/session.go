package smtpd

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/postroom/postroom/internal/limit"
	"github.com/postroom/postroom/internal/wire"
)

// state is where a session stands. The states are bits, so that the command table can name several.
//
//	fresh --EHLO, HELO--> greeted --MAIL--> sender --RCPT--> recipients --DATA or the last BDAT--> greeted
//	                                                              \--BDAT--> chunks --the last BDAT--> greeted
//	any --STARTTLS--> fresh      any but fresh --RSET, EHLO, HELO--> greeted
type state uint8

const (
	fresh state = 1 << iota
	greeted
	sender
	recipients
	chunks // between two BDAT commands; the body hook is running

	anyState = fresh | greeted | sender | recipients | chunks
)

// session is who the client is and where the dialogue stands. A transaction is a value of its own.
type session struct {
	server *Server
	conn   *wire.Conn
	log    *slog.Logger
	limits Limits
	slot   *limit.Slot
	client Client
	began  time.Time

	hooks   Session
	state   state
	tx      *transaction // nil outside of a transaction
	pending []byte       // a command that ended a BDAT transaction and is still to be run
	hasNext bool         // pending is set
	closed  bool         // after the current reply

	mailSeen    bool
	bad         int // commands
	refused     int // recipients
	loginErrors int
}

// run is the life of a connection.
func (s *session) run(ctx context.Context) {
	if !s.acquire(ctx) {
		return
	}
	defer s.slot.Release()
	if s.server.ImplicitTLS && !s.secure(ctx) {
		return
	}
	hooks, err := s.server.Handler.Connect(ctx, &s.client)
	if err != nil {
		s.reply(s.refusal("connect", err))
		_ = s.conn.Flush() // closed either way
		return
	}
	s.hooks, s.state = hooks, fresh
	defer s.hooks.Close()
	defer s.endTransaction()
	s.log.Debug("connected")
	s.reply(wire.PlainReply(220, s.server.Hostname+" ESMTP Postroom"))
	for !s.closed {
		s.next(ctx)
	}
	if err := s.conn.Flush(); err != nil {
		s.log.Debug("last reply not sent", "err", err)
	}
	s.log.Debug("disconnected")
}

// next reads and runs one command.
func (s *session) next(ctx context.Context) {
	line, err := s.command()
	if err != nil {
		s.unreadable(err)
		return
	}
	s.dispatch(ctx, line)
}

// command returns the next command line.
func (s *session) command() ([]byte, error) {
	if s.hasNext {
		s.hasNext = false
		return s.pending, nil
	}
	if !s.server.Submission {
		return s.line(maxCommandLine)
	}
	// An AUTH command may be longer than the others: RFC 4954 section 4.
	line, err := s.line(maxAuthLine)
	if verb, _ := splitVerb(line); err == nil && verb != "AUTH" && len(line)+2 > maxCommandLine {
		return nil, errLongCommand
	}
	return line, err
}

// errLongCommand is a line that only AUTH may have; it is consumed.
var errLongCommand = errors.New("smtpd: command line too long")

// line reads a line. A shutdown ends the wait for it only outside of a transaction.
func (s *session) line(max int) ([]byte, error) {
	deadline := time.Now().Add(s.limits.Command)
	if first := s.began.Add(s.limits.ToMail); !s.mailSeen && first.Before(deadline) {
		deadline = first
	}
	return s.conn.ReadLine(max, deadline, s.tx == nil)
}

// unreadable answers what is no command line, and ends the session where no next line can be found.
func (s *session) unreadable(err error) {
	var timeout net.Error
	switch {
	case errors.Is(err, wire.ErrLineTooLong):
		if s.conn.DiscardLine() != nil {
			s.closed = true
		}
		s.complain(replyLineTooLong)
	case errors.Is(err, errLongCommand):
		s.complain(replyLineTooLong)
	case errors.Is(err, wire.ErrBareNewline):
		s.complain(replyNewline)
	case errors.Is(err, wire.ErrBadOctet):
		s.complain(replyBadOctet)
	case errors.Is(err, wire.ErrStopping):
		s.reply(replyShutdown)
		s.closed = true
	case errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, os.ErrDeadlineExceeded):
		s.reply(s.expired())
		s.closed = true
	default:
		if !errors.Is(err, io.EOF) {
			s.log.Debug("connection lost", "err", err)
		}
		s.closed = true
	}
}

// expired is the reply when a deadline passed.
func (s *session) expired() Reply {
	if !time.Now().Before(s.conn.End()) {
		return replyTooLong
	}
	return replyIdle
}

// reply is the one way to the client.
func (s *session) reply(r Reply) {
	s.log.Debug("reply", "line", r.String())
	s.conn.QueueReply(r)
}

// complain answers what is not understood or out of order, and counts it.
func (s *session) complain(r Reply) {
	if s.bad++; s.bad >= s.limits.BadCommands {
		s.log.Info("too many errors", "last", r.String())
		r = replyErrors
		s.closed = true
	}
	s.reply(r)
}

// refusal turns the error of a hook into a reply. What was not written for the client is logged, and stays with us.
func (s *session) refusal(what string, err error) Reply {
	var r *Refusal
	if errors.As(err, &r) && !r.Reply.IsZero() {
		if r.Why != nil {
			s.log.Warn(what+" refused", "reply", r.Reply.String(), "err", r.Why)
		}
		if r.Reply.Code == 421 {
			s.closed = true // RFC 5321 section 3.8
		}
		return r.Reply
	}
	s.log.Error(what+" failed", "err", err)
	return replyLocalError(s.client.ID)
}

// secure runs the TLS handshake.
func (s *session) secure(ctx context.Context) bool {
	state, err := s.conn.StartTLS(ctx, s.server.TLS)
	if err != nil {
		s.log.Info("tls handshake failed", "err", err)
		s.closed = true
		return false
	}
	s.client.TLS = state
	return true
}

// endTransaction forgets the transaction, if there is one.
func (s *session) endTransaction() {
	if s.tx == nil {
		return
	}
	s.tx.hooks.Close()
	s.tx = nil
	if s.state > greeted {
		s.state = greeted
	}
}
