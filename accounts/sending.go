package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
)

// SendingLimits are what one account may send, in recipients. A person never meets them; a stolen password does.
type SendingLimits struct {
	Hour, Day int
	Strangers int // addresses that it never wrote to before, in a day
}

// DefaultSendingLimits are those of an account.
var DefaultSendingLimits = SendingLimits{Hour: 500, Day: 2000, Strangers: 500}

// ErrHeld says that an account may not send until an operator has looked.
var ErrHeld = errors.New("sending is on hold")

// Held is why an account may not send.
type Held struct {
	Account int64
	Since   time.Time
	Reason  string
}

// MaySend fails with ErrHeld where sending is on hold. It belongs into the write that takes a letter.
func MaySend(tx *database.Tx, account int64) error {
	var reason string
	err := tx.QueryRow("SELECT reason FROM sending_holds WHERE account_id = ?", account).Scan(&reason)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s", ErrHeld, reason)
}

// CountSending counts the recipients of a letter and says in over which limit it crosses; nothing where it crosses none. It
// belongs into the write that takes the letter, which is then to be given up, with a HoldSending in a write of its own.
func (s *Service) CountSending(tx *database.Tx, account int64, to []addr.Address, l SendingLimits, now time.Time) (over string, err error) {
	hour, strangers := now.Unix()/3600, 0
	for _, a := range to {
		h := hmac.New(sha256.New, s.secret) // a copy of the database does not tell whom people write to
		h.Write([]byte(a.Key()))
		r, err := tx.Exec("INSERT INTO correspondents (account_id, hash) VALUES (?, ?) ON CONFLICT (account_id, hash) DO NOTHING", account, h.Sum(nil)[:16])
		if err != nil {
			return "", err
		}
		n, err := r.RowsAffected()
		if err != nil {
			return "", err
		}
		strangers += int(n)
	}
	_, err = tx.Exec(`INSERT INTO sent_hours (account_id, hour, recipients, strangers) VALUES (?, ?, ?, ?)
		ON CONFLICT (account_id, hour) DO UPDATE SET recipients = sent_hours.recipients + excluded.recipients, strangers = sent_hours.strangers + excluded.strangers`,
		account, hour, len(to), strangers)
	if err != nil {
		return "", err
	}
	if _, err := tx.Exec("DELETE FROM sent_hours WHERE account_id = ? AND hour < ?", account, hour-48); err != nil {
		return "", err
	}
	return overLimit(tx, account, hour, l)
}

// overLimit compares what was sent with the limits. An hour is the one that began last, a day the last 24 of these.
func overLimit(tx *database.Tx, account, hour int64, l SendingLimits) (string, error) {
	var inHour, inDay, strangers int
	err := tx.QueryRow(`SELECT coalesce(sum(CASE WHEN hour = ? THEN recipients ELSE 0 END), 0), coalesce(sum(recipients), 0), coalesce(sum(strangers), 0)
		FROM sent_hours WHERE account_id = ? AND hour > ?`, hour, account, hour-24).Scan(&inHour, &inDay, &strangers)
	switch {
	case err != nil:
		return "", err
	case inHour > l.Hour:
		return fmt.Sprintf("%d recipients in an hour, the limit is %d", inHour, l.Hour), nil
	case inDay > l.Day:
		return fmt.Sprintf("%d recipients in a day, the limit is %d", inDay, l.Day), nil
	case strangers > l.Strangers:
		return fmt.Sprintf("%d recipients in a day that it never wrote to before, the limit is %d", strangers, l.Strangers), nil
	}
	return "", nil
}

// HoldSending takes nothing more from an account until ReleaseSending. It belongs into a write.
func HoldSending(tx *database.Tx, account int64, reason string, now time.Time) error {
	_, err := tx.Exec("INSERT INTO sending_holds (account_id, since, reason) VALUES (?, ?, ?) ON CONFLICT (account_id) DO NOTHING", account, millis(now), reason)
	return err
}

// ReleaseSending lets an account send again, and forgets what it has sent in the last hours. It belongs into a write.
func ReleaseSending(tx *database.Tx, account int64) (held bool, err error) {
	r, err := tx.Exec("DELETE FROM sending_holds WHERE account_id = ?", account)
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	if err != nil {
		return false, err
	}
	_, err = tx.Exec("DELETE FROM sent_hours WHERE account_id = ?", account)
	return n > 0, err
}

// HeldAccounts lists who may not send.
func (s *Service) HeldAccounts(ctx context.Context) (all []Held, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		all = nil
		rows, err := tx.Query("SELECT account_id, since, reason FROM sending_holds ORDER BY since")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var h Held
			var since int64
			if err := rows.Scan(&h.Account, &since, &h.Reason); err != nil {
				return err
			}
			h.Since = fromMillis(since)
			all = append(all, h)
		}
		return rows.Err()
	})
	return all, wrap("list held accounts", err)
}
