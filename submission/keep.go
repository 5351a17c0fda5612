package submission

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/mailbox"
	"github.com/postroom/postroom/queue"
)

// overLimit is a letter with which its account sends too much.
type overLimit struct{ reason string }

func (o *overLimit) Error() string { return o.reason }

// keep makes the letter, its place in every mailbox here, its place in the queue and its ledger rows durable, in one write.
func (t *transaction) keep(ctx context.Context, l *letter) error {
	content, size := l.content()
	staged, err := t.h.Mailbox.Stage(ctx, l.id, size, content)
	if err != nil {
		return err
	}
	defer func() {
		if err := staged.Discard(context.WithoutCancel(ctx)); err != nil {
			t.log.Warn("staged letter not freed", maillog.Msg, l.id, maillog.Err, err)
		}
	}()
	out, err := t.outgoing(l, size)
	if err != nil {
		return err
	}
	confirm, err := t.confirmation(ctx, l, out)
	if err != nil {
		return err
	}
	err = t.h.DB.Write(ctx, func(tx *database.Tx) error {
		if err := t.store(tx, l, staged, out); err != nil || confirm == nil {
			return err
		}
		return confirm(tx)
	})
	if over, ok := errors.AsType[*overLimit](err); ok {
		return t.hold(ctx, over)
	}
	if err != nil {
		return err
	}
	t.log.Info(maillog.Stored, maillog.Msg, l.id, maillog.From, t.mail.From.String(), maillog.To, t.recipients, maillog.Size, size,
		"here", len(t.local), "queued", len(t.remote), maillog.Took, time.Since(l.now))
	return nil
}

// confirmation makes the notice for those recipients here of whose success the sender wants to hear: RFC 3461 section 4.1. It is nil where
// there are none.
func (t *transaction) confirmation(ctx context.Context, l *letter, out queue.Letter) (func(*database.Tx) error, error) {
	if len(t.confirm) == 0 {
		return nil, nil
	}
	content, _ := l.content()
	return t.h.Queue.Confirm(ctx, out, t.confirm, content)
}

// store is the one write.
func (t *transaction) store(tx *database.Tx, l *letter, staged *mailbox.Staged, out queue.Letter) error {
	account := t.login.AccountID
	if err := accounts.MustBeThere(tx, append(t.accountIDs(), account)...); err != nil {
		return err
	}
	if err := accounts.MaySend(tx, account); err != nil {
		return err
	}
	over, err := t.h.Accounts.CountSending(tx, account, t.addresses(), t.h.Limits, l.now)
	if err != nil {
		return err
	}
	if over != "" {
		return &overLimit{over}
	}
	if _, err := t.h.Mailbox.Deliver(tx, staged, t.deliveries()); err != nil {
		return err
	}
	if len(t.remote) > 0 {
		blob, err := t.h.Mailbox.Hold(tx, staged)
		if err != nil {
			return err
		}
		if err := t.h.Queue.Add(tx, out, blob, t.remote); err != nil {
			return err
		}
	}
	return maillog.Add(tx, t.entries(l)...)
}

// hold stops an account that sends too much: its letters in the queue wait, and no more are taken, until an operator has
// looked. Nothing bounces: the account's owner may be innocent.
func (t *transaction) hold(ctx context.Context, over *overLimit) error {
	held := 0
	err := t.h.DB.Write(ctx, func(tx *database.Tx) (err error) {
		if err := accounts.HoldSending(tx, t.login.AccountID, over.reason, time.Now()); err != nil {
			return err
		}
		held, err = t.h.Queue.HoldAccount(tx, t.login.AccountID)
		return err
	})
	if err != nil {
		return err
	}
	t.log.Error("sending is on hold: an account sends too much, its password may be in wrong hands", "address", t.login.Address,
		"device", t.login.Device, "reason", over.reason, "held", held)
	t.h.Queue.Alert(ctx, queue.Alert{Domain: t.mail.From.Domain, Title: "Sending is on hold for " + t.login.Address, Text: fmt.Sprintf(
		"The account sends too much (%s); its password may be in wrong hands.\nThe last letter came from %s, with %s, for %d recipients. It was not taken.\n"+
			"%d recipients in the queue wait, and nothing bounced.\n\nLook at them: postroom queue list --account %[6]s\n"+
			"If it was not the owner: postroom account password %[6]s, then postroom queue drop --account %[6]s\nIf all is well: postroom queue release --account %[6]s",
		over.reason, t.origin(), loginName(t.login.Device), len(t.recipients), held, t.login.Address)})
	return fmt.Errorf("%w: %s", accounts.ErrHeld, over.reason)
}

// origin is where a letter came from.
func (t *transaction) origin() string {
	if ip := t.client.Remote.Addr(); ip.IsValid() {
		return ip.String()
	}
	return "a program on this machine"
}

// loginName names what somebody logged in with.
func loginName(device string) string {
	if device == "" {
		return "the account's own password"
	}
	return "the device password " + device
}

// outgoing is the letter as the queue sees it.
func (t *transaction) outgoing(l *letter, size int64) (queue.Letter, error) {
	header, body, err := l.isASCII()
	utf8 := !header && t.mail.UTF8 || !t.mail.From.Address.IsASCII() // a recipient whose address needs it has it asked for alone
	return queue.Letter{
		ID: l.id, Account: t.login.AccountID, From: t.mail.From, Size: size, EightBit: !body || !header, UTF8: utf8,
		RequireTLS: t.mail.RequireTLS, TLSOptional: !t.mail.RequireTLS && tlsOptional(l.header),
		Return: t.mail.Return, EnvelopeID: t.mail.EnvelopeID, Created: l.now,
	}, err
}

// tlsOptional tells whether the writer wants delivery more than encryption: RFC 8689 section 5.
func tlsOptional(h *message.Header) bool {
	return h.Count("TLS-Required") == 1 && strings.EqualFold(strings.TrimSpace(h.Get("TLS-Required")), "No")
}

// deliveries are the mailboxes here, and what stands before the letter in each.
func (t *transaction) deliveries() []mailbox.Delivery {
	all := make([]mailbox.Delivery, len(t.local))
	for i, l := range t.local {
		prefix := message.ReturnPath(t.mail.From.String())
		prefix = append(prefix, message.DeliveredTo(l.deliveredTo())...)
		all[i] = mailbox.Delivery{AccountID: l.AccountID, Prefix: prefix}
	}
	return all
}

// deliveredTo is the recipient as it was written.
func (l target) deliveredTo() string {
	if l.recipient.Postmaster {
		return l.Address
	}
	return l.recipient.Address.String()
}

// entries are the rows of the ledger for what stays here; the queue writes those of what leaves.
func (t *transaction) entries(l *letter) []maillog.Entry {
	all := make([]maillog.Entry, len(t.local))
	for i, to := range t.local {
		all[i] = maillog.Entry{
			Time: l.now, Message: l.id, Kind: maillog.KindStored, Account: to.AccountID,
			ReversePath: t.mail.From.String(), Recipient: to.deliveredTo(), Remote: t.origin(),
			Detail: fmt.Sprintf("handed in by %s, kept in the mailbox of %s", t.login.Address, to.Address),
		}
	}
	return all
}
