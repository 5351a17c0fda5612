package queue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/message"
)

// State is why a recipient is in the queue.
type State int64

// The states.
const (
	Waiting     State = iota // for its time
	Held                     // by the operator
	AccountHeld              // with its account, which sends too much
	Aside                    // it cannot be read, or trying it failed in a way that nobody foresaw
)

// The bits of queue_letters.flags.
const (
	flagEightBit = 1 << iota
	flagUTF8
	flagRequireTLS
	flagTLSOptional
)

// queued is a letter in the database.
type queued struct {
	Letter
	row  int64
	blob int64
}

// waiting is a recipient in the database.
type waiting struct {
	Recipient
	row       int64
	delayTold bool
}

// errNobody keeps notices from those who did not ask for one: a letter that no account handed in is one of our own, with a null reverse-path.
var errNobody = errors.New("a letter with a sender belongs to an account that has logged in")

// Add puts a letter into the queue: blob is what the Store holds of it. It belongs into the write that makes the letter durable.
func (q *Queue) Add(tx *database.Tx, l Letter, blob int64, to []Recipient) error {
	if len(to) == 0 {
		return nil
	}
	if l.Account == 0 && !l.From.Null {
		return fmt.Errorf("queue: add %s: %w", l.ID, errNobody)
	}
	var flags int64
	for bit, on := range map[int64]bool{flagEightBit: l.EightBit, flagUTF8: l.UTF8, flagRequireTLS: l.RequireTLS, flagTLSOptional: l.TLSOptional} {
		if on {
			flags |= bit
		}
	}
	var id int64
	err := tx.QueryRow(`INSERT INTO queue_letters (message, account_id, reverse_path, size, flags, ret, envid, blob_id, created, pending)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
		l.ID.String(), l.Account, l.From.String(), l.Size, flags, l.Return, l.EnvelopeID, blob, l.Created.UnixMilli(), len(to)).Scan(&id)
	if err != nil {
		return fmt.Errorf("queue: add %s: %w", l.ID, err)
	}
	var turns []turn
	for _, r := range to {
		t := turn{r.To.Address.Domain.ASCII(), l.From.Address.Domain.ASCII()}
		_, err := tx.Exec(`INSERT INTO queue_recipients (letter_id, recipient, domain, sender, notify, original, state, attempts, next, delay_told, reason)
			VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, 0, '')`, id, r.To.String(), t.domain, t.sender, strings.Join(r.Notify, ","), r.Original, Waiting, l.Created.UnixMilli())
		if err != nil {
			return fmt.Errorf("queue: add %s: %w", l.ID, err)
		}
		turns = append(turns, t)
	}
	named := tx.Then(func() { q.fresh.add(turns) }) // not before it is there: it could be looked for in vain
	return errors.Join(named, tx.Tell(additions))
}

// parsePath reads what Path.String wrote.
func parsePath(s string) (addr.Path, error) {
	p, rest, err := addr.ParsePath(s)
	if err == nil && rest != "" {
		err = fmt.Errorf("%q follows it", rest)
	}
	return p, err
}

// turnAfter returns the next turn with recipients that wait, and when the first of them is due; the zero turn where there is none.
func (q *Queue) turnAfter(ctx context.Context, after turn) (t turn, next int64, err error) {
	err = q.DB.ReadRow(ctx, `SELECT domain, sender, next FROM queue_recipients WHERE state = 0 AND (domain, sender) > (?, ?)
		ORDER BY domain, sender, next LIMIT 1`, []any{after.domain, after.sender}, &t.domain, &t.sender, &next)
	if errors.Is(err, sql.ErrNoRows) {
		return turn{}, 0, nil
	}
	if err == nil && next > time.Now().Add(maxAhead).UnixMilli() {
		next, err = 0, q.bringForward(ctx, t)
	}
	return t, next, err
}

// maxAhead is more than any recipient waits: one that would wait longer was put off by a clock that was wrong.
const maxAhead = 5 * time.Hour

// bringForward makes due what a clock that was wrong has put off.
func (q *Queue) bringForward(ctx context.Context, t turn) error {
	now := time.Now()
	return q.DB.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec("UPDATE queue_recipients SET next = ? WHERE state = 0 AND domain = ? AND sender = ? AND next > ?",
			now.UnixMilli(), t.domain, t.sender, now.Add(maxAhead).UnixMilli())
		return err
	})
}

// maxDue bounds what is read of what has become due. A round finds the rest.
const maxDue = 5000

// dueSince returns the turns of what has become due after one time until another. all tells that these are all.
func (q *Queue) dueSince(ctx context.Context, after, until int64) (turns []turn, all bool, err error) {
	seen := 0
	err = q.DB.Read(ctx, func(tx *database.Tx) error {
		turns, seen = nil, 0
		rows, err := tx.Query("SELECT domain, sender FROM queue_recipients WHERE state = 0 AND next > ? AND next <= ? LIMIT "+strconv.Itoa(maxDue), after, until)
		if err != nil {
			return err
		}
		defer rows.Close()
		last := turn{}
		for ; rows.Next(); seen++ {
			var t turn
			if err := rows.Scan(&t.domain, &t.sender); err != nil {
				return err
			}
			if t != last { // mostly enough; the line takes each once
				turns, last = append(turns, t), t
			}
		}
		return rows.Err()
	})
	return turns, seen < maxDue, err
}

// nextDue is the time until a recipient is due that was not due at the given time.
func (q *Queue) nextDue(ctx context.Context, after int64) (time.Duration, error) {
	var next sql.NullInt64
	if err := q.DB.ReadRow(ctx, "SELECT min(next) FROM queue_recipients WHERE state = 0 AND next > ?", []any{after}, &next); err != nil {
		return 0, err
	}
	if !next.Valid {
		return idlePoll, nil
	}
	return max(0, time.Until(time.UnixMilli(next.Int64))), nil
}

// due returns a letter of a turn and its recipients that are due, the longest waiting first, but none that is taken. What cannot
// be read is set aside.
func (q *Queue) due(ctx context.Context, t turn, taken map[int64]struct{}) (l queued, to []waiting, err error) {
	for {
		var bad int64
		err = q.DB.Read(ctx, func(tx *database.Tx) (err error) {
			l, to, bad, err = readDue(tx, t, taken)
			return err
		})
		if bad == 0 {
			return l, to, err
		}
		if err := q.setAside(ctx, bad, err); err != nil {
			return l, nil, err
		}
	}
}

// readDue returns the row that is bad, where one is.
func readDue(tx *database.Tx, t turn, taken map[int64]struct{}) (l queued, to []waiting, bad int64, err error) {
	now := time.Now().UnixMilli()
	row, err := firstDue(tx, t, now, taken)
	if err != nil || row == 0 {
		return l, nil, 0, err
	}
	// A sum and a concatenation keep the query to the rows of the letter: those of the turn can be very many.
	rows, err := tx.Query(`SELECT id, letter_id, recipient, notify, original, attempts, delay_told FROM queue_recipients
		WHERE letter_id = (SELECT letter_id FROM queue_recipients WHERE id = ?) AND state + 0 = 0 AND domain || '' = ? AND next <= ?
		ORDER BY next, id`, row, t.domain, now)
	if err != nil {
		return l, nil, 0, err
	}
	defer rows.Close()
	for rows.Next() && len(to) < maxBatch {
		var (
			w                 waiting
			recipient, notify string
		)
		if err := rows.Scan(&w.row, &l.row, &recipient, &notify, &w.Original, &w.Attempts, &w.delayTold); err != nil {
			return l, nil, 0, err
		}
		if _, is := taken[w.row]; is {
			continue
		}
		if w.To, err = parsePath(recipient); err != nil {
			return l, nil, w.row, fmt.Errorf("recipient %q: %w", recipient, err)
		}
		if notify != "" {
			w.Notify = strings.Split(notify, ",")
		}
		w.Recipient.Row = w.row
		to = append(to, w)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(to) == 0 {
		return l, nil, 0, err
	}
	if l, err = readLetter(tx, l.row); err != nil {
		if database.IsTemporary(err) {
			return l, nil, 0, err
		}
		return l, nil, to[0].row, err
	}
	return l, to, 0, nil
}

// firstDue returns the recipient of a turn that has waited longest and is not taken, or 0. It reads nothing but an index, and
// of that no more than it must: with LIMIT and a value, SQLite would compile the query anew each time.
func firstDue(tx *database.Tx, t turn, now int64, taken map[int64]struct{}) (row int64, err error) {
	rows, err := tx.Query("SELECT id FROM queue_recipients WHERE state = 0 AND domain = ? AND sender = ? AND next <= ? ORDER BY next, id",
		t.domain, t.sender, now)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&row); err != nil {
			return 0, err
		}
		if _, is := taken[row]; !is {
			return row, nil
		}
	}
	return 0, rows.Err()
}

// readLetter reads the row of a letter.
func readLetter(tx *database.Tx, row int64) (l queued, err error) {
	var (
		id, from       string
		flags, created int64
	)
	err = tx.QueryRow("SELECT message, account_id, reverse_path, size, flags, ret, envid, blob_id, created FROM queue_letters WHERE id = ?", row).
		Scan(&id, &l.Account, &from, &l.Size, &flags, &l.Return, &l.EnvelopeID, &l.blob, &created)
	if err != nil {
		return l, err
	}
	l.row, l.Created = row, time.UnixMilli(created)
	l.EightBit, l.UTF8, l.RequireTLS, l.TLSOptional = flags&flagEightBit != 0, flags&flagUTF8 != 0, flags&flagRequireTLS != 0, flags&flagTLSOptional != 0
	if l.ID, err = message.ParseID(id); err != nil {
		return l, fmt.Errorf("letter %q: %w", id, err)
	}
	if l.From, err = parsePath(from); err != nil {
		return l, fmt.Errorf("reverse-path %q: %w", from, err)
	}
	return l, nil
}

// setAside keeps a recipient that cannot be tried from stopping the others. An operator decides what becomes of it.
func (q *Queue) setAside(ctx context.Context, row int64, why error) error {
	q.Log.Error("a recipient in the queue is set aside: see `postroom queue show`, then release or drop it", "row", row, maillog.Err, why)
	q.Alert(ctx, Alert{Title: "A letter in the queue is set aside", Text: "It cannot be read, or trying it failed in a way that nobody foresaw: " + first(why) +
		"\nThe others go on. `postroom queue list` shows it; `postroom queue release` has it tried again, `postroom queue drop` gives it up."})
	return q.DB.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec("UPDATE queue_recipients SET state = ?, reason = ? WHERE id = ?", Aside, fmt.Sprint(why), row)
		return err
	})
}

// first is the first line of an error; that of a panic has many.
func first(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// HoldAccount keeps what an account has in the queue from leaving, until ReleaseAccount. It belongs into the write that holds the
// account itself.
func (q *Queue) HoldAccount(tx *database.Tx, account int64) (held int, err error) {
	return q.move(tx, account, Waiting, AccountHeld)
}

// ReleaseAccount lets it go on.
func (q *Queue) ReleaseAccount(tx *database.Tx, account int64) (released int, err error) {
	return q.move(tx, account, AccountHeld, Waiting)
}

func (q *Queue) move(tx *database.Tx, account int64, from, to State) (n int, err error) {
	r, err := tx.Exec("UPDATE queue_recipients SET state = ? WHERE state = ? AND letter_id IN (SELECT id FROM queue_letters WHERE account_id = ?)", to, from, account)
	if err != nil {
		return 0, fmt.Errorf("queue: account %d: %w", account, err)
	}
	moved, err := r.RowsAffected()
	if err != nil {
		return 0, err
	}
	return int(moved), tx.Tell(changes)
}
