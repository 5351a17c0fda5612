package tlsconf

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/postroom/postroom/internal/database"
)

const (
	// lockLease is how long a lock of a node that died holds up the others. Who works longer renews it.
	lockLease = 2 * time.Minute
	// lockPoll is how often a lock that somebody else has is tried again.
	lockPoll = time.Second
)

// errLockLost says that somebody else may be doing the same.
var errLockLost = errors.New("the lock ran out")

// Sealer seals what must not be read from a copy of the database.
type Sealer interface {
	Seal(plain []byte) ([]byte, error)
	Open(sealed []byte) ([]byte, error)
}

// storage is the database as the ACME library wants it: names with slashes, values, and locks. Several nodes share it.
type storage struct {
	db     *database.DB
	seal   Sealer
	holder string // of the locks that were taken here
}

var (
	_ certmagic.Storage          = (*storage)(nil)
	_ certmagic.TryLocker        = (*storage)(nil)
	_ certmagic.LockLeaseRenewer = (*storage)(nil)
)

func newStorage(db *database.DB, seal Sealer) *storage {
	return &storage{db: db, seal: seal, holder: rand.Text()}
}

// Store puts a value in its place.
func (s *storage) Store(ctx context.Context, name string, value []byte) error {
	sealed, err := s.seal.Seal(value)
	if err != nil {
		return fmt.Errorf("tls: seal %s: %w", name, err)
	}
	return s.db.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec(`INSERT INTO tls_assets (name, value, size, modified) VALUES (?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value, size = excluded.size, modified = excluded.modified`,
			name, sealed, len(value), time.Now().UnixMilli())
		return err
	})
}

// Load returns a value, or fs.ErrNotExist.
func (s *storage) Load(ctx context.Context, name string) ([]byte, error) {
	var sealed []byte
	switch err := s.db.ReadRow(ctx, "SELECT value FROM tls_assets WHERE name = ?", []any{name}, &sealed); {
	case errors.Is(err, sql.ErrNoRows):
		return nil, fmt.Errorf("tls: %s: %w", name, fs.ErrNotExist)
	case err != nil:
		return nil, err
	}
	value, err := s.seal.Open(sealed)
	if err != nil {
		return nil, fmt.Errorf("tls: open %s: %w", name, err)
	}
	return value, nil
}

// below is the condition for a name and all that is below it.
const below = "name = ? OR substr(name, 1, ?) = ?"

func belowArgs(name string) []any { return []any{name, len(name) + 1, name + "/"} }

// Delete removes a value, or all values below a name.
func (s *storage) Delete(ctx context.Context, name string) error {
	return s.db.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec("DELETE FROM tls_assets WHERE "+below, belowArgs(name)...)
		return err
	})
}

// Exists tells whether there is a value, or one below the name.
func (s *storage) Exists(ctx context.Context, name string) bool {
	_, err := s.Stat(ctx, name)
	return err == nil
}

// List returns the names below one: all of them, or only those of the next level.
func (s *storage) List(ctx context.Context, name string, recursive bool) ([]string, error) {
	query, args := "SELECT name FROM tls_assets", []any{}
	prefix := ""
	if name != "" {
		prefix = name + "/"
		query, args = query+" WHERE substr(name, 1, ?) = ?", []any{len(prefix), prefix}
	}
	found := map[string]bool{}
	err := s.db.Read(ctx, func(tx *database.Tx) error {
		clear(found)
		rows, err := tx.Query(query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var full string
			if err := rows.Scan(&full); err != nil {
				return err
			}
			addLevels(found, prefix, full, recursive)
		}
		return rows.Err()
	})
	if err == nil && len(found) == 0 && name != "" {
		err = fmt.Errorf("tls: %s: %w", name, fs.ErrNotExist)
	}
	return slices.Sorted(maps.Keys(found)), err
}

// addLevels adds a name, with all that lead to it where everything is listed.
func addLevels(found map[string]bool, prefix, full string, recursive bool) {
	steps := strings.Split(strings.TrimPrefix(full, prefix), "/")
	if !recursive {
		steps = steps[:1]
	}
	for i := range steps {
		found[prefix+strings.Join(steps[:i+1], "/")] = true
	}
}

// Stat describes a value, or a name that others are below.
func (s *storage) Stat(ctx context.Context, name string) (certmagic.KeyInfo, error) {
	info := certmagic.KeyInfo{Key: name}
	var modified int64
	err := s.db.ReadRow(ctx, "SELECT size, modified FROM tls_assets WHERE name = ?", []any{name}, &info.Size, &modified)
	if err == nil {
		info.Modified, info.IsTerminal = time.UnixMilli(modified), true
		return info, nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		var n int64
		if err = s.db.ReadRow(ctx, "SELECT count(*) FROM tls_assets WHERE "+below, belowArgs(name), &n); err == nil && n == 0 {
			err = fmt.Errorf("tls: %s: %w", name, fs.ErrNotExist)
		}
	}
	return info, err
}

// TryLock takes a lock that nobody has.
func (s *storage) TryLock(ctx context.Context, name string) (taken bool, err error) {
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		now := time.Now()
		if _, err := tx.Exec("DELETE FROM tls_locks WHERE name = ? AND expires <= ?", name, now.UnixMilli()); err != nil {
			return err
		}
		r, err := tx.Exec("INSERT INTO tls_locks (name, holder, expires) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING",
			name, s.holder, now.Add(lockLease).UnixMilli())
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		taken = n == 1
		return err
	})
	return taken && err == nil, err
}

// Lock waits for a lock.
func (s *storage) Lock(ctx context.Context, name string) error {
	ticker := time.NewTicker(lockPoll)
	defer ticker.Stop()
	for {
		if taken, err := s.TryLock(ctx, name); taken || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// Unlock gives a lock back. One that ran out, and that somebody else has now, stays theirs.
func (s *storage) Unlock(ctx context.Context, name string) error {
	return s.db.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec("DELETE FROM tls_locks WHERE name = ? AND holder = ?", name, s.holder)
		return err
	})
}

// RenewLockLease keeps a lock for longer.
func (s *storage) RenewLockLease(ctx context.Context, name string, lease time.Duration) error {
	return s.db.Write(ctx, func(tx *database.Tx) error {
		r, err := tx.Exec("UPDATE tls_locks SET expires = ? WHERE name = ? AND holder = ?", time.Now().Add(lease).UnixMilli(), name, s.holder)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return fmt.Errorf("tls: %s: %w", name, errLockLost)
	})
}

// whileLocked runs fn with a lock that is kept for as long as fn runs; done is false where somebody else has it. Where the lock is
// lost, fn's context ends.
func (s *storage) whileLocked(ctx context.Context, name string, fn func(context.Context)) (done bool, err error) {
	taken, err := s.TryLock(ctx, name)
	if err != nil || !taken {
		return false, err
	}
	working, cancel := context.WithCancelCause(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		s.keep(working, name, cancel)
	}()
	fn(working)
	cancel(nil)
	<-kept
	return true, s.Unlock(context.WithoutCancel(ctx), name)
}

// keep renews a lock until ctx ends.
func (s *storage) keep(ctx context.Context, name string, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(lockLease / 4)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := s.RenewLockLease(ctx, name, lockLease); errors.Is(err, errLockLost) {
				cancel(err)
				return
			}
		}
	}
}
