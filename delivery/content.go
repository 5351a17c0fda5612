package delivery

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/wire"
	"github.com/postroom/postroom/queue"
)

// buffers are what one letter takes of memory while it is sent.
type buffers struct {
	w    *bufio.Writer
	copy []byte
}

func newBuffers() any { return &buffers{bufio.NewWriterSize(nil, 32<<10), make([]byte, 16<<10)} }

// errContent says that what is stored is not the letter that was announced, or cannot be sent as it is.
var errContent = errors.New("delivery: the content is not what it should be")

// content sends the letter to the recipients that were accepted, and settles them.
func (b *batch) content(ctx context.Context) *failure {
	if !b.s.ext.has("CHUNKING") && b.data.IsZero() {
		r, err := b.s.command("DATA", dataTimeout)
		if err != nil {
			return b.lost(ctx, err, "after DATA")
		}
		b.data = r
	}
	if !b.data.IsZero() && b.data.Code != 354 {
		return b.refusedData()
	}
	b.s.until(finalTimeout + time.Duration(b.a.letter.Size/minRate)*time.Second)
	if err := b.s.quiet(); err != nil {
		return b.lost(ctx, err, "before the content")
	}
	if f := b.send(ctx); f != nil {
		return f
	}
	b.s.until(finalTimeout)
	r, err := b.s.reply(finalTimeout)
	if err != nil {
		return b.lost(ctx, err, "after the content")
	}
	return b.gotFinal(ctx, r)
}

// refusedData is a reply to DATA that is not 354. It means what a reply to the content means, but for what says nothing about the
// letter.
func (b *batch) refusedData() *failure {
	status, ok := b.judge(b.data)
	switch {
	case b.data.Code == closing:
		return refused(b.data, thisHost)
	case !ok || status == queue.Delivered:
		return lost(errReply, "after DATA")
	case status == queue.Deferred && b.data.Code/100 == 5:
		return refused(b.data, thisHost)
	case !b.avoid6(b.data):
		b.settle(b.accepted, replied(status, b.data))
	}
	return nil
}

// gotFinal handles the reply to the content: the only one that can say that the letter was delivered.
func (b *batch) gotFinal(ctx context.Context, r wire.Reply) *failure {
	status, ok := classOf(r)
	switch {
	case !ok:
		return b.lost(ctx, errReply, "after the content")
	case r.Code == closing:
		b.s.broken = true
	}
	if status == queue.Failed && b.avoid6(r) {
		return nil
	}
	b.s.dirty = false
	b.settle(b.accepted, replied(status, r))
	return nil
}

// send sends the content, with BDAT (RFC 3030) where the server takes it: it needs no search for lines with a dot, and no
// second reply.
func (b *batch) send(ctx context.Context) *failure {
	r, err := b.a.open(ctx)
	if err != nil {
		b.s.broken = true
		b.a.d.Log.Error("letter cannot be read", maillog.Msg, b.a.letter.ID.String(), maillog.Err, err)
		return local("4.3.0", "the letter could not be read here")
	}
	defer r.Close()
	body := &body{r: r, left: b.a.letter.Size}
	buf := b.a.d.buffers.Get().(*buffers)
	defer b.a.d.buffers.Put(buf)
	buf.w.Reset(b.s)
	if b.s.ext.has("CHUNKING") {
		err = b.sendChunk(buf, body)
	} else {
		err = b.sendLines(buf, body)
	}
	buf.w.Reset(nil)
	if err == nil {
		return nil
	}
	b.s.broken = true
	if body.err != nil {
		return b.unreadable(body)
	}
	return b.lastWords(ctx, err)
}

// sendChunk sends all as one chunk. As long as its last octet has not gone, the server cannot take it for whole: the buffer
// keeps it until the content was read to its end.
func (b *batch) sendChunk(buf *buffers, body *body) error {
	_, err := buf.w.WriteString("BDAT " + strconv.FormatInt(b.a.letter.Size, 10) + " LAST\r\n")
	if err == nil {
		_, err = io.CopyBuffer(onlyWriter{buf.w}, body, buf.copy)
	}
	if err != nil {
		return err
	}
	b.ended = true
	return buf.w.Flush()
}

// sendLines sends lines up to one with a single dot.
func (b *batch) sendLines(buf *buffers, body *body) error {
	dots := wire.NewDotWriter(buf.w)
	if _, err := io.CopyBuffer(dots, body, buf.copy); err != nil {
		return err
	}
	b.ended = true
	return errors.Join(dots.Close(), buf.w.Flush())
}

// onlyWriter hides the ReadFrom of a buffer, which would send the last octet too early.
type onlyWriter struct{ io.Writer }

// lastWords reads what a server said before it closed the connection in the middle of the content.
func (b *batch) lastWords(ctx context.Context, err error) *failure {
	if !b.ended && ctx.Err() == nil {
		if r, err := b.s.reply(lastWordsTimeout); err == nil && !r.Positive() {
			f := refused(r, thisHost)
			f.gone = true
			return f
		}
	}
	return b.lost(ctx, err, "in the content")
}

// unreadable is what a content comes to that cannot be sent.
func (b *batch) unreadable(body *body) *failure {
	b.a.d.Log.Error("letter cannot be sent", maillog.Msg, b.a.letter.ID.String(), maillog.Err, body.err)
	if body.bare {
		f := local("5.6.0", "the letter has line ends that not all servers understand alike")
		f.Status = queue.Failed
		return f
	}
	return local("4.3.0", "the letter could not be read here")
}

// body reads a letter and sees to it that it is whole, and that all servers agree where its lines end: one that takes a bare LF
// for the end of a line could find the end of the letter, and commands behind it, where there are none.
type body struct {
	r    io.Reader
	left int64 // octets that must still come
	cr   bool  // the last octet was a CR
	bare bool
	err  error
}

// Read fails, once and for all, where the content is not as it should be.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		b.err = fmt.Errorf("%w: it is longer than it was", errContent)
		return 0, b.err
	}
	b.scan(p[:n])
	switch {
	case b.bare || errors.Is(err, io.EOF) && b.cr:
		b.bare = true
		b.err = fmt.Errorf("%w: a CR or LF stands alone", errContent)
	case errors.Is(err, io.EOF) && b.left > 0:
		b.err = fmt.Errorf("%w: it ends early", errContent)
	case err != nil && !errors.Is(err, io.EOF):
		b.err = err
	}
	if b.err != nil {
		return 0, b.err
	}
	return n, err
}

// scan looks for a CR or LF that stands alone.
func (b *body) scan(p []byte) {
	lf, cr := 0, bytes.Count(p, []byte{'\r'})
	if b.cr {
		cr++
	}
	for i := 0; i < len(p); i++ {
		at := bytes.IndexByte(p[i:], '\n')
		if at < 0 {
			break
		}
		i += at
		lf++
		if i == 0 && !b.cr || i > 0 && p[i-1] != '\r' {
			b.bare = true
			return
		}
	}
	if len(p) > 0 {
		b.cr = p[len(p)-1] == '\r'
	}
	if b.cr {
		lf++ // the LF of the last CR may come
	}
	b.bare = len(p) > 0 && lf != cr
}
