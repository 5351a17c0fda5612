package accounts

import (
	"context"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
)

// Grant lets an account send as an address that does not deliver to it. The address must be in a domain of ours.
func (s *Service) Grant(ctx context.Context, account, address addr.Address) error {
	return wrap("grant", s.change(ctx, func(tx *database.Tx) error {
		a, err := findAccount(tx, account)
		if err != nil {
			return err
		}
		if _, err := findDomain(tx, address.Domain); err != nil {
			return err
		}
		_, err = tx.Exec("INSERT INTO grants (account_id, key, address) VALUES (?, ?, ?) ON CONFLICT (account_id, key) DO NOTHING",
			a.ID, address.Key(), address.String())
		return err
	}))
}

// Ungrant takes it back.
func (s *Service) Ungrant(ctx context.Context, account, address addr.Address) error {
	return wrap("take back a grant", s.change(ctx, func(tx *database.Tx) error {
		a, err := findAccount(tx, account)
		if err != nil {
			return err
		}
		r, err := tx.Exec("DELETE FROM grants WHERE account_id = ? AND key = ?", a.ID, address.Key())
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return problemf(ErrNotFound, "%s was not granted %s", account, address)
	}))
}

// Grants lists what an account was granted.
func (s *Service) Grants(ctx context.Context, account addr.Address) (all []string, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		all = nil
		a, err := findAccount(tx, account)
		if err != nil {
			return err
		}
		rows, err := tx.Query("SELECT address FROM grants WHERE account_id = ? ORDER BY key", a.ID)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var address string
			if err := rows.Scan(&address); err != nil {
				return err
			}
			all = append(all, address)
		}
		return rows.Err()
	})
	return all, wrap("list grants", err)
}

// MaySendAs tells whether an account may send as an address: one that was granted, or that delivers to it because somebody
// wrote it down (its own, an alias, with or without a tag; a catch-all is no such thing, since it would make everybody's
// address its own).
func (s *Service) MaySendAs(ctx context.Context, account int64, address addr.Address) (may bool, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		var n int
		if err := tx.QueryRow("SELECT count(*) FROM grants WHERE account_id = ? AND key = ?", account, address.Key()).Scan(&n); err != nil {
			return err
		}
		if may = n > 0; may {
			return nil
		}
		route, err := (&resolver{tx: tx}).known(address)
		if err != nil || route.Kind != Deliver {
			return err
		}
		for _, t := range route.Targets {
			may = may || t.AccountID == account
		}
		return nil
	})
	return may, wrap("may send as", err)
}
