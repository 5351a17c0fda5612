package mailbox

import (
	"cmp"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/postroom/postroom/internal/database"
)

// Delivery is one mailbox that a letter goes to, and what its owner sees besides the body.
type Delivery struct {
	AccountID int64
	Prefix    []byte // whole header lines in front of the body: Return-Path first, then Delivered-To
	MarkAt    int64  // where in the body Mark is put in
	Mark      string
	Flags     int64 // such as Junk
}

// Junk is the flag of a letter that its owner should doubt ($Junk in RFC 9051 section 2.3.2). It hides nothing by itself.
const Junk int64 = 1

// Receipt says where a letter lies now.
type Receipt struct {
	AccountID int64
	MailboxID int64
	UID       uint32
	UIDL      string
	Size      int64 // as its owner reads it
}

// Deliver puts the letter into the inbox of each account, once even when an account is listed more than once (the first
// counts). It belongs into a DB.Write, together with what else must be kept or not kept with the letter.
func (s *Store) Deliver(tx *database.Tx, st *Staged, to []Delivery) ([]Receipt, error) {
	to = oncePerAccount(to)
	if len(to) == 0 {
		return nil, nil
	}
	for _, d := range to {
		if d.MarkAt < 0 || d.MarkAt > st.size {
			return nil, fmt.Errorf("mailbox: deliver %s: mark at %d of %d octets", st.id, d.MarkAt, st.size)
		}
	}
	b, to, err := st.write(tx, to)
	if err != nil {
		return nil, fmt.Errorf("mailbox: deliver %s: %w", st.id, err)
	}
	receipts := make([]Receipt, 0, len(to))
	now := time.Now()
	for _, d := range to {
		r, err := deliverOne(tx, b, d, now)
		if err != nil {
			return nil, fmt.Errorf("mailbox: deliver %s to account %d: %w", st.id, d.AccountID, err)
		}
		receipts = append(receipts, r)
	}
	return receipts, tx.Tell(changes)
}

// oncePerAccount drops what goes to the same account again. All transactions touch accounts in the same order, so that on
// PostgreSQL two of them cannot wait for each other.
func oncePerAccount(to []Delivery) []Delivery {
	if len(to) < 2 {
		return to
	}
	to = slices.Clone(to)
	slices.SortStableFunc(to, func(a, b Delivery) int { return cmp.Compare(a.AccountID, b.AccountID) })
	return slices.CompactFunc(to, func(a, b Delivery) bool { return a.AccountID == b.AccountID })
}

// written is a body that has its row.
type written struct {
	id   int64
	size int64
}

// write writes the body, or finds it when it was written ahead, and counts the references to it. It returns what of the deliveries
// goes into the rows of their mailboxes: a letter for one mailbox is written in one piece, as its owner reads it. Rows of mailboxes
// are scattered, so that each letter writes a page of them again; the shorter they are, the rarer that page must be split.
func (st *Staged) write(tx *database.Tx, to []Delivery) (written, []Delivery, error) {
	switch {
	case st.blob != 0:
		b, err := st.refer(tx, len(to))
		return b, to, err
	case int64(len(st.body)) != st.size:
		return written{}, nil, errors.New("it was discarded")
	case len(to) > 1:
		b, err := st.insert(tx, len(to), st.body)
		return b, to, err
	}
	d := to[0]
	whole, free := takeBody(len(d.Prefix) + len(st.body) + len(d.Mark))
	defer free()
	n := copy(whole, d.Prefix)
	n += copy(whole[n:], st.body[:d.MarkAt])
	n += copy(whole[n:], d.Mark)
	copy(whole[n:], st.body[d.MarkAt:])
	b, err := st.insert(tx, 1, whole)
	return b, []Delivery{{AccountID: d.AccountID, Flags: d.Flags}}, err
}

// insert writes a body with n references to it.
func (st *Staged) insert(tx *database.Tx, n int, octets []byte) (written, error) {
	b := written{size: int64(len(octets))}
	var err error
	if b.id, err = insertBlob(tx, st.id, b.size, n); err != nil {
		return written{}, err
	}
	return b, insertChunks(tx, b.id, 0, octets)
}

// refer counts n references to a body that was written ahead.
func (st *Staged) refer(tx *database.Tx, n int) (written, error) {
	r, err := tx.Exec("UPDATE blobs SET refs = CASE WHEN refs > 0 THEN refs + ? ELSE ? END WHERE id = ? AND message = ? AND (refs > 0 OR refs = ?)",
		n, n, st.blob, st.id.String(), refsStaged)
	if err != nil {
		return written{}, err
	}
	if rows, err := r.RowsAffected(); err != nil || rows != 1 {
		return written{}, errors.Join(fmt.Errorf("%w: the body that was written ahead is gone", database.ErrUnavailable), err)
	}
	return written{id: st.blob, size: st.size}, nil
}

// deliverOne adds the row of one mailbox.
func deliverOne(tx *database.Tx, b written, d Delivery, now time.Time) (Receipt, error) {
	r := Receipt{AccountID: d.AccountID, Size: int64(len(d.Prefix)) + b.size + int64(len(d.Mark))}
	id, uid, modseq, err := nextUID(tx, d.AccountID, r.Size, now)
	if err != nil {
		return Receipt{}, err
	}
	var uidl UIDL
	_, _ = rand.Read(uidl[:]) // never fails
	_, err = tx.Exec(`INSERT INTO messages (mailbox_id, uid, blob_id, size, flags, received, modseq, uidl, prefix, mark_at, mark)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		id, uid, b.id, r.Size, d.Flags, now.UnixMilli(), modseq, uidl[:], notNil(d.Prefix), d.MarkAt, []byte(d.Mark))
	r.MailboxID, r.UID, r.UIDL = id, uid, uidl.String()
	return r, err
}

// notNil keeps an empty value from becoming NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// nextUID counts the message and takes the next UID. The first delivery makes the mailbox.
func nextUID(tx *database.Tx, account, size int64, now time.Time) (id int64, uid uint32, modseq int64, err error) {
	var next int64
	err = tx.QueryRow(`UPDATE mailboxes SET uidnext = uidnext + 1, modseq = modseq + 1, messages = messages + 1, octets = octets + ?
		WHERE account_id = ? AND name = ? RETURNING id, uidnext - 1, modseq`, size, account, Inbox).Scan(&id, &next, &modseq)
	if errors.Is(err, sql.ErrNoRows) {
		// RFC 9051 section 2.3.1.1: a mailbox made anew must have a higher UIDVALIDITY, so it is the time in seconds.
		err = tx.QueryRow(`INSERT INTO mailboxes (account_id, name, uidvalidity, uidnext, modseq, messages, octets)
			VALUES (?, ?, ?, 2, 1, 1, ?) RETURNING id, uidnext - 1, modseq`, account, Inbox, uint32(now.Unix()), size).Scan(&id, &next, &modseq)
	}
	switch {
	case err != nil:
		return 0, 0, 0, err
	case next > math.MaxUint32:
		return 0, 0, 0, errors.New("the mailbox has given out all its UIDs")
	}
	return id, uint32(next), modseq, nil
}
