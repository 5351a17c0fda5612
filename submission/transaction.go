package submission

import (
	"context"
	"slices"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/smtpd"
)

// transaction is one letter: its envelope, and where it will go.
type transaction struct {
	*session
	mail       smtpd.Mail
	recipients []addr.Path
	local      []target          // mailboxes here
	remote     []queue.Recipient // on other servers
	confirm    []queue.Recipient // here, whose success the sender wants to hear of
}

// target is a mailbox, and the recipient that led there first.
type target struct {
	accounts.Target
	recipient addr.Path
}

// Rcpt takes a recipient anywhere: addresses of ours must exist, the rest is for other servers to judge.
func (t *transaction) Rcpt(ctx context.Context, r smtpd.Rcpt) error {
	if !r.To.Postmaster && r.To.Address.Domain.IsZero() {
		return &smtpd.Refusal{Reply: replyLiteral}
	}
	route, err := t.h.Accounts.Resolve(ctx, r.To)
	if err != nil {
		return err
	}
	switch route.Kind {
	case accounts.NotOurs:
		t.remote = append(t.remote, queue.Recipient{To: withoutRoute(r.To), Notify: r.Notify, Original: r.Original})
	case accounts.Deliver:
		if err := t.addLocal(ctx, route.Targets, r.To); err != nil {
			return err
		}
		if slices.Contains(r.Notify, "SUCCESS") {
			t.confirm = append(t.confirm, queue.Recipient{To: r.To, Notify: r.Notify, Original: r.Original})
		}
	case accounts.NobodyYet:
		return &smtpd.Refusal{Reply: replyNobodyYet}
	default:
		return &smtpd.Refusal{Reply: replyNoSuchUser}
	}
	t.recipients = append(t.recipients, r.To)
	return nil
}

// withoutRoute drops a source route: RFC 5321 section 3.3.
func withoutRoute(p addr.Path) addr.Path {
	p.SourceRoute = false
	return p
}

// addLocal adds mailboxes, each once, where all have room.
func (t *transaction) addLocal(ctx context.Context, targets []accounts.Target, recipient addr.Path) error {
	for _, a := range targets {
		if a.Quota == 0 {
			continue
		}
		_, used, err := t.h.Mailbox.Usage(ctx, a.AccountID)
		if err != nil {
			return err
		}
		if !a.HasRoom(used, t.mail.Size) {
			return &smtpd.Refusal{Reply: replyMailboxFull}
		}
	}
	for _, a := range targets {
		if !t.hasLocal(a.AccountID) {
			t.local = append(t.local, target{a, recipient})
		}
	}
	return nil
}

func (t *transaction) hasLocal(account int64) bool {
	for _, other := range t.local {
		if other.AccountID == account {
			return true
		}
	}
	return false
}

// addresses are the recipients that count for the limits. Postmaster without a domain is here, and free.
func (t *transaction) addresses() (all []addr.Address) {
	for _, r := range t.recipients {
		if !r.Postmaster {
			all = append(all, r.Address)
		}
	}
	return all
}

// accountIDs are the mailboxes here.
func (t *transaction) accountIDs() []int64 {
	ids := make([]int64, len(t.local))
	for i, l := range t.local {
		ids[i] = l.AccountID
	}
	return ids
}

// Close ends the letter, kept or not.
func (t *transaction) Close() {}
