package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/message"
)

// ErrNotFound says that nothing in the queue is what was asked for.
var ErrNotFound = errors.New("queue: nothing there")

// Filter chooses recipients in the queue; what is zero chooses all.
type Filter struct {
	Message message.ID
	Account int64
	Domain  addr.Domain
}

// where is the filter in SQL.
func (f Filter) where() (clause string, args []any) {
	clauses := []string{"1 = 1"}
	if !f.Message.IsZero() {
		clauses, args = append(clauses, "l.message = ?"), append(args, f.Message.String())
	}
	if f.Account != 0 {
		clauses, args = append(clauses, "l.account_id = ?"), append(args, f.Account)
	}
	if !f.Domain.IsZero() {
		clauses, args = append(clauses, "r.domain = ?"), append(args, f.Domain.ASCII())
	}
	return strings.Join(clauses, " AND "), args
}

// Entry is a recipient in the queue, as people see it.
type Entry struct {
	Message   message.ID
	Account   int64 // 0: a notice of our own
	From      string
	Recipient string
	Size      int64
	Created   time.Time
	State     State
	Attempts  int
	Next      time.Time
	Reason    string // why it was set aside
	Last      string // the last reply
	row       int64
}

// Try is one attempt.
type Try struct {
	Time     time.Time
	Reply    string // word for word
	Enhanced string
	Remote   bool // the reply is the other side's
	Host     string
	Address  string
	TLS      string
	Policy   string
	Unclear  bool
}

// List returns what the filter chooses, oldest first, at most limit.
func (q *Queue) List(ctx context.Context, f Filter, limit int) (all []Entry, err error) {
	where, args := f.where()
	err = q.DB.Read(ctx, func(tx *database.Tx) error {
		all = nil
		rows, err := tx.Query(`SELECT r.id, l.message, l.account_id, l.reverse_path, r.recipient, l.size, l.created, r.state, r.attempts, r.next, r.reason,
			coalesce((SELECT a.reply FROM queue_attempts a WHERE a.recipient_id = r.id ORDER BY a.n DESC LIMIT 1), '')
			FROM queue_letters l JOIN queue_recipients r ON r.letter_id = l.id WHERE `+where+" ORDER BY r.id LIMIT ?", append(args, limit)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var (
				e             Entry
				id            string
				created, next int64
			)
			if err := rows.Scan(&e.row, &id, &e.Account, &e.From, &e.Recipient, &e.Size, &created, &e.State, &e.Attempts, &next, &e.Reason, &e.Last); err != nil {
				return err
			}
			if e.Message, err = message.ParseID(id); err != nil {
				return fmt.Errorf("letter %q: %w", id, err)
			}
			e.Created, e.Next = time.UnixMilli(created).UTC(), time.UnixMilli(next).UTC()
			all = append(all, e)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("queue: list: %w", err)
	}
	return all, nil
}

// Tries returns the attempts for a recipient that List returned, oldest first.
func (q *Queue) Tries(ctx context.Context, e Entry) (all []Try, err error) {
	err = q.DB.Read(ctx, func(tx *database.Tx) error {
		all = nil
		rows, err := tx.Query("SELECT at, reply, enhanced, remote, host, address, tls, policy, unclear FROM queue_attempts WHERE recipient_id = ? ORDER BY n", e.row)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var (
				t  Try
				at int64
			)
			if err := rows.Scan(&at, &t.Reply, &t.Enhanced, &t.Remote, &t.Host, &t.Address, &t.TLS, &t.Policy, &t.Unclear); err != nil {
				return err
			}
			t.Time = time.UnixMilli(at).UTC()
			all = append(all, t)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("queue: attempts: %w", err)
	}
	return all, nil
}

// Retry makes what the filter chooses due now, held or not held recipients as they are.
func (q *Queue) Retry(ctx context.Context, f Filter) (n int, err error) {
	return q.update(ctx, f, "next = ?", []any{time.Now().UnixMilli()}, nil, Waiting)
}

// Hold keeps what the filter chooses from being tried, until Release; what is held with its account, beyond the account's release.
func (q *Queue) Hold(ctx context.Context, f Filter) (n int, err error) {
	return q.update(ctx, f, "state = ?", []any{Held}, nil, Waiting, AccountHeld)
}

// Release lets what was held or set aside be tried again. What belongs to an account that onHold tells of stays held with it.
func (q *Queue) Release(ctx context.Context, f Filter, onHold func(tx *database.Tx, account int64) (bool, error)) (n int, err error) {
	where, args := f.where()
	return q.update(ctx, f, "state = ?, reason = ''", []any{Waiting}, func(tx *database.Tx) error {
		accounts, err := accountsOf(tx, where, args)
		for _, account := range accounts {
			held := false
			if held, err = onHold(tx, account); err == nil && held {
				_, err = q.HoldAccount(tx, account)
			}
			if err != nil {
				return err
			}
		}
		return err
	}, Held, Aside)
}

// accountsOf lists the accounts whose letters a filter chooses.
func accountsOf(tx *database.Tx, where string, args []any) (all []int64, err error) {
	rows, err := tx.Query("SELECT DISTINCT l.account_id FROM queue_letters l JOIN queue_recipients r ON r.letter_id = l.id WHERE "+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var account int64
		if err := rows.Scan(&account); err != nil {
			return nil, err
		}
		all = append(all, account)
	}
	return all, rows.Err()
}

// update changes what the filter chooses of these states, and does then what belongs into the same write.
func (q *Queue) update(ctx context.Context, f Filter, set string, values []any, then func(*database.Tx) error, states ...State) (n int, err error) {
	where, args := f.where()
	in := strings.TrimSuffix(strings.Repeat("?, ", len(states)), ", ")
	for _, s := range states {
		args = append(args, s)
	}
	err = q.DB.Write(ctx, func(tx *database.Tx) error {
		r, err := tx.Exec("UPDATE queue_recipients SET "+set+" WHERE id IN (SELECT r.id FROM queue_letters l JOIN queue_recipients r ON r.letter_id = l.id WHERE "+
			where+" AND r.state IN ("+in+"))", append(append([]any{}, values...), args...)...)
		if err != nil {
			return err
		}
		changed, err := r.RowsAffected()
		if n = int(changed); err == nil && then != nil {
			err = then(tx)
		}
		return errors.Join(err, tx.Tell(changes))
	})
	if err != nil {
		return 0, fmt.Errorf("queue: %w", err)
	}
	if n == 0 {
		return 0, ErrNotFound
	}
	return n, nil
}

// dropSome bounds the recipients that one write drops.
const dropSome = 1000

// Drop takes what the filter chooses out of the queue. The ledger says by whom; no sender is told.
func (q *Queue) Drop(ctx context.Context, f Filter, by string) (n int, err error) {
	where, args := f.where()
	for {
		some := 0
		err := q.DB.Write(ctx, func(tx *database.Tx) (err error) {
			some, err = q.dropSome(tx, where, args, by)
			return err
		})
		n += some
		switch {
		case err != nil:
			return n, fmt.Errorf("queue: drop: %w", err)
		case some < dropSome && n == 0:
			return 0, ErrNotFound
		case some < dropSome:
			return n, nil
		}
	}
}

func (q *Queue) dropSome(tx *database.Tx, where string, args []any, by string) (n int, err error) {
	recipients, letters, entries, err := toDrop(tx, where, args, by)
	if err != nil {
		return 0, err
	}
	for _, row := range recipients {
		if err := leave(tx, row); err != nil {
			return 0, err
		}
	}
	for letter, left := range letters {
		if err := q.finish(tx, letter, left); err != nil {
			return 0, err
		}
	}
	return len(recipients), maillog.Add(tx, entries...)
}

// toDrop reads what is to be dropped: the recipients, how many they are of each letter, and what the ledger says of them.
func toDrop(tx *database.Tx, where string, args []any, by string) (recipients []int64, letters map[int64]int, entries []maillog.Entry, err error) {
	rows, err := tx.Query(`SELECT r.id, l.id, l.message, l.account_id, l.reverse_path, r.recipient FROM queue_letters l
		JOIN queue_recipients r ON r.letter_id = l.id WHERE `+where+" ORDER BY r.id LIMIT ?", append(append([]any{}, args...), dropSome)...)
	if err != nil {
		return nil, nil, nil, err
	}
	defer rows.Close()
	letters = map[int64]int{}
	for rows.Next() {
		var (
			recipient, letter int64
			id                string
		)
		e := maillog.Entry{Time: time.Now(), Kind: maillog.KindDropped, Detail: "dropped from the queue by " + by}
		if err := rows.Scan(&recipient, &letter, &id, &e.Account, &e.ReversePath, &e.Recipient); err != nil {
			return nil, nil, nil, err
		}
		recipients = append(recipients, recipient)
		letters[letter]++
		if e.Message, err = message.ParseID(id); err == nil { // what cannot be read has no history
			entries = append(entries, e)
		}
	}
	return recipients, letters, entries, errors.Join(rows.Err(), rows.Close())
}
