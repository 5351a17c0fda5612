package accounts

import (
	"context"
	"database/sql"
	"errors"
	"sync"

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

// generation is the number that every change of accounts raises. Reading it costs a tenth of what it saves, and makes a change
// count at once.
func (s *Service) generation(ctx context.Context) (n int64, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		err := tx.QueryRow("SELECT n FROM generation WHERE kind = ?", generation).Scan(&n)
		if errors.Is(err, sql.ErrNoRows) {
			return nil // nothing was ever changed
		}
		return err
	})
	return n, err
}

// cached returns what is remembered of the key, else what read reads and keep approves of.
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
