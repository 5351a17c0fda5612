package accounts

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
)

// Use is what a password is good for.
type Use uint8

// The uses, as bits.
const (
	Receive Use = 1 << iota // POP3
	Send                    // submission
)

// String returns the use in words.
func (u Use) String() string {
	switch u {
	case Receive:
		return "receive-only"
	case Send:
		return "send-only"
	case Receive | Send:
		return "receive and send"
	}
	return fmt.Sprintf("Use(%d)", uint8(u))
}

// maxDevices bounds the device passwords of one account, and with them what one SCRAM login costs.
const maxDevices = 50

// Device is a named password for one device or program.
type Device struct {
	Name    string
	Use     Use
	Created time.Time
	Used    time.Time // to the hour; zero when it never was
	Network string    // where it was used last
}

// devicePrefix begins every device password, so that people and programs can tell one.
const devicePrefix = "pr-"

// AddDevice makes a device password and returns it. It is not kept and cannot be shown again.
func (s *Service) AddDevice(ctx context.Context, address addr.Address, name string, use Use) (password string, err error) {
	if name = strings.TrimSpace(name); name == "" || len(name) > 100 {
		return "", problemf(nil, "a device needs a name of at most 100 octets, such as \"phone\"")
	}
	var a Account
	var salt []byte
	var iterations int
	err = s.db.Read(ctx, func(tx *database.Tx) (err error) {
		if a, err = findAccount(tx, address); err != nil {
			return err
		}
		return tx.QueryRow("SELECT salt, iterations FROM accounts WHERE id = ?", a.ID).Scan(&salt, &iterations)
	})
	if err != nil {
		return "", wrap("add device", err)
	}
	// 130 random bits: rand.Text gives 26 characters of base32. The tag only finds the row.
	tag := strings.ToLower(rand.Text()[:8])
	password = devicePrefix + tag + "-" + strings.ToLower(rand.Text())
	c, err := s.hash(ctx, password, salt, iterations)
	if err != nil {
		return "", err
	}
	c.name, c.tag, c.uses = name, tag, use
	err = s.change(ctx, func(tx *database.Tx) error {
		var n int
		if err := tx.QueryRow("SELECT count(*) FROM credentials WHERE account_id = ?", a.ID).Scan(&n); err != nil {
			return err
		}
		if n > maxDevices {
			return problemf(nil, "%s has %d devices already: revoke one first", address, maxDevices)
		}
		return c.insert(tx, a.ID)
	})
	if database.IsUnique(err) {
		return "", problemf(ErrExists, "%s has a device %q already: choose another name, or revoke that one first", address, name)
	}
	return password, wrap("add device", err)
}

// Devices lists the device passwords of an account, by name.
func (s *Service) Devices(ctx context.Context, address addr.Address) (all []Device, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		all = nil
		a, err := findAccount(tx, address)
		if err != nil {
			return err
		}
		rows, err := tx.Query("SELECT name, uses, created, used, network FROM credentials WHERE account_id = ? AND name <> '' ORDER BY name", a.ID)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var (
				d             Device
				created, used int64
			)
			if err := rows.Scan(&d.Name, &d.Use, &created, &used, &d.Network); err != nil {
				return err
			}
			d.Created, d.Used = fromMillis(created), fromMillis(used)
			all = append(all, d)
		}
		return rows.Err()
	})
	return all, wrap("list devices", err)
}

// RevokeDevice makes a device password worthless, and ends the sessions that it opened.
func (s *Service) RevokeDevice(ctx context.Context, address addr.Address, name string) error {
	return wrap("revoke device", s.change(ctx, func(tx *database.Tx) error {
		a, err := findAccount(tx, address)
		if err != nil {
			return err
		}
		r, err := tx.Exec("DELETE FROM credentials WHERE account_id = ? AND name = ? AND name <> ''", a.ID, name)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n == 0 {
			if err != nil {
				return err
			}
			return problemf(ErrNotFound, "%s has no device %q", address, name)
		}
		return nil
	}))
}
