package delivery

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/postroom/postroom/internal/database"
)

// maxRenewals is how many policies one round renews.
const maxRenewals = 500

const stsColumns = "SELECT domain, id, policy, fetched, expires, failed FROM mta_sts "

// load reads what is known about a domain; a row without a policy where nothing is.
func (c *stsCache) load(ctx context.Context, domain string) (row stsRow, err error) {
	err = c.o.DB.Read(ctx, func(tx *database.Tx) error {
		row, err = scanSTS(tx.QueryRow(stsColumns+"WHERE domain = ?", domain))
		if errors.Is(err, sql.ErrNoRows) {
			row, err = stsRow{domain: domain}, nil
		}
		return err
	})
	return row, err
}

func scanSTS(s interface{ Scan(...any) error }) (row stsRow, err error) {
	var fetched, expires, failed int64
	err = s.Scan(&row.domain, &row.id, &row.policy, &fetched, &expires, &failed)
	row.fetched, row.expires, row.failed = fromMillis(fetched), fromMillis(expires), fromMillis(failed)
	return row, err
}

// save keeps a row.
func (c *stsCache) save(ctx context.Context, r stsRow) error {
	if r.policy == nil {
		r.policy = []byte{}
	}
	return c.o.DB.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec(`INSERT INTO mta_sts (domain, id, policy, fetched, expires, failed) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (domain) DO UPDATE SET id = excluded.id, policy = excluded.policy, fetched = excluded.fetched,
			expires = excluded.expires, failed = excluded.failed`,
			r.domain, r.id, r.policy, millis(r.fetched), millis(r.expires), millis(r.failed))
		return err
	})
}

// due forgets what counts no more, and returns the policies in force that were fetched a day ago, those first that were not tried for longest.
func (c *stsCache) due(ctx context.Context, now time.Time) (rows []stsRow, err error) {
	err = c.o.DB.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec("DELETE FROM mta_sts WHERE expires <= ? AND failed <= ?", millis(now), millis(now.Add(-stsRefresh)))
		return err
	})
	if err != nil {
		return nil, err
	}
	err = c.o.DB.Read(ctx, func(tx *database.Tx) error {
		rows = nil
		found, err := tx.Query(stsColumns+"WHERE fetched <= ? AND expires > ? ORDER BY CASE WHEN failed > fetched THEN failed ELSE fetched END LIMIT ?", millis(now.Add(-stsRefresh)), millis(now), maxRenewals)
		if err != nil {
			return err
		}
		defer found.Close()
		for found.Next() {
			row, err := scanSTS(found)
			if err != nil {
				return err
			}
			rows = append(rows, row)
		}
		return found.Err()
	})
	return rows, err
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
