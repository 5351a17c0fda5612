package inbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/auth"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/smtpd"
)

// transaction is one letter: its envelope, where it will go, and the check of who sent it.
type transaction struct {
	*session
	mail       smtpd.Mail
	recipients []addr.Path
	targets    []target
	check      *auth.Check // since the first recipient that was accepted
}

// target is a mailbox, and the recipient that led there first.
type target struct {
	accounts.Target
	recipient addr.Path
}

// addTarget adds a mailbox once, however many routes lead there.
func (t *transaction) addTarget(a accounts.Target, recipient addr.Path) {
	for _, other := range t.targets {
		if other.AccountID == a.AccountID {
			return
		}
	}
	t.targets = append(t.targets, target{a, recipient})
}

// Close ends the letter, kept or not, and what was still being looked up for it.
func (t *transaction) Close() {
	if t.check != nil {
		t.check.Close()
	}
}

// quickSize is the largest letter whose write is worth waiting for: it is examined in about a millisecond.
const quickSize = 256 << 10

// Data is the receive story from the first octet to the 250.
func (t *transaction) Data(ctx context.Context, body io.Reader) (smtpd.Reply, error) {
	written := t.h.DB.Expect()
	defer written()
	spool := message.NewSpool(t.h.SpoolDir)
	defer t.free(spool)
	if _, err := spool.ReadFrom(body); err != nil {
		return smtpd.Reply{}, fmt.Errorf("inbound: receive: %w", err)
	}
	ended := time.Now()
	if spool.Size() > quickSize {
		written()
	}
	facts, err := t.gather(ctx, spool)
	if err != nil {
		return smtpd.Reply{}, err
	}
	decided := decide(facts)
	if !decided.refusal.IsZero() {
		t.logRefusal(spool.Size(), facts, decided)
		return decided.refusal, nil
	}
	l := letter{id: message.NewID(), spool: spool, ended: ended, written: written, facts: facts, decision: decided}
	switch err := t.keep(ctx, l); {
	case errors.Is(err, accounts.ErrGone):
		return replyGone, nil
	case err != nil:
		return smtpd.Reply{}, fmt.Errorf("inbound: keep %s: %w", l.id, err)
	}
	return smtpd.NewReply(250, 0, 0, l.id.String()+" is kept"), nil
}

// gather finds out what decide wants to know.
func (t *transaction) gather(ctx context.Context, spool *message.Spool) (f facts, err error) {
	f.header, err = readHeader(spool)
	if err != nil || f.header == nil {
		return f, err
	}
	f.verdict = t.check.Finish(ctx, auth.Letter{Content: spool, Size: spool.Size(), Header: f.header})
	if f.verdict.Author.Problem == auth.AuthorFine {
		f.ours, err = t.h.Accounts.Hosts(ctx, f.verdict.Author.Domain)
	}
	return f, err
}

// logRefusal is the line that tells the operator why a letter was not taken.
func (t *transaction) logRefusal(size int64, f facts, d decision) {
	t.log.Info(maillog.Refused, maillog.From, t.mail.From.String(), maillog.To, t.recipients, maillog.Size, size,
		maillog.Reply, d.refusal.String(), maillog.Verdict, f.verdict.String())
}

func (t *transaction) free(spool *message.Spool) {
	if err := spool.Close(); err != nil {
		t.log.Warn("spool not freed", maillog.Err, err)
	}
}

// readHeader returns nil for a header that is over the limits.
func readHeader(spool *message.Spool) (*message.Header, error) {
	header, err := message.ReadHeader(spool.Reader(), message.HeaderLimits{})
	switch {
	case errors.Is(err, message.ErrHeaderTooLarge):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("inbound: read header: %w", err)
	}
	return header, nil
}

// letter is a letter that will be kept.
type letter struct {
	id      message.ID
	spool   *message.Spool
	ended   time.Time
	written func() // before the write
	facts
	decision
}

// keep makes the letter, its place in every mailbox and its ledger rows durable, in one write.
func (t *transaction) keep(ctx context.Context, l letter) error {
	k, err := t.compose(l)
	if err != nil {
		return err
	}
	staged, err := t.h.Mailbox.Stage(ctx, l.id, k.size, k.content)
	if err != nil {
		return err
	}
	defer func() {
		if err := staged.Discard(context.WithoutCancel(ctx)); err != nil {
			t.log.Warn("staged letter not freed", maillog.Msg, l.id, maillog.Err, err)
		}
	}()
	deliveries, entries := t.deliveries(k), t.entries(l)
	l.written()
	err = t.h.DB.Write(ctx, func(tx *database.Tx) error {
		if err := accounts.MustBeThere(tx, t.accountIDs()...); err != nil {
			return err
		}
		if _, err := t.h.Mailbox.Deliver(tx, staged, deliveries); err != nil {
			return err
		}
		return maillog.Add(tx, entries...)
	})
	if err != nil {
		return err
	}
	t.log.Info(maillog.Stored, maillog.Msg, l.id, maillog.From, t.mail.From.String(), maillog.To, t.recipients, maillog.Size, k.size,
		maillog.Verdict, l.verdict.String(), maillog.Suspicion, l.suspicion, maillog.Took, time.Since(l.ended))
	return nil
}
