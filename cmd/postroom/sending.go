package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/auth/dkim"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/mailbox"
	"github.com/postroom/postroom/queue"
)

// held is the queue's view of the store: letters that leave, and mailboxes that notices go to. It is a queue.Store and a
// queue.Signer.
type held struct{ *stores }

var (
	_ queue.Store  = held{}
	_ queue.Signer = held{}
)

// Open reads a letter that is held.
func (h held) Open(ctx context.Context, blob int64, id message.ID) (io.ReadCloser, error) {
	content, err := h.mailbox.OpenHeld(ctx, blob, id)
	if errors.Is(err, mailbox.ErrNoMessage) {
		return nil, errors.Join(queue.ErrNoContent, err)
	}
	return content, err
}

// Release gives a letter up.
func (h held) Release(tx *database.Tx, blob int64) error { return h.mailbox.Release(tx, blob) }

// Keep makes a notice ready for the mailboxes of a recipient here.
func (h held) Keep(ctx context.Context, id message.ID, to addr.Path, content []byte) (deliver func(*database.Tx) error, found bool, err error) {
	route, err := h.accounts.Resolve(ctx, to)
	if err != nil || route.Kind != accounts.Deliver {
		return nil, false, err
	}
	staged, err := h.mailbox.Stage(ctx, id, int64(len(content)), bytes.NewReader(content))
	if err != nil {
		return nil, false, err
	}
	deliveries := make([]mailbox.Delivery, len(route.Targets))
	entries := make([]maillog.Entry, len(route.Targets))
	for i, t := range route.Targets {
		prefix := append(message.ReturnPath("<>"), message.DeliveredTo(t.Address)...)
		deliveries[i] = mailbox.Delivery{AccountID: t.AccountID, Prefix: prefix}
		entries[i] = maillog.Entry{
			Time: time.Now(), Message: id, Kind: maillog.KindStored, Account: t.AccountID, ReversePath: "<>", Recipient: t.Address,
			Detail: "a notice of this server, kept in the mailbox of " + t.Address,
		}
	}
	return func(tx *database.Tx) error {
		if _, err := h.mailbox.Deliver(tx, staged, deliveries); err != nil {
			return err
		}
		return maillog.Add(tx, entries...)
	}, true, nil
}

// Hold keeps a notice that leaves.
func (h held) Hold(ctx context.Context, id message.ID, content []byte) (hold func(*database.Tx) (int64, error), err error) {
	staged, err := h.mailbox.Stage(ctx, id, int64(len(content)), bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	return func(tx *database.Tx) (int64, error) { return h.mailbox.Hold(tx, staged) }, nil
}

// Sign signs a notice.
func (h held) Sign(ctx context.Context, domain addr.Domain, content []byte) ([]byte, error) {
	active, err := h.accounts.SigningKeys(ctx, domain)
	if err != nil || len(active) == 0 {
		return nil, err
	}
	keys := make([]dkim.SigningKey, len(active))
	for i, k := range active {
		keys[i] = dkim.SigningKey{Domain: domain.ASCII(), Selector: k.Selector, Key: k.Key}
	}
	header, err := message.ReadHeader(bytes.NewReader(content), message.HeaderLimits{})
	if err != nil {
		return nil, err
	}
	return dkim.Sign(bytes.NewReader(content), header, keys...)
}
