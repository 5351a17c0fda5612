package pop3d

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"

	"github.com/postroom/postroom/internal/wire"
)

func (s *session) stat(context.Context, []string) reply {
	return donef("%d %d", len(s.marked)-s.gone, s.octets)
}

func (s *session) list(_ context.Context, arguments []string) reply {
	return s.listing(arguments, "%d messages", func(b []byte, i int) []byte {
		size, _ := s.drop.Message(i)
		return strconv.AppendInt(b, size, 10)
	})
}

func (s *session) uidl(_ context.Context, arguments []string) reply {
	return s.listing(arguments, "%d unique-ids", func(b []byte, i int) []byte {
		_, id := s.drop.Message(i)
		return append(b, id...)
	})
}

// listing answers LIST and UIDL: one message, or all that are not deleted, written as they are sent.
func (s *session) listing(arguments []string, title string, value func(b []byte, i int) []byte) reply {
	if len(arguments) == 1 {
		i, refused := s.message(arguments[0])
		if refused != nil {
			return *refused
		}
		return done(string(value(append(strconv.AppendInt(nil, int64(i)+1, 10), ' '), i)))
	}
	r := donef(title, len(s.marked)-s.gone)
	r.send = func(w *bufio.Writer) error {
		var b []byte
		for i, deleted := range s.marked {
			if deleted {
				continue
			}
			b = append(strconv.AppendInt(b[:0], int64(i)+1, 10), ' ')
			b = append(value(b, i), '\r', '\n')
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
		_, err := w.WriteString(".\r\n")
		return err
	}
	return r
}

// writeLines writes the lines of a multi-line response and its end.
func writeLines(w *bufio.Writer, lines iter.Seq[string]) error {
	d := wire.NewDotWriter(w)
	for line := range lines {
		if _, err := d.Write([]byte(line + "\r\n")); err != nil {
			return err
		}
	}
	return d.Close()
}

func (s *session) retr(ctx context.Context, arguments []string) reply {
	i, refused := s.message(arguments[0])
	if refused != nil {
		return *refused
	}
	size, _ := s.drop.Message(i)
	return s.content(ctx, i, donef("%d octets", size), func(w io.Writer, content io.Reader) error {
		_, err := io.Copy(w, content)
		return err
	})
}

func (s *session) top(ctx context.Context, arguments []string) reply {
	i, refused := s.message(arguments[0])
	if refused != nil {
		return *refused
	}
	n, err := strconv.ParseUint(arguments[1], 10, 31)
	if err != nil {
		return s.complain(replyArguments)
	}
	return s.content(ctx, i, done("top of the message follows"), func(w io.Writer, content io.Reader) error {
		return copyTop(w, content, int(n))
	})
}

// content sends a message, or a part of it. Where reading it fails, the connection is closed without the final dot: what
// the client has is not the message, and it must be able to tell.
func (s *session) content(ctx context.Context, i int, r reply, part func(io.Writer, io.Reader) error) reply {
	content, err := s.drop.Open(ctx, i)
	if err != nil {
		return s.refusal("open message", err)
	}
	r.send = func(w *bufio.Writer) error {
		d := wire.NewDotWriter(w)
		err := part(d, content)
		if closing := content.Close(); err == nil {
			err = closing
		}
		if err != nil {
			s.log.Error("message not sent whole", "number", i+1, "err", err)
			return fmt.Errorf("message %d: %w", i+1, err)
		}
		return d.Close()
	}
	return r
}

// copyTop copies the header, the empty line behind it, and n lines of the body (RFC 1939 section 7), reading no further
// than it must.
func copyTop(w io.Writer, content io.Reader, n int) error {
	r := bufio.NewReaderSize(content, 4096)
	inHeader, lineStart := true, true
	for inHeader || n > 0 {
		piece, err := r.ReadSlice('\n')
		whole := err == nil
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case inHeader:
			inHeader = !lineStart || len(bytes.TrimRight(piece, "\r\n")) > 0 || !whole
		case whole:
			n--
		}
		lineStart = whole
	}
	return nil
}

func (s *session) dele(_ context.Context, arguments []string) reply {
	i, refused := s.message(arguments[0])
	if refused != nil {
		return *refused
	}
	size, _ := s.drop.Message(i)
	s.marked[i] = true
	s.gone++
	s.octets -= size
	return donef("message %d is marked as deleted", i+1)
}

func (s *session) rset(context.Context, []string) reply {
	s.octets = 0
	for i := range s.marked {
		s.marked[i] = false
		size, _ := s.drop.Message(i)
		s.octets += size
	}
	s.gone = 0
	return replyReset
}

func (s *session) noop(context.Context, []string) reply { return replyOK }

// quit is the UPDATE state of RFC 1939 section 6: all marked messages go, or none.
func (s *session) quit(ctx context.Context, _ []string) reply {
	s.closed = true
	if s.gone == 0 {
		return replyBye
	}
	deleted := make([]int, 0, s.gone)
	for i, marked := range s.marked {
		if marked {
			deleted = append(deleted, i)
		}
	}
	if err := s.drop.Delete(ctx, deleted); err != nil {
		s.log.Error("deletions failed", "messages", len(deleted), "err", err)
		return replyNotDeleted
	}
	s.log.Debug("deleted", "messages", len(deleted))
	return replyBye
}
