package smtpd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/postroom/postroom/internal/limit"
	"github.com/postroom/postroom/internal/wire"
)

// transaction is one message: its envelope, and the hooks that follow it.
type transaction struct {
	hooks    Transaction
	mail     Mail
	accepted int // recipients
}

// data receives a message that a line with a single dot ends.
func (s *session) data(ctx context.Context, _ string) Reply {
	s.reply(replyGoAhead)
	return s.receive(ctx, &dotSource{dots: wire.NewDotReader(s.beginData())})
}

// beginData makes the reads that follow those of a message.
func (s *session) beginData() *bufio.Reader {
	return s.conn.BeginData(s.limits.Data, limit.Throughput{MinOctets: minRate, Window: minRateWindow})
}

// receive hands the message to the hook and finds the one reply to it.
func (s *session) receive(ctx context.Context, src source) Reply {
	b := &body{src: src, maxSize: s.limits.MessageSize, strict: !s.server.Submission}
	var content io.Reader = b
	if s.server.Submission {
		content = &normalised{src: b}
	}
	r, err := s.tx.hooks.Data(ctx, content)
	whole := b.finish()
	s.conn.EndData()
	reply := s.outcome(b, whole, r, err)
	s.endTransaction()
	return reply
}

// outcome decides what the client reads: the engine's own findings come first, so that no hook can accept what was cut.
func (s *session) outcome(b *body, whole bool, r Reply, err error) Reply {
	var refused *Refusal
	var timeout net.Error
	switch {
	case errors.Is(b.err, errAborted):
		return Reply{} // the command that ended it has a reply of its own, or the connection is closing
	case slow(b.err):
		s.closed = true
		s.log.Info("message cut", "from", s.tx.mail.From.String(), "recipients", s.tx.accepted, "size", b.size, "err", b.err)
		return replyTooSlow
	case errors.As(b.err, &timeout) && timeout.Timeout():
		s.closed = true
		s.log.Info("message cut", "from", s.tx.mail.From.String(), "recipients", s.tx.accepted, "size", b.size, "err", b.err)
		return s.expired()
	case errors.As(b.err, &refused):
		s.log.Info("message refused", "from", s.tx.mail.From.String(), "recipients", s.tx.accepted, "size", b.size, "reply", refused.Reply.String())
		return refused.Reply
	case errors.Is(b.err, errTooMuch):
		s.closed = true
		return replyTooLarge
	case b.err != nil && !b.ended:
		s.closed = true
		s.log.Info("message cut", "from", s.tx.mail.From.String(), "recipients", s.tx.accepted, "size", b.size, "err", b.err)
		return Reply{}
	case err != nil:
		return s.refusal("data", err)
	case !whole:
		return s.refusal("data", errors.New("the hook accepted a message that it had not read to its end"))
	case r.IsZero():
		return s.refusal("data", errors.New("the hook gave no reply"))
	}
	return r
}

// errTooMuch says that more follows a refused message than is worth reading.
var errTooMuch = errors.New("smtpd: refused message goes on for too long")

// dotSource is the message of DATA.
type dotSource struct{ dots *wire.DotReader }

func (d *dotSource) Read(p []byte) (int, error) { return d.dots.Read(p) }

func (d *dotSource) bare() bool { return d.dots.Bare() }

func (d *dotSource) skip(limit int64) error {
	n, err := io.Copy(io.Discard, io.LimitReader(d.dots, limit))
	switch {
	case err != nil:
		return err
	case n == limit && !d.dots.Ended():
		return errTooMuch
	}
	return nil
}

// discard drops n octets of the connection.
func discard(r *bufio.Reader, n int64) error {
	_, err := io.CopyN(io.Discard, r, n)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("skip a chunk: %w", wire.ErrTruncated)
	}
	return err
}
