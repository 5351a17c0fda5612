package mailbox

import (
	"context"
	"database/sql"
	"encoding/base32"
	"fmt"
	"iter"

	"github.com/postroom/postroom/internal/database"
)

// UIDL is the name of a message that stays the same for as long as the message is there: 128 random bits.
type UIDL [16]byte

var uidlEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// String returns the 26 characters that a mail program sees (RFC 1939 section 7: 1 to 70 from 0x21 to 0x7E).
func (u UIDL) String() string {
	return uidlEncoding.EncodeToString(u[:])
}

// Entry is a message as a list shows it.
type Entry struct {
	UID  uint32
	UIDL UIDL
	Size int64 // as its owner reads it: exact
}

// Snapshot is the list of an inbox at one moment, oldest message first.
type Snapshot struct {
	UIDValidity uint32
	entries     []Entry
	octets      int64
}

// Len returns the number of messages.
func (s *Snapshot) Len() int { return len(s.entries) }

// Octets returns the size of all messages.
func (s *Snapshot) Octets() int64 { return s.octets }

// At returns message i, counted from 0.
func (s *Snapshot) At(i int) Entry { return s.entries[i] }

// All goes through the messages, counted from 0.
func (s *Snapshot) All() iter.Seq2[int, Entry] {
	return func(yield func(int, Entry) bool) {
		for i, e := range s.entries {
			if !yield(i, e) {
				return
			}
		}
	}
}

// Snapshot lists the inbox of the account. An account to which nothing was delivered has an empty one.
func (s *Store) Snapshot(ctx context.Context, account int64) (*Snapshot, error) {
	var snap *Snapshot
	err := s.db.Read(ctx, func(tx *database.Tx) error {
		snap = &Snapshot{}
		id, uidvalidity, err := inbox(tx, account)
		if err != nil || id == 0 {
			return err
		}
		snap.UIDValidity = uidvalidity
		return snap.read(tx, id)
	})
	if err != nil {
		return nil, fmt.Errorf("mailbox: list account %d: %w", account, err)
	}
	return snap, nil
}

func (s *Snapshot) read(tx *database.Tx, mailbox int64) error {
	var n int
	if err := tx.QueryRow("SELECT messages FROM mailboxes WHERE id = ?", mailbox).Scan(&n); err != nil {
		return err
	}
	s.entries = make([]Entry, 0, n)
	rows, err := tx.Query("SELECT uid, size, uidl FROM messages WHERE mailbox_id = ? ORDER BY uid", mailbox)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			uid, size int64
			uidl      sql.RawBytes
		)
		if err := rows.Scan(&uid, &size, &uidl); err != nil {
			return err
		}
		if len(uidl) != len(UIDL{}) {
			return fmt.Errorf("message %d: its UIDL has %d octets", uid, len(uidl))
		}
		s.entries = append(s.entries, Entry{UID: uint32(uid), UIDL: UIDL(uidl), Size: size})
		s.octets += size
	}
	return rows.Err()
}
