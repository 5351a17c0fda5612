package smtpd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/postroom/postroom/internal/wire"
)

// bdat receives a message in chunks (RFC 3030). The octets of a chunk are always consumed, or the connection is closed:
// they are never run as commands.
func (s *session) bdat(ctx context.Context, arguments string) Reply {
	size, last, ok := parseChunk(arguments)
	if !ok {
		s.closed = true // where the chunk ends is not known
		return replyChunk
	}
	if s.state != recipients {
		s.skipChunk(size)
		return Reply{}
	}
	r := s.beginData()
	return s.receive(ctx, &chunkSource{s: s, ctx: ctx, r: r, size: size, left: size, last: last})
}

// parseChunk reads "size" or "size LAST". RFC 3030 section 2.
func parseChunk(arguments string) (size int64, last, ok bool) {
	number, word, more := strings.Cut(arguments, " ")
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || !digits(number) {
		return 0, false, false
	}
	last = strings.EqualFold(strings.TrimSpace(word), "LAST")
	return int64(n), last, last || !more
}

// skipChunk drops a chunk that comes at the wrong time. RFC 3030 section 2: a client may have sent several before it
// reads that the first was refused, so these do not count as errors.
func (s *session) skipChunk(size int64) {
	if size > s.limits.MessageSize {
		s.closed = true
		s.reply(replyTooLarge)
		return
	}
	r := s.beginData()
	defer s.conn.EndData()
	if err := discard(r, size); err != nil {
		s.closed = true
		return
	}
	switch s.state {
	case fresh:
		s.reply(replyHelloFirst)
	case sender:
		s.reply(replyNoRcpt)
	default:
		s.reply(replySequence)
	}
}

// chunkSource is the message of one or more BDAT commands. When a chunk is used up and was not the last, Read answers it
// and reads commands until the next chunk comes: the hook that reads the message waits inside, in the same goroutine.
type chunkSource struct {
	s       *session
	ctx     context.Context // of the first BDAT: io.Reader has no place for it
	r       *bufio.Reader
	size    int64 // of this chunk
	left    int64
	last    bool
	newline newlineCheck
}

func (c *chunkSource) Read(p []byte) (int, error) {
	for c.left == 0 {
		if c.last {
			return 0, io.EOF
		}
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	c.newline.scan(p[:n])
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return n, wire.ErrTruncated
	case err != nil:
		return n, fmt.Errorf("smtpd: read chunk: %w", err)
	}
	return n, nil
}

func (c *chunkSource) bare() bool { return c.newline.bare || c.newline.afterCR }

func (c *chunkSource) skip(limit int64) error {
	if c.left > limit {
		return errTooMuch
	}
	left := c.left
	c.left = 0
	return discard(c.r, left)
}

// next answers a chunk and waits for the following one. Commands that do not end the message are run here.
func (c *chunkSource) next() error {
	s := c.s
	s.conn.EndData()
	s.state = chunks
	s.reply(NewReply(250, 0, 0, strconv.FormatInt(c.size, 10)+" octets received"))
	for !s.closed {
		line, err := s.line(maxCommandLine)
		if err != nil {
			s.unreadable(err)
			continue
		}
		verb, arguments := splitVerb(line)
		if verb == "BDAT" {
			return c.begin(arguments)
		}
		known, ok := commands(verb)
		if ok && known.flags&endsChunks != 0 {
			s.pending, s.hasNext = bytes.Clone(line), true
			return errAborted
		}
		s.dispatch(c.ctx, line)
	}
	return errAborted
}

// begin takes the next chunk.
func (c *chunkSource) begin(arguments string) error {
	size, last, ok := parseChunk(arguments)
	if !ok {
		c.s.closed = true
		c.s.reply(replyChunk)
		return errAborted
	}
	c.size, c.left, c.last = size, size, last
	c.r = c.s.beginData()
	return nil
}

// newlineCheck looks for a CR or LF that is not part of a CR LF.
type newlineCheck struct {
	bare    bool
	afterCR bool // the last octet was a CR
}

func (n *newlineCheck) scan(p []byte) {
	for len(p) > 0 && !n.bare {
		if n.afterCR {
			n.afterCR = false
			if n.bare = p[0] != '\n'; n.bare {
				return
			}
			p = p[1:]
			continue
		}
		line := p
		newline := bytes.IndexByte(p, '\n')
		if newline >= 0 {
			line = p[:newline]
		}
		switch cr := bytes.IndexByte(line, '\r'); {
		case cr >= 0 && cr < len(line)-1, cr < 0 && newline >= 0:
			n.bare = true
		case cr >= 0 && newline < 0:
			n.afterCR = true
		}
		p = p[min(len(line)+1, len(p)):]
	}
}
