package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/mailbox"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/submission"
)

// queueStore is the queue's view of the store: letters that leave, and mailboxes that notices go to. It is a queue.Store and a
// queue.Signer.
type queueStore struct{ *stores }

var (
	_ queue.Store  = queueStore{}
	_ queue.Signer = queueStore{}
)

// Open reads a letter that is held.
func (q queueStore) Open(ctx context.Context, blob int64, id message.ID) (io.ReadCloser, error) {
	content, err := q.mailbox.OpenHeld(ctx, blob, id)
	if errors.Is(err, mailbox.ErrNoMessage) {
		return nil, errors.Join(queue.ErrNoContent, err)
	}
	return content, err
}

// Release gives a letter up.
func (q queueStore) Release(tx *database.Tx, blob int64) error { return q.mailbox.Release(tx, blob) }

// Keep makes a notice ready for the mailboxes of a recipient here.
func (q queueStore) Keep(ctx context.Context, id message.ID, to addr.Path, content []byte) (deliver func(*database.Tx) error, found bool, err error) {
	route, err := q.accounts.Resolve(ctx, to)
	if err != nil || route.Kind != accounts.Deliver {
		return nil, false, err
	}
	staged, err := q.mailbox.Stage(ctx, id, int64(len(content)), bytes.NewReader(content))
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
		if _, err := q.mailbox.Deliver(tx, staged, deliveries); err != nil {
			return err
		}
		return maillog.Add(tx, entries...)
	}, true, nil
}

// Hold keeps a notice that leaves.
func (q queueStore) Hold(ctx context.Context, id message.ID, content []byte) (hold func(*database.Tx) (int64, error), err error) {
	staged, err := q.mailbox.Stage(ctx, id, int64(len(content)), bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	return func(tx *database.Tx) (int64, error) { return q.mailbox.Hold(tx, staged) }, nil
}

// Sign signs a notice.
func (q queueStore) Sign(ctx context.Context, domain addr.Domain, content []byte) ([]byte, error) {
	return submission.Sign(ctx, q.accounts, domain, func() io.Reader { return bytes.NewReader(content) })
}
