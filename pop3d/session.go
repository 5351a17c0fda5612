package pop3d

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"github.com/postroom/postroom/internal/limit"
	"github.com/postroom/postroom/internal/wire"
)

// state is where a session stands, named as in RFC 1939 section 3. The states are bits, so that the command table can name
// several.
//
//	authorization --USER--> named --PASS--> transaction --QUIT--> update: deletions are applied
//	authorization --AUTH------------------> transaction
//	authorization --STLS--> authorization
type state uint8

const (
	authorization state = 1 << iota
	named               // USER was given, PASS must follow
	transaction

	anyState = authorization | named | transaction
)

// session is who the client is and where the dialogue stands.
type session struct {
	server *Server
	conn   *wire.Conn
	log    *slog.Logger
	limits Limits
	client Client
	began  time.Time

	hooks  Session
	state  state
	name   string // of USER
	drop   Maildrop
	marked []bool // as deleted, by message
	gone   int    // how many are marked
	octets int64  // of those that are not
	closed bool   // after the current reply

	bad         int
	loginErrors int
}

// run is the life of a connection.
func (s *session) run(ctx context.Context) {
	slot, err := s.server.Connections.Acquire(s.server.Group, s.client.Remote.Addr())
	if err != nil {
		s.refuseConnection(ctx, err)
		return
	}
	defer slot.Release()
	s.client.Slot = slot
	if s.server.ImplicitTLS && !s.secure(ctx) {
		return
	}
	hooks, err := s.server.Handler.Connect(ctx, &s.client)
	if err != nil {
		_ = s.answer(s.refusal("connect", err)) // closed either way
		_ = s.conn.Flush()
		return
	}
	s.hooks, s.state = hooks, authorization
	defer s.hooks.Close()
	defer s.release()
	_ = s.answer(done(s.server.Hostname + " Postroom is ready")) // only queued
	for !s.closed {
		s.next(ctx)
	}
	if err := s.conn.Flush(); err != nil {
		s.log.Debug("last reply not sent", "err", err)
	}
}

// refuseConnection tells too many clients so, where that can be said in clear text.
func (s *session) refuseConnection(ctx context.Context, err error) {
	level := slog.LevelInfo
	if errors.Is(err, limit.ErrTooManyInAll) {
		level = slog.LevelWarn
	}
	s.log.Log(ctx, level, "connection refused", "err", err)
	if !s.server.ImplicitTLS {
		s.conn.SetWriteTimeout(time.Second)
		_ = s.answer(replyConnections) // refused either way
		_ = s.conn.Flush()
	}
}

// next reads and runs one command.
func (s *session) next(ctx context.Context) {
	line, err := s.line(maxCommandLine)
	if err != nil {
		s.unreadable(err)
		return
	}
	if err := s.answer(s.dispatch(ctx, line)); err != nil {
		s.log.Debug("answer not sent", "err", err)
		s.closed = true
	}
}

// line reads a line. While it waits, the maildrop is idle and may be taken away; Client.Wake then ends the wait.
func (s *session) line(max int) ([]byte, error) {
	deadline := time.Now().Add(s.limits.Idle)
	if s.drop == nil {
		if last := s.began.Add(s.limits.Login); last.Before(deadline) {
			deadline = last
		}
		return s.conn.ReadLine(max, deadline, true)
	}
	if !s.drop.Busy(false) {
		return nil, errLost
	}
	line, err := s.conn.ReadLine(max, deadline, true)
	if !s.drop.Busy(true) {
		return nil, errLost
	}
	return line, err
}

// errLost says that the maildrop was taken away.
var errLost = errors.New("pop3d: the maildrop was taken away")

// unreadable answers what is no command line, and ends the session where no next line can be found.
func (s *session) unreadable(err error) {
	var timeout net.Error
	switch {
	case errors.Is(err, wire.ErrLineTooLong):
		if s.conn.DiscardLine() != nil {
			s.closed = true
		}
		s.queue(s.complain(replyLineTooLong))
	case errors.Is(err, wire.ErrBareNewline):
		s.queue(s.complain(replyNewline))
	case errors.Is(err, wire.ErrBadOctet):
		s.queue(s.complain(replyBadOctet))
	case errors.Is(err, errLost):
		s.log.Info("maildrop taken over")
		s.closed = true
		s.queue(replyLost)
	case errors.Is(err, wire.ErrStopping):
		s.closed = true
		s.queue(replyShutdown)
	case errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, os.ErrDeadlineExceeded):
		s.closed = true
		s.queue(replyIdle)
	default:
		if !errors.Is(err, io.EOF) {
			s.log.Debug("connection lost", "err", err)
		}
		s.closed = true
	}
}

// complain counts what is not understood or out of order.
func (s *session) complain(r reply) reply {
	if s.bad++; s.bad >= s.limits.BadCommands {
		s.log.Info("too many errors", "last", r.line())
		s.closed = true
		return replyErrors
	}
	return r
}

// refusal turns the error of a hook into a reply. What was not written for the client is logged, and stays with us.
func (s *session) refusal(what string, err error) reply {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return failed(r.Code, r.Text)
	}
	s.log.Error(what+" failed", "err", err)
	return localError(s.client.ID)
}

// queue puts a reply of one line behind what is sent next.
func (s *session) queue(r reply) {
	line := r.line()
	s.log.Debug("reply", "line", line)
	s.conn.Queue([]byte(line))
	s.conn.Queue([]byte("\r\n"))
}

// answer is the one way to the client. Its error ends the session: a response whose end was not sent cannot be mended.
func (s *session) answer(r reply) error {
	if r.ok || r.text != "" {
		s.queue(r)
	}
	switch {
	case r.send != nil:
		return s.conn.Stream(r.send)
	case r.lines != nil:
		return s.conn.Stream(func(w *bufio.Writer) error { return writeLines(w, slices.Values(r.lines)) })
	}
	return nil
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

// enter opens the maildrop: TRANSACTION begins.
func (s *session) enter(drop Maildrop) reply {
	s.drop, s.state, s.marked = drop, transaction, make([]bool, drop.Len())
	for i := range s.marked {
		size, _ := drop.Message(i)
		s.octets += size
	}
	return donef("%d messages, %d octets", drop.Len(), s.octets)
}

// release gives the maildrop back, whatever ended the session.
func (s *session) release() {
	if s.drop != nil {
		s.drop.Close()
		s.drop = nil
	}
}
