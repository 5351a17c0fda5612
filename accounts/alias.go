package accounts

import (
	"context"
	"slices"
	"strings"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
)

// Alias is an address that leads to others.
type Alias struct {
	Address string
	Targets []string
}

// AddAlias adds an address, in a domain of ours, that leads to one or more addresses here. A target may be an alias, too;
// a chain that comes back to its beginning is refused.
func (s *Service) AddAlias(ctx context.Context, address addr.Address, targets []addr.Address) error {
	if len(targets) == 0 {
		return problemf(nil, "the alias %s needs at least one address that it leads to", address)
	}
	return wrap("add alias", s.change(ctx, func(tx *database.Tx) error {
		d, err := findDomain(tx, address.Domain)
		if err != nil {
			return err
		}
		for _, target := range targets {
			if err := refuseLoop(tx, address, target); err != nil {
				return err
			}
			if _, err := localAddress(tx, target.String()); err != nil {
				return err
			}
		}
		if err := mustBeFree(tx, address); err != nil {
			return err
		}
		return insertAlias(tx, d.ID, address, targets)
	}))
}

func insertAlias(tx *database.Tx, domain int64, address addr.Address, targets []addr.Address) error {
	var id int64
	err := tx.QueryRow("INSERT INTO aliases (domain_id, address, key) VALUES (?, ?, ?) RETURNING id", domain, address.String(), address.Key()).Scan(&id)
	if err != nil {
		return err
	}
	for _, target := range targets {
		_, err := tx.Exec("INSERT INTO alias_targets (alias_id, address, key) VALUES (?, ?, ?) ON CONFLICT (alias_id, key) DO NOTHING",
			id, target.String(), target.Key())
		if err != nil {
			return err
		}
	}
	return nil
}

// refuseLoop follows the aliases from the target and looks for one that leads back to the address. The address may not be
// there yet, so this is done before it is saved.
func refuseLoop(tx *database.Tx, address, target addr.Address) error {
	return followTo(tx, address.Key(), target, []string{address.String()})
}

func followTo(tx *database.Tx, key string, at addr.Address, path []string) error {
	path = append(path, at.String())
	if leadsTo(tx, at, key) {
		return problemf(nil, "this alias would go in a circle: %s", strings.Join(path, " -> "))
	}
	if len(path) > maxHops {
		return problemf(nil, "this chain of aliases is too long: %s", strings.Join(path, " -> "))
	}
	next, err := targetsOf(tx, at)
	if err != nil {
		return err
	}
	for _, t := range next {
		if err := followTo(tx, key, t, slices.Clone(path)); err != nil {
			return err
		}
	}
	return nil
}

// leadsTo tells whether mail for the address would be looked up under the key: as it stands, or without its tag.
func leadsTo(tx *database.Tx, a addr.Address, key string) bool {
	if a.Key() == key {
		return true
	}
	d, err := findDomain(tx, a.Domain)
	if err != nil || d.Separator == "" {
		return false
	}
	base, tagged := a.Base(d.Separator[0])
	return tagged && base.Key() == key
}

// targetsOf returns where an alias leads, or nothing for what is no alias.
func targetsOf(tx *database.Tx, a addr.Address) (targets []addr.Address, err error) {
	rows, err := tx.Query(`SELECT alias_targets.address FROM alias_targets JOIN aliases ON aliases.id = alias_id
		WHERE aliases.key = ? ORDER BY alias_targets.key`, a.Key())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		target, err := addr.Parse(text)
		if err != nil {
			return nil, err
		}
		targets = append(targets, target)
	}
	return targets, rows.Err()
}

// Aliases lists all aliases, by address.
func (s *Service) Aliases(ctx context.Context) (all []Alias, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		all = nil
		rows, err := tx.Query(`SELECT aliases.address, alias_targets.address FROM aliases JOIN alias_targets ON alias_id = aliases.id
			ORDER BY aliases.key, alias_targets.key`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var address, target string
			if err := rows.Scan(&address, &target); err != nil {
				return err
			}
			if n := len(all); n == 0 || all[n-1].Address != address {
				all = append(all, Alias{Address: address})
			}
			last := &all[len(all)-1]
			last.Targets = append(last.Targets, target)
		}
		return rows.Err()
	})
	return all, wrap("list aliases", err)
}

// RemoveAlias removes an alias. One that another alias, or a catch-all, leads to stays.
func (s *Service) RemoveAlias(ctx context.Context, address addr.Address) error {
	return wrap("remove alias", s.change(ctx, func(tx *database.Tx) error {
		var id int64
		err := tx.QueryRow("SELECT id FROM aliases WHERE key = ?", address.Key()).Scan(&id)
		if missing, err := none(err); missing {
			return problemf(ErrNotFound, "there is no alias %s", address)
		} else if err != nil {
			return err
		}
		if err := mustNotBeTarget(tx, address); err != nil {
			return err
		}
		if _, err := tx.Exec("DELETE FROM alias_targets WHERE alias_id = ?", id); err != nil {
			return err
		}
		_, err = tx.Exec("DELETE FROM aliases WHERE id = ?", id)
		return err
	}))
}
