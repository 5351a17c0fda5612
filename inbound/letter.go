package inbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/mailbox"
	"github.com/postroom/postroom/smtpd"
)

// transaction is one letter: its envelope, and where it will go.
type transaction struct {
	*session
	mail       smtpd.Mail
	recipients []addr.Path
	targets    []target
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

// Close ends the letter, kept or not.
func (t *transaction) Close() {}

// Data is the receive story from the first octet to the 250.
func (t *transaction) Data(ctx context.Context, body io.Reader) (smtpd.Reply, error) {
	spool := message.NewSpool(t.h.SpoolDir)
	defer t.free(spool)
	if _, err := spool.ReadFrom(body); err != nil {
		return smtpd.Reply{}, fmt.Errorf("inbound: receive: %w", err)
	}
	header, err := readHeader(spool)
	if err != nil {
		return smtpd.Reply{}, err
	}
	// Mail authentication gives its verdict here, from the spool; decide will weigh it.
	if refused := decide(facts{header: header}); !refused.IsZero() {
		t.log.Info(maillog.Refused, maillog.From, t.mail.From.String(), maillog.Size, spool.Size(), maillog.Reply, refused.String())
		return refused, nil
	}
	id := message.NewID()
	switch err := t.keep(ctx, id, spool, header); {
	case errors.Is(err, accounts.ErrGone):
		return replyGone, nil
	case err != nil:
		return smtpd.Reply{}, fmt.Errorf("inbound: keep %s: %w", id, err)
	}
	return smtpd.NewReply(250, 0, 0, id.String()+" is kept"), nil
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

// keep makes the letter, its place in every mailbox and its ledger rows durable, in one write.
func (t *transaction) keep(ctx context.Context, id message.ID, spool *message.Spool, header *message.Header) error {
	content, size, err := t.stored(id, spool, header)
	if err != nil {
		return err
	}
	staged, err := t.h.Mailbox.Stage(ctx, id, size, content)
	if err != nil {
		return err
	}
	defer func() {
		if err := staged.Discard(context.WithoutCancel(ctx)); err != nil {
			t.log.Warn("staged letter not freed", maillog.Msg, id, maillog.Err, err)
		}
	}()
	deliveries, entries := t.deliveries(), t.entries(id)
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
	t.log.Info(maillog.Stored, maillog.Msg, id, maillog.From, t.mail.From.String(), maillog.To, t.recipients, maillog.Size, size)
	return nil
}

// stored is the letter as it is kept: our Received field, then what came, without Return-Path fields, which only the final
// delivery may write (RFC 5321 section 4.4). A last line without CR LF, which only BDAT can send, gets one, as the
// canonical form of DKIM has (RFC 6376 section 3.4.3), so that the size that POP3 tells is what it sends.
func (t *transaction) stored(id message.ID, spool *message.Spool, header *message.Header) (content io.Reader, size int64, err error) {
	trace := message.Received{
		Helo: t.client.Hello, FromIP: t.client.Remote.Addr(), By: t.h.Hostname, ID: id, TLS: t.client.TLS,
		With: message.With(t.client.Extended, t.client.TLS != nil, false, t.mail.UTF8), For: t.recipients, Time: time.Now(),
	}.Append(nil)
	came := message.Without(spool, spool.Size(), header, func(f message.Field) bool { return f.Is("Return-Path") })
	end, err := missingEnd(spool)
	if err != nil {
		return nil, 0, fmt.Errorf("inbound: read spool: %w", err)
	}
	parts := io.MultiReader(bytes.NewReader(trace), came, bytes.NewReader(end))
	return parts, int64(len(trace)) + came.Size() + int64(len(end)), nil
}

// missingEnd is the CR LF that the last line lacks, if it does.
func missingEnd(spool *message.Spool) ([]byte, error) {
	var last [2]byte
	if spool.Size() >= 2 {
		if _, err := spool.ReadAt(last[:], spool.Size()-2); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	if spool.Size() == 0 || string(last[:]) == "\r\n" {
		return nil, nil
	}
	return []byte("\r\n"), nil
}

// deliveries are the mailboxes, and what stands before the letter in each.
func (t *transaction) deliveries() []mailbox.Delivery {
	all := make([]mailbox.Delivery, len(t.targets))
	for i, target := range t.targets {
		prefix := message.ReturnPath(t.mail.From.String())
		prefix = append(prefix, message.DeliveredTo(deliveredTo(target))...)
		all[i] = mailbox.Delivery{AccountID: target.AccountID, Prefix: prefix}
	}
	return all
}

// deliveredTo is the recipient as the sender wrote it, so that its owner can sort by tag or alias.
func deliveredTo(t target) string {
	if t.recipient.Postmaster {
		return t.Address
	}
	return t.recipient.Address.String()
}

func (t *transaction) accountIDs() []int64 {
	ids := make([]int64, len(t.targets))
	for i, target := range t.targets {
		ids[i] = target.AccountID
	}
	return ids
}

// entries are the letter's rows in the ledger.
func (t *transaction) entries(id message.ID) []maillog.Entry {
	all := make([]maillog.Entry, len(t.targets))
	for i, target := range t.targets {
		all[i] = maillog.Entry{
			Time: time.Now(), Message: id, Kind: maillog.KindStored, Account: target.AccountID,
			ReversePath: t.mail.From.String(), Recipient: deliveredTo(target),
			Remote: t.client.Remote.Addr().String(), Detail: "kept in the mailbox of " + target.Target.Address,
		}
	}
	return all
}
