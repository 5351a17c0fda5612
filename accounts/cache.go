package accounts

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"github.com/postroom/postroom/internal/database"
)

// cache holds what was read from the database until something changes, here or in another process: its entries are of one
// generation, and all are dropped when another one is asked for. The zero value is empty.
type cache[K comparable, V any] struct {
	mu         sync.Mutex // guards what follows
	generation int64
	entries    map[K]V
}

// maxCached bounds a cache. One that is full begins anew.
const maxCached = 10_000

func (c *cache[K, V]) find(key K, generation int64) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation == generation {
		v, ok = c.entries[key]
	}
	return v, ok
}

// remember keeps what was read after the generation was.
func (c *cache[K, V]) remember(key K, generation int64, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation != generation || c.entries == nil || len(c.entries) >= maxCached {
		c.generation, c.entries = generation, make(map[K]V)
	}
	c.entries[key] = v
}

// mayBeOld is how long a change by another process may be unknown to what need not be so exact: as long as DB.Watch takes. Changes
// by this one count at once.
const mayBeOld = 500 * time.Millisecond

// latest is the generation of accounts as it was when it was last read.
type latest struct {
	mu         sync.Mutex // guards what follows
	generation int64
	read       time.Time // zero: not since the last change
	changes    int       // by this process
}

func (l *latest) get() (generation int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.generation, !l.read.IsZero() && time.Since(l.read) < mayBeOld
}

func (l *latest) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read, l.changes = time.Time{}, l.changes+1
}

// begin is called before the generation is read: what a change overtakes is not kept.
func (l *latest) begin() (changes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changes
}

func (l *latest) set(generation int64, began time.Time, changes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changes == changes {
		l.generation, l.read = generation, began
	}
}

// generation reads the number that every change of accounts raises.
func (s *Service) generation(ctx context.Context) (n int64, err error) {
	began, changes := time.Now(), s.latest.begin()
	err = s.db.ReadRow(ctx, "SELECT n FROM generation WHERE kind = ?", []any{generation}, &n)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil // nothing was ever changed
	}
	if err == nil {
		s.latest.set(n, began, changes)
	}
	return n, err
}

// cached returns what is remembered of the key, else what read reads and keep approves of. A change counts at once, in other
// processes, too.
func cached[K comparable, V any](ctx context.Context, s *Service, c *cache[K, V], key K, read func(*database.Tx) (V, error), keep func(V) bool) (v V, err error) {
	g, err := s.generation(ctx)
	if err != nil {
		return v, err
	}
	if v, ok := c.find(key, g); ok {
		return v, nil
	}
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		v, err = read(tx)
		return err
	})
	if err == nil && keep(v) {
		c.remember(key, g, v)
	}
	return v, err
}

// recent is cached for what may be as old as mayBeOld.
func recent[K comparable, V any](ctx context.Context, s *Service, c *cache[K, V], key K, read func(*database.Tx) (V, error)) (v V, err error) {
	if g, ok := s.latest.get(); ok {
		if v, ok := c.find(key, g); ok {
			return v, nil
		}
	}
	return cached(ctx, s, c, key, read, func(V) bool { return true })
}
