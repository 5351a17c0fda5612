// Package mailbox keeps messages: it delivers, lists, reads and deletes them, and counts what an account uses. It does not
// decide who receives what, judge quotas, or speak a protocol.
//
// A body is stored once, in rows of 64 KiB, however many mailboxes it goes to. What differs per recipient (the prefix with
// Return-Path and Delivered-To, and a mark inside the header) is kept with the mailbox row and put in when the message is
// read; sizes count it. It is part of the body where there is one recipient and the body is small. A message has a UID (RFC 9051 section 2.3.1.1) and a UIDL (RFC 1939 section 7), and neither is
// ever given to another message.
package mailbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"

	"github.com/postroom/postroom/internal/database"
)

// Inbox is the mailbox that letters are delivered to. Its name is the same in any case (RFC 9051 section 5.1).
const Inbox = "INBOX"

// changes is the kind that DB.Watch knows changes of mailboxes by.
const changes = "mailbox"

// ErrNoMessage says that there is no such message, or no longer.
var ErrNoMessage = errors.New("no such message")

// Options are a store's surroundings.
type Options struct {
	Log *slog.Logger
}

// Store keeps messages in the database. Its methods may be called from many goroutines.
type Store struct {
	db  *database.DB
	log *slog.Logger

	free freeing
}

// New returns a store on the database, whose schema has the tables already.
func New(db *database.DB, o Options) (*Store, error) {
	if db == nil {
		return nil, errors.New("mailbox: no database")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{db: db, log: o.Log}, nil
}

// Close ends the freeing of bodies and waits for it. What is left is freed by the next Sweep.
func (s *Store) Close() error {
	s.free.stop()
	return nil
}

// Usage returns how many messages the account has and how many octets they are as its owner reads them.
func (s *Store) Usage(ctx context.Context, account int64) (messages int, octets int64, err error) {
	err = s.db.ReadRow(ctx, "SELECT coalesce(sum(messages), 0), coalesce(sum(octets), 0) FROM mailboxes WHERE account_id = ?", []any{account}, &messages, &octets)
	if err != nil {
		return 0, 0, fmt.Errorf("mailbox: usage of account %d: %w", account, err)
	}
	return messages, octets, nil
}

// inbox returns the mailbox of the account, or 0 when nothing was ever delivered to it.
func inbox(tx *database.Tx, account int64) (id int64, uidvalidity uint32, err error) {
	err = tx.QueryRow("SELECT id, uidvalidity FROM mailboxes WHERE account_id = ? AND name = ?", account, Inbox).Scan(&id, &uidvalidity)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, 0, nil
	}
	return id, uidvalidity, err
}
