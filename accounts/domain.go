package accounts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/mtasts"
)

// Domain is a domain that mail is received for.
type Domain struct {
	ID        int64
	Name      addr.Domain
	CatchAll  string      // the address that gets what nobody else gets, or ""
	Separator string      // of plus-addressing, or ""
	STS       mtasts.Mode // of its MTA-STS policy
	Accounts  int
	Created   time.Time
}

// AddDomain begins to receive mail for a domain, and makes the keys that its mail will be signed with. Until it has an
// account, postmaster and abuse there are told to try again.
func (s *Service) AddDomain(ctx context.Context, name addr.Domain) error {
	var keys []newKey
	if s.seal != nil {
		var err error
		if keys, err = s.makeKeys(); err != nil {
			return wrap("add domain", err)
		}
	}
	err := s.change(ctx, func(tx *database.Tx) error {
		var id int64
		now := time.Now()
		err := tx.QueryRow("INSERT INTO domains (name, catch_all, separator, created) VALUES (?, '', '+', ?) RETURNING id", name.ASCII(), millis(now)).Scan(&id)
		if err != nil || keys == nil {
			return err
		}
		return insertKeys(tx, id, keys, KeyActive, now)
	})
	if database.IsUnique(err) {
		return problemf(ErrExists, "the domain %s is here already", name)
	}
	return wrap("add domain", err)
}

// Domains lists the domains by name.
func (s *Service) Domains(ctx context.Context) (all []Domain, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		all, err = selectDomains(tx, "ORDER BY name")
		return err
	})
	return all, wrap("list domains", err)
}

// Domain returns one domain.
func (s *Service) Domain(ctx context.Context, name addr.Domain) (d Domain, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		d, err = findDomain(tx, name)
		return err
	})
	return d, wrap("show domain", err)
}

// DomainSettings are what SetDomain changes; nil leaves a setting as it is.
type DomainSettings struct {
	CatchAll  *string // an address of ours, or "" for none
	Separator *string // one character, or "" for no plus-addressing
	STS       *mtasts.Mode
}

// SetDomain changes the settings of a domain.
func (s *Service) SetDomain(ctx context.Context, name addr.Domain, set DomainSettings) error {
	return wrap("set domain", s.change(ctx, func(tx *database.Tx) error {
		d, err := findDomain(tx, name)
		if err != nil {
			return err
		}
		if set.CatchAll != nil {
			if d.CatchAll, err = localAddress(tx, *set.CatchAll); err != nil {
				return err
			}
		}
		if set.Separator != nil {
			if d.Separator = *set.Separator; !isSeparator(d.Separator) {
				return problemf(nil, "%q cannot separate a tag: use one of + - _ = or nothing", d.Separator)
			}
		}
		if set.STS != nil {
			if d.STS, err = mtasts.ParseMode(string(*set.STS)); err != nil {
				return problemf(nil, "%v", err)
			}
		}
		_, err = tx.Exec("UPDATE domains SET catch_all = ?, separator = ?, mta_sts = ? WHERE id = ?", d.CatchAll, d.Separator, string(d.STS), d.ID)
		return err
	}))
}

func isSeparator(s string) bool {
	switch s {
	case "", "+", "-", "_", "=":
		return true
	}
	return false
}

// localAddress checks that mail can be sent on to the address: it leads to an account here.
func localAddress(tx *database.Tx, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	a, err := addr.Parse(text)
	if err != nil {
		return "", problemf(nil, "%s is not an address: %v", text, err)
	}
	r, err := (&resolver{tx: tx}).known(a)
	switch {
	case err != nil:
		return "", err
	case r.Kind == NotOurs:
		return "", problemf(nil, "%s is not an address of this server: mail can only be sent on to addresses here", text)
	case r.Kind != Deliver:
		return "", problemf(ErrNotFound, "%s leads to no account: add it first", text)
	}
	return a.String(), nil
}

// RemoveDomain stops receiving mail for a domain. Its accounts and aliases must be gone.
func (s *Service) RemoveDomain(ctx context.Context, name addr.Domain) error {
	return wrap("remove domain", s.change(ctx, func(tx *database.Tx) error {
		d, err := findDomain(tx, name)
		if err != nil {
			return err
		}
		var aliases int
		if err := tx.QueryRow("SELECT count(*) FROM aliases WHERE domain_id = ?", d.ID).Scan(&aliases); err != nil {
			return err
		}
		if d.Accounts > 0 || aliases > 0 {
			return problemf(nil, "%s has %d accounts and %d aliases: remove these first", name, d.Accounts, aliases)
		}
		if _, err := tx.Exec("DELETE FROM dkim_keys WHERE domain_id = ?", d.ID); err != nil {
			return err
		}
		_, err = tx.Exec("DELETE FROM domains WHERE id = ?", d.ID)
		return err
	}))
}

func selectDomains(tx *database.Tx, where string, args ...any) (all []Domain, err error) {
	rows, err := tx.Query(`SELECT id, name, catch_all, separator, mta_sts, created,
		(SELECT count(*) FROM accounts WHERE domain_id = domains.id AND removed = 0) FROM domains `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			d       Domain
			name    string
			created int64
		)
		if err := rows.Scan(&d.ID, &name, &d.CatchAll, &d.Separator, &d.STS, &created, &d.Accounts); err != nil {
			return nil, err
		}
		if d.Name, err = addr.ParseDomain(name); err != nil {
			return nil, fmt.Errorf("domain %d: %w", d.ID, err)
		}
		d.Created = fromMillis(created)
		all = append(all, d)
	}
	return all, rows.Err()
}

// Hosts tells whether a domain, or one above it, is served here. Answers are remembered until something changes; one may be half a
// second old where another process made the change.
func (s *Service) Hosts(ctx context.Context, name addr.Domain) (bool, error) {
	hosts, err := recent(ctx, s, &s.hosted, name, func(tx *database.Tx) (hosts bool, err error) {
		var names []any
		for rest, more := name.ASCII(), true; more; _, rest, more = strings.Cut(rest, ".") {
			names = append(names, rest)
		}
		err = tx.QueryRow("SELECT EXISTS (SELECT 1 FROM domains WHERE name IN (?"+strings.Repeat(", ?", len(names)-1)+"))", names...).Scan(&hosts)
		return hosts, err
	})
	return hosts, wrap("look up domain", err)
}

// Served tells whether a domain is served here, and which MTA-STS policy it has. Answers are remembered until something changes.
func (s *Service) Served(ctx context.Context, name addr.Domain) (policy mtasts.Mode, served bool, err error) {
	policy, err = cached(ctx, s, &s.policies, name, func(tx *database.Tx) (policy mtasts.Mode, err error) {
		err = tx.QueryRow("SELECT mta_sts FROM domains WHERE name = ?", name.ASCII()).Scan(&policy)
		_, err = none(err)
		return policy, err
	}, func(mtasts.Mode) bool { return true })
	return policy, policy != "", wrap("look up domain", err)
}

func findDomain(tx *database.Tx, name addr.Domain) (Domain, error) {
	all, err := selectDomains(tx, "WHERE name = ?", name.ASCII())
	if err == nil && len(all) == 0 {
		err = problemf(ErrNotFound, "there is no domain %s here: `postroom domain add %s` adds it", name, name)
	}
	if err != nil {
		return Domain{}, err
	}
	return all[0], nil
}

// wrap says what failed, unless it is a sentence for the operator already.
func wrap(what string, err error) error {
	var p *Problem
	if err == nil || errors.As(err, &p) {
		return err
	}
	return fmt.Errorf("accounts: %s: %w", what, err)
}

// none tells an empty result from an error.
func none(err error) (bool, error) {
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	}
	return false, err
}
