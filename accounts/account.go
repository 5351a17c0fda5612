package accounts

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
)

// keepRemoved is how long the mail of a removed account can be had back.
const keepRemoved = 30 * 24 * time.Hour

// Account is somebody who gets mail here. Its ID is never used again; its address may change.
type Account struct {
	ID       int64
	Address  string
	Name     string
	Quota    int64 // octets; 0: none
	Disabled bool  // may not log in; mail is still received
	Created  time.Time
}

// NewAccount is what AddAccount needs.
type NewAccount struct {
	Address  addr.Address
	Password string
	Name     string
	Quota    int64
}

// AddAccount adds an account in a domain of ours. The first one of a domain gets its mail for postmaster and abuse.
func (s *Service) AddAccount(ctx context.Context, n NewAccount) (Account, error) {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	c, err := s.newCredential(ctx, n.Password, salt, s.iterations)
	if err != nil {
		return Account{}, err
	}
	a := Account{Address: n.Address.String(), Name: n.Name, Quota: n.Quota, Created: time.Now().UTC().Truncate(time.Millisecond)}
	err = s.change(ctx, func(tx *database.Tx) error {
		d, err := findDomain(tx, n.Address.Domain)
		if err != nil {
			return err
		}
		if err := mustBeFree(tx, n.Address); err != nil {
			return err
		}
		err = tx.QueryRow(`INSERT INTO accounts (domain_id, address, key, name, quota, disabled, salt, iterations, created, removed)
			VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, 0) RETURNING id`,
			d.ID, a.Address, n.Address.Key(), n.Name, n.Quota, salt, s.iterations, millis(a.Created)).Scan(&a.ID)
		if err != nil {
			return err
		}
		c.uses = Receive | Send
		return c.insert(tx, a.ID)
	})
	return a, wrap("add account", err)
}

// mustBeFree checks that no account and no alias has the address, in any spelling.
func mustBeFree(tx *database.Tx, a addr.Address) error {
	var n int
	key := a.Key()
	err := tx.QueryRow("SELECT (SELECT count(*) FROM accounts WHERE key = ?) + (SELECT count(*) FROM aliases WHERE key = ?)", key, key).Scan(&n)
	if err == nil && n > 0 {
		err = problemf(ErrExists, "%s is taken: an account or alias has it", a)
	}
	return err
}

// Accounts lists all accounts, by address.
func (s *Service) Accounts(ctx context.Context) (all []Account, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		all, err = selectAccounts(tx, "WHERE removed = 0 ORDER BY key")
		return err
	})
	return all, wrap("list accounts", err)
}

// Account returns the account with this address.
func (s *Service) Account(ctx context.Context, address addr.Address) (a Account, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		a, err = findAccount(tx, address)
		return err
	})
	return a, wrap("show account", err)
}

// SetQuota limits what an account may keep; 0 is no limit.
func (s *Service) SetQuota(ctx context.Context, address addr.Address, quota int64) error {
	return s.update(ctx, address, "quota = ?", quota)
}

// Disable ends the account's sessions and refuses its logins. Mail for it is still received.
func (s *Service) Disable(ctx context.Context, address addr.Address) error {
	return s.update(ctx, address, "disabled = ?", 1)
}

// Enable lets the account log in again.
func (s *Service) Enable(ctx context.Context, address addr.Address) error {
	return s.update(ctx, address, "disabled = ?", 0)
}

func (s *Service) update(ctx context.Context, address addr.Address, set string, value any) error {
	return wrap("change account", s.change(ctx, func(tx *database.Tx) error {
		a, err := findAccount(tx, address)
		if err != nil {
			return err
		}
		_, err = tx.Exec("UPDATE accounts SET "+set+" WHERE id = ?", value, a.ID)
		return err
	}))
}

// SetPassword replaces the account's own password. Device passwords stay as they are.
func (s *Service) SetPassword(ctx context.Context, address addr.Address, password string) error {
	var a Account
	var salt []byte
	var iterations int
	err := s.db.Read(ctx, func(tx *database.Tx) (err error) {
		if a, err = findAccount(tx, address); err != nil {
			return err
		}
		return tx.QueryRow("SELECT salt, iterations FROM accounts WHERE id = ?", a.ID).Scan(&salt, &iterations)
	})
	if err != nil {
		return wrap("set password", err)
	}
	c, err := s.newCredential(ctx, password, salt, iterations)
	if err != nil {
		return err
	}
	c.uses = Receive | Send
	return wrap("set password", s.change(ctx, func(tx *database.Tx) error {
		if _, err := tx.Exec("DELETE FROM credentials WHERE account_id = ? AND name = ''", a.ID); err != nil {
			return err
		}
		return c.insert(tx, a.ID)
	}))
}

// Remove takes an account away: mail for it is refused and its sessions end, at once. Its mail and its hashes are kept
// until Expired names it, unless Forget is called before.
func (s *Service) Remove(ctx context.Context, address addr.Address) (id int64, err error) {
	err = s.change(ctx, func(tx *database.Tx) error {
		a, err := findAccount(tx, address)
		if err != nil {
			return err
		}
		if err := mustNotBeTarget(tx, address); err != nil {
			return err
		}
		id = a.ID
		_, err = tx.Exec("UPDATE accounts SET key = NULL, removed = ? WHERE id = ?", millis(time.Now()), a.ID)
		return err
	})
	return id, wrap("remove account", err)
}

// mustNotBeTarget checks that no alias and no catch-all leads to the address.
func mustNotBeTarget(tx *database.Tx, a addr.Address) error {
	var from string
	err := tx.QueryRow(`SELECT aliases.address FROM alias_targets JOIN aliases ON aliases.id = alias_id WHERE alias_targets.key = ?
		ORDER BY aliases.address LIMIT 1`, a.Key()).Scan(&from)
	if err == nil {
		return problemf(nil, "the alias %s leads to %s: `postroom alias remove %s` first", from, a, from)
	}
	if _, err := none(err); err != nil {
		return err
	}
	err = tx.QueryRow("SELECT name FROM domains WHERE catch_all = ? LIMIT 1", a.String()).Scan(&from)
	if err == nil {
		return problemf(nil, "%s is the catch-all of %s: change that first", a, from)
	}
	_, err = none(err)
	return err
}

// ErrGone says that an account was removed since it was looked up.
var ErrGone = errors.New("the account was just removed")

// MustBeThere fails with ErrGone where one of the accounts was removed. It belongs into the write that gives them something:
// a letter whose recipient was accepted before must not land in an account whose mail has been erased.
func MustBeThere(tx *database.Tx, ids ...int64) error {
	for _, id := range ids {
		var n int
		if err := tx.QueryRow("SELECT count(*) FROM accounts WHERE id = ? AND removed = 0", id).Scan(&n); err != nil {
			return wrap("look for account", err)
		}
		if n == 0 {
			return ErrGone
		}
	}
	return nil
}

// Expired returns the accounts that were removed 30 days ago or earlier: their mail is to be erased, and then Forget is
// to be called.
func (s *Service) Expired(ctx context.Context) (ids []int64, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		ids = nil
		rows, err := tx.Query("SELECT id FROM accounts WHERE removed > 0 AND removed <= ? ORDER BY id", millis(time.Now().Add(-keepRemoved)))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return rows.Err()
	})
	return ids, wrap("list expired accounts", err)
}

// Forget erases a removed account: its hashes, its networks, its row, and overwrites them on disk.
func (s *Service) Forget(ctx context.Context, id int64) error {
	return wrap("forget account", s.change(ctx, func(tx *database.Tx) error {
		if err := tx.Erase(); err != nil {
			return err
		}
		var removed int64
		if err := tx.QueryRow("SELECT removed FROM accounts WHERE id = ?", id).Scan(&removed); err != nil {
			return err
		}
		if removed == 0 {
			return fmt.Errorf("account %d was not removed", id)
		}
		for _, from := range []string{"credentials WHERE account_id", "known_networks WHERE account_id", "grants WHERE account_id",
			"sent_hours WHERE account_id", "correspondents WHERE account_id", "sending_holds WHERE account_id", "accounts WHERE id"} {
			if _, err := tx.Exec("DELETE FROM "+from+" = ?", id); err != nil {
				return err
			}
		}
		return nil
	}))
}

func selectAccounts(tx *database.Tx, where string, args ...any) (all []Account, err error) {
	rows, err := tx.Query("SELECT id, address, name, quota, disabled, created FROM accounts "+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			a       Account
			created int64
		)
		if err := rows.Scan(&a.ID, &a.Address, &a.Name, &a.Quota, &a.Disabled, &created); err != nil {
			return nil, err
		}
		a.Created = fromMillis(created)
		all = append(all, a)
	}
	return all, rows.Err()
}

func findAccount(tx *database.Tx, address addr.Address) (Account, error) {
	all, err := selectAccounts(tx, "WHERE key = ?", address.Key())
	if err == nil && len(all) == 0 {
		err = problemf(ErrNotFound, "there is no account %s", address)
	}
	if err != nil {
		return Account{}, err
	}
	return all[0], nil
}
