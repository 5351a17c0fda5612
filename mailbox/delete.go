package mailbox

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/postroom/postroom/internal/database"
)

// Delete deletes the messages, all of them or, when it fails, none. UIDs that are not there (any more) are passed over. The
// bodies that nobody else has are freed afterwards, a few at a time, so that deliveries do not wait for a big deletion.
func (s *Store) Delete(ctx context.Context, account int64, uids []uint32) error {
	if len(uids) == 0 {
		return nil
	}
	list, err := json.Marshal(runs(uids))
	if err != nil {
		return err
	}
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		id, _, err := inbox(tx, account)
		if err != nil || id == 0 {
			return err
		}
		return deleteRanges(tx, id, string(list), refsDead)
	})
	if err != nil {
		return fmt.Errorf("mailbox: delete %d messages of account %d: %w", len(uids), account, err)
	}
	s.startFreeing(ctx)
	return nil
}

// runs returns the UIDs as ranges [first, last], in ascending order.
func runs(uids []uint32) [][2]uint32 {
	uids = slices.Clone(uids)
	slices.Sort(uids)
	var all [][2]uint32
	for _, uid := range uids {
		if n := len(all); n > 0 && uid <= all[n-1][1]+1 {
			all[n-1][1] = uid
			continue
		}
		all = append(all, [2]uint32{uid, uid})
	}
	return all
}

// The placeholders are a JSON list of [first, last], as runs gives it, and then the mailbox. CROSS JOIN makes SQLite look
// up each range in the mailbox; by its own choice it would look through the ranges for each message.
const (
	ranges  = "(SELECT json_extract(value, '$[0]') AS first, json_extract(value, '$[1]') AS last FROM json_each(?)) AS r"
	inRange = ranges + " CROSS JOIN messages AS m WHERE m.mailbox_id = ? AND m.uid BETWEEN r.first AND r.last"
)

// deleteRanges takes the messages out of the mailbox. A body that loses its last reference is marked with dead.
func deleteRanges(tx *database.Tx, mailbox int64, list string, dead int) error {
	var n, octets, modseq int64
	if err := tx.QueryRow("SELECT count(*), coalesce(sum(m.size), 0) FROM "+inRange, list, mailbox).Scan(&n, &octets); err != nil || n == 0 {
		return err
	}
	err := tx.QueryRow(`UPDATE mailboxes SET modseq = modseq + 1, messages = messages - ?, octets = octets - ? WHERE id = ? RETURNING modseq`,
		n, octets, mailbox).Scan(&modseq)
	if err != nil {
		return err
	}
	// RFC 7162 section 3.2.10: what was deleted is told as ranges of UIDs, which may name some that were gone before.
	for _, step := range []struct {
		query string
		args  []any
	}{
		{`UPDATE blobs SET refs = CASE WHEN blobs.refs > d.n THEN blobs.refs - d.n ELSE ? END
			FROM (SELECT m.blob_id, count(*) AS n FROM ` + inRange + ` GROUP BY m.blob_id) AS d WHERE blobs.id = d.blob_id`, []any{dead, list, mailbox}},
		{"DELETE FROM messages WHERE mailbox_id = ? AND uid IN (SELECT m.uid FROM " + inRange + ")", []any{mailbox, list, mailbox}},
		{`INSERT INTO tombstones (mailbox_id, modseq, first, last)
			SELECT x.id, x.modseq, r.first, CASE WHEN r.last < x.uidnext THEN r.last ELSE x.uidnext - 1 END
			FROM ` + ranges + `, mailboxes AS x WHERE x.id = ? AND r.first < x.uidnext`, []any{list, mailbox}},
	} {
		if _, err := tx.Exec(step.query, step.args...); err != nil {
			return err
		}
	}
	return tx.Tell(changes)
}

// Erase removes all that the store keeps of the account, and overwrites it on disk. A body that other accounts have, too,
// stays theirs. What was deleted and freed before lies in free pages until they are used again.
func (s *Store) Erase(ctx context.Context, account int64) error {
	err := s.db.Write(ctx, func(tx *database.Tx) error { return eraseMailboxes(tx, account) })
	if err == nil {
		err = s.freeAll(ctx, refsErase)
	}
	if err == nil {
		err = s.db.TruncateLog(ctx)
	}
	if err != nil {
		return fmt.Errorf("mailbox: erase account %d: %w", account, err)
	}
	return nil
}

// eraseMailboxes deletes the mailboxes of the account and marks their bodies.
func eraseMailboxes(tx *database.Tx, account int64) error {
	if err := tx.Erase(); err != nil {
		return err
	}
	const mine = "(SELECT id FROM mailboxes WHERE account_id = ?)"
	if _, err := tx.Exec(`UPDATE blobs SET refs = CASE WHEN blobs.refs > d.n THEN blobs.refs - d.n ELSE ? END
		FROM (SELECT blob_id, count(*) AS n FROM messages WHERE mailbox_id IN `+mine+` GROUP BY blob_id) AS d WHERE blobs.id = d.blob_id`,
		refsErase, account); err != nil {
		return err
	}
	// What was deleted and not freed yet may be this account's, too.
	if _, err := tx.Exec("UPDATE blobs SET refs = ? WHERE refs = ? AND refs <= 0", refsErase, refsDead); err != nil {
		return err
	}
	for _, query := range []string{
		"DELETE FROM messages WHERE mailbox_id IN " + mine,
		"DELETE FROM tombstones WHERE mailbox_id IN " + mine,
		"DELETE FROM mailboxes WHERE account_id = ?",
	} {
		if _, err := tx.Exec(query, account); err != nil {
			return err
		}
	}
	return tx.Tell(changes)
}
