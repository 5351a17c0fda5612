package accounts

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/mtasts"
)

// generation is the kind of change that DB.Watch tells of.
const generation = "accounts"

// Options are a service's surroundings. The zero value is right for production.
type Options struct {
	Log        *slog.Logger
	Cost       int    // of bcrypt; 12
	Iterations int    // of SCRAM, for accounts made from now on; 100,000
	Seal       Sealer // of DKIM keys; without one there are none
}

// Sealer seals what a copy of the database must not show.
type Sealer interface {
	Seal(plain []byte) ([]byte, error)
	Open(sealed []byte) ([]byte, error)
}

// Service answers questions about accounts and changes them. Its methods may be called from many goroutines.
type Service struct {
	db         *database.DB
	log        *slog.Logger
	cost       int
	iterations int
	secret     []byte // makes up salts
	dummy      []byte // a hash that no password fits
	hashing    *gate
	latest     latest
	memory     *memory
	throttle   *throttle
	seal       Sealer
	signing    cache[addr.Domain, []SigningKey]
	routes     cache[addr.Path, Route]
	hosted     cache[addr.Domain, bool]
	policies   cache[addr.Domain, mtasts.Mode] // "" for domains that are not here

	stop    func() // of the watch
	ended   chan struct{}
	running sync.WaitGroup
}

// New returns a service on the database, whose schema has the tables already. Close must be called.
func New(ctx context.Context, db *database.DB, o Options) (*Service, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Cost == 0 {
		o.Cost = 12
	}
	if o.Iterations == 0 {
		o.Iterations = 100_000
	}
	if o.Cost < bcrypt.MinCost || o.Cost > bcrypt.MaxCost {
		return nil, fmt.Errorf("accounts: bcrypt has no cost %d", o.Cost)
	}
	s := &Service{db: db, log: o.Log, cost: o.Cost, iterations: o.Iterations, seal: o.Seal,
		hashing: newGate(), memory: newMemory(), throttle: newThrottle(), ended: make(chan struct{})}
	var err error
	if s.secret, err = loadSecret(ctx, db); err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	s.dummy = dummyHash(s.cost)
	changed, stop := db.Watch(generation)
	s.stop = stop
	s.running.Go(func() { s.forgetOnChange(changed) })
	return s, nil
}

// dummyHash is a well-formed bcrypt hash of nothing anybody knows, for names that are nobody's: comparing with it takes as
// long as with any other. It is made up, since a real one would take a quarter of a second at every start.
func dummyHash(cost int) []byte {
	salt, sum := rand.Text()[:22], (rand.Text() + rand.Text())[:31]
	return fmt.Appendf(nil, "$2a$%02d$%s%s", cost, salt, sum)
}

// Close ends the service's goroutine.
func (s *Service) Close() {
	s.stop()
	close(s.ended)
	s.running.Wait()
}

// Changed ticks after accounts, passwords or aliases changed, here or in another process. stop ends it.
func (s *Service) Changed() (changed <-chan struct{}, stop func()) { return s.db.Watch(generation) }

// forgetOnChange makes changes by other processes count for remembered logins.
func (s *Service) forgetOnChange(changed <-chan struct{}) {
	for {
		select {
		case <-changed:
			s.latest.forget()
			s.memory.forget()
		case <-s.ended:
			return
		}
	}
}

// change writes, and makes the change count at once.
func (s *Service) change(ctx context.Context, fn func(*database.Tx) error) error {
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return tx.Raise(generation)
	})
	s.latest.forget()
	s.memory.forget()
	return err
}

// loadSecret returns this installation's secret, and makes it the first time.
func loadSecret(ctx context.Context, db *database.DB) (secret []byte, err error) {
	read := func(tx *database.Tx) error {
		return tx.QueryRow("SELECT value FROM account_secrets WHERE name = ?", "salt").Scan(&secret)
	}
	if err = db.Read(ctx, read); !errors.Is(err, sql.ErrNoRows) {
		return secret, err
	}
	err = db.Write(ctx, func(tx *database.Tx) error {
		fresh := make([]byte, 32)
		_, _ = rand.Read(fresh) // never fails
		if _, err := tx.Exec("INSERT INTO account_secrets (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", "salt", fresh); err != nil {
			return err
		}
		return read(tx)
	})
	return secret, err
}

func millis(t time.Time) int64 { return t.UnixMilli() }

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
