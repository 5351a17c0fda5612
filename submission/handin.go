package submission

import (
	"bufio"
	"context"
	"errors"
	"io"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/smtpd"
)

// HandIn takes a letter from a program on this machine that acts as an account without its password: the operating system has let it
// read the data. All else is as on a submission port: who may be the author, what is completed, signed, limited and kept. The
// reply is the one that a mail program would read.
func (h *Handler) HandIn(ctx context.Context, a accounts.Account, from addr.Path, to []addr.Path, letter io.Reader) (smtpd.Reply, error) {
	s := &session{h: h, client: &smtpd.Client{}, login: accounts.Login{AccountID: a.ID, Address: a.Address},
		log: h.Log.With(maillog.Service, "sendmail", maillog.Account, a.ID)}
	tx, err := s.begin(ctx, smtpd.Mail{From: from})
	if err != nil {
		return refused(err)
	}
	defer tx.Close()
	for _, r := range to {
		if err := tx.Rcpt(ctx, smtpd.Rcpt{To: r}); err != nil {
			return refused(err)
		}
	}
	return tx.Data(ctx, &crlf{r: bufio.NewReader(letter)})
}

// refused is the reply in an error.
func refused(err error) (smtpd.Reply, error) {
	if r, ok := errors.AsType[*smtpd.Refusal](err); ok {
		return r.Reply, nil
	}
	return smtpd.Reply{}, err
}

// crlf makes CR LF of every line's end: programs on this machine write LF.
type crlf struct {
	r    *bufio.Reader
	rest []byte
	last byte
}

func (c *crlf) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(c.rest) > 0 {
			k := copy(p[n:], c.rest)
			n, c.rest = n+k, c.rest[k:]
			continue
		}
		b, err := c.r.ReadByte()
		switch {
		case err == io.EOF && c.last == '\r':
			c.rest, c.last = []byte{'\n'}, '\n'
			continue
		case err != nil && n > 0:
			return n, nil
		case err != nil:
			return 0, err
		case b == '\n' && c.last != '\r':
			c.rest = []byte("\r\n")
		case c.last == '\r' && b != '\n':
			c.rest = []byte{'\n', b}
		default:
			c.rest = []byte{b}
		}
		c.last = b
	}
	return n, nil
}
