package submission

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/auth/dkim"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/smtpd"
)

// maxReceived is how many hops a letter may have made: RFC 5321 section 6.3.
const maxReceived = 100

// Data is the send story from the first octet to the 250.
func (t *transaction) Data(ctx context.Context, body io.Reader) (smtpd.Reply, error) {
	spool := message.NewSpool(t.h.SpoolDir)
	defer t.free(spool)
	if _, err := spool.ReadFrom(body); err != nil {
		return smtpd.Reply{}, fmt.Errorf("submission: receive: %w", err)
	}
	l := &letter{id: message.NewID(), spool: spool, now: time.Now()}
	refused, err := t.examine(ctx, l)
	if err != nil {
		return smtpd.Reply{}, err
	}
	if !refused.IsZero() {
		t.log.Info(maillog.Refused, maillog.From, t.mail.From.String(), maillog.To, t.recipients, maillog.Size, spool.Size(), maillog.Reply, refused.String())
		return refused, nil
	}
	t.complete(l)
	if err := t.sign(ctx, l); err != nil {
		return smtpd.Reply{}, fmt.Errorf("submission: %s: %w", l.id, err)
	}
	switch err := t.keep(ctx, l); {
	case errors.Is(err, accounts.ErrGone):
		return replyGone, nil
	case errors.Is(err, accounts.ErrHeld):
		return replyHeld, nil
	case err != nil:
		return smtpd.Reply{}, fmt.Errorf("submission: keep %s: %w", l.id, err)
	}
	return smtpd.NewReply(250, 0, 0, l.id.String()+" is kept"), nil
}

func (t *transaction) free(spool *message.Spool) {
	if err := spool.Close(); err != nil {
		t.log.Warn("spool not freed", maillog.Err, err)
	}
}

// letter is a letter on its way from the spool into the store.
type letter struct {
	id     message.ID
	now    time.Time
	spool  *message.Spool
	header *message.Header
	author addr.Domain // whose keys sign
	fields []byte      // that were missing
	signed []byte      // the signatures
	trace  []byte
	empty  []byte // the empty line that was missing at the end
}

// examine judges the letter itself.
func (t *transaction) examine(ctx context.Context, l *letter) (refused smtpd.Reply, err error) {
	l.header, err = message.ReadHeader(l.spool.Reader(), message.HeaderLimits{})
	switch {
	case errors.Is(err, message.ErrHeaderTooLarge):
		return replyHeader, nil
	case err != nil:
		return refused, fmt.Errorf("submission: read header: %w", err)
	case l.header.Malformed > 0:
		return replyMalformedHdr, nil // a signature over such a header means nothing
	case l.header.Count("Received") > maxReceived:
		return replyLoop, nil
	}
	if l.empty, err = missingEnd(l.spool, l.spool.Size(), l.header); err != nil {
		return refused, err
	}
	l.author, refused, err = t.checkAuthors(ctx, l.header)
	return refused, err
}

// missingEnd is what a letter lacks that is nothing but a header, with no empty line behind it: RFC 5322 section 3.5 lets it be so, and
// signatures and many programs need one.
func missingEnd(content io.ReaderAt, size int64, h *message.Header) ([]byte, error) {
	if len(h.Fields) == 0 || h.Fields[len(h.Fields)-1].End != size {
		return nil, nil
	}
	var last [2]byte
	if _, err := content.ReadAt(last[:], size-2); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("submission: read the end: %w", err)
	}
	if string(last[:]) == "\r\n" {
		return []byte("\r\n"), nil
	}
	return []byte("\r\n\r\n"), nil
}

// complete adds what RFC 6409 section 8 lets a submission server add, and says nothing of where the letter came from.
func (t *transaction) complete(l *letter) {
	if l.header.Count("Date") == 0 {
		l.fields = fmt.Appendf(l.fields, "Date: %s\r\n", l.now.Format(time.RFC1123Z))
	}
	if l.header.Count("Message-ID") == 0 {
		l.fields = fmt.Appendf(l.fields, "Message-ID: <%s@%s>\r\n", l.id, l.author.ASCII())
	}
	with := "" // a program on this machine
	if t.client.TLS != nil {
		with = message.With(true, true, true, t.mail.UTF8)
	}
	l.trace = message.Received{Private: true, By: t.h.Hostname, ID: l.id, With: with, For: t.recipients, Time: l.now}.Append(nil)
}

// sign signs what leaves.
func (t *transaction) sign(ctx context.Context, l *letter) (err error) {
	l.signed, err = Sign(ctx, t.h.Accounts, l.author, func() io.Reader {
		content, _ := l.unsigned()
		return content
	})
	if err == nil && len(l.signed) == 0 {
		t.log.Warn("not signed: the domain has no key", maillog.Msg, l.id, "domain", l.author.ASCII())
	}
	return err
}

// Sign returns the signatures of a letter, one with each key of the domain that is in use; none where there is no key. open gives the
// letter from its beginning.
func Sign(ctx context.Context, a *accounts.Service, domain addr.Domain, open func() io.Reader) (fields []byte, err error) {
	active, err := a.SigningKeys(ctx, domain)
	if err != nil || len(active) == 0 {
		return nil, err
	}
	keys := make([]dkim.SigningKey, len(active))
	for i, k := range active {
		keys[i] = dkim.SigningKey{Domain: domain.ASCII(), Selector: k.Selector, Key: k.Key}
	}
	header, err := message.ReadHeader(open(), message.HeaderLimits{})
	if err != nil {
		return nil, err
	}
	return dkim.Sign(open(), header, keys...)
}

// unsigned is the letter with what was missing, and without what must not leave: Bcc (RFC 5322 section 3.6.3), and
// Return-Path, which only the final delivery writes.
func (l *letter) unsigned() (io.Reader, int64) {
	rest := message.Without(l.spool, l.spool.Size(), l.header, func(f message.Field) bool {
		return f.Is("Bcc") || f.Is("Resent-Bcc") || f.Is("Return-Path")
	})
	return io.MultiReader(bytes.NewReader(l.fields), rest, bytes.NewReader(l.empty)), int64(len(l.fields)+len(l.empty)) + rest.Size()
}

// content is the letter as it is kept and as it leaves.
func (l *letter) content() (io.Reader, int64) {
	rest, size := l.unsigned()
	return io.MultiReader(bytes.NewReader(l.trace), bytes.NewReader(l.signed), rest), int64(len(l.trace)+len(l.signed)) + size
}

// isASCII tells whether the header needs SMTPUTF8 and the body 8BITMIME: where an octet has its eighth bit.
func (l *letter) isASCII() (header, body bool, err error) {
	header, body = true, true
	buffer := make([]byte, 32<<10)
	r := l.spool.Reader()
	for at := int64(0); ; {
		n, err := r.Read(buffer)
		for i, c := range buffer[:n] {
			if c < 0x80 {
				continue
			}
			if at+int64(i) < l.header.BodyOffset {
				header = false
			} else {
				body = false
			}
		}
		at += int64(n)
		if err == io.EOF {
			return header, body, nil
		}
		if err != nil {
			return header, body, err
		}
	}
}
