package maillog

import (
	"context"
	"fmt"
	"time"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/message"
)

// Kind is what happened to a letter.
type Kind string

// What happens to letters.
const (
	KindStored  Kind = "stored"  // it was kept in the mailbox of Account
	KindSent    Kind = "sent"    // another server has taken it
	KindBounced Kind = "bounced" // nobody will take it
	KindDelayed Kind = "delayed" // its sender was told that it is late
	KindDropped Kind = "dropped" // an operator took it out of the queue
)

// Entry is a row of the ledger: one event of one letter.
type Entry struct {
	Time        time.Time
	Message     message.ID
	Kind        Kind
	Account     int64  // 0: of no account
	ReversePath string // as in MAIL FROM, without brackets
	Recipient   string
	Remote      string // the address that the letter came from
	Detail      string // one sentence for people
}

// Add writes entries together with what they tell of.
func Add(tx *database.Tx, entries ...Entry) error {
	for _, e := range entries {
		at := e.Time.UnixMilli()
		_, err := tx.Exec(`INSERT INTO ledger (id, at, message, kind, account_id, reverse_path, recipient, remote, detail)
			SELECT CASE WHEN last < ? THEN ? ELSE last + 1 END, ?, ?, ?, ?, ?, ?, ?, ? FROM (SELECT coalesce(max(id), 0) AS last FROM ledger) AS l`,
			rowAt(at), rowAt(at), at, e.Message.String(), string(e.Kind), e.Account, e.ReversePath, e.Recipient, e.Remote, e.Detail)
		if err != nil {
			return fmt.Errorf("ledger: %s %s: %w", e.Kind, e.Message, err)
		}
	}
	return nil
}

// rowAt is the first id that a row of that time can have: rows are in the order in which they were added, and so, but for a clock
// that was set back, in that of time.
func rowAt(milliseconds int64) int64 { return milliseconds << 16 }

// clockStep is how far a clock may have been set back between a letter's id and its first row.
const clockStep = 24 * time.Hour

// OfMessage returns what is known of a letter, oldest first. It reads all rows from its time on.
func OfMessage(ctx context.Context, db *database.DB, id message.ID) ([]Entry, error) {
	return query(ctx, db, "id >= ? AND message = ? ORDER BY id", rowAt(id.Time().Add(-clockStep).UnixMilli()), id.String())
}

// OfAccount returns the newest rows of an account, newest first, at most limit. It reads the ledger backwards until it has them.
func OfAccount(ctx context.Context, db *database.DB, account int64, limit int) ([]Entry, error) {
	return query(ctx, db, "account_id = ? ORDER BY id DESC LIMIT ?", account, limit)
}

func query(ctx context.Context, db *database.DB, where string, args ...any) (entries []Entry, err error) {
	err = db.Read(ctx, func(tx *database.Tx) error {
		entries = nil
		rows, err := tx.Query("SELECT at, message, kind, account_id, reverse_path, recipient, remote, detail FROM ledger WHERE "+where, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var (
				e    Entry
				at   int64
				id   string
				kind string
			)
			if err := rows.Scan(&at, &id, &kind, &e.Account, &e.ReversePath, &e.Recipient, &e.Remote, &e.Detail); err != nil {
				return err
			}
			if e.Message, err = message.ParseID(id); err != nil {
				return err
			}
			e.Time, e.Kind = time.UnixMilli(at).UTC(), Kind(kind)
			entries = append(entries, e)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("ledger: read: %w", err)
	}
	return entries, nil
}

// Erase removes all rows of an account, and overwrites them on disk.
func Erase(tx *database.Tx, account int64) error {
	if err := tx.Erase(); err != nil {
		return fmt.Errorf("ledger: erase: %w", err)
	}
	if _, err := tx.Exec("DELETE FROM ledger WHERE account_id = ?", account); err != nil {
		return fmt.Errorf("ledger: erase: %w", err)
	}
	return nil
}
