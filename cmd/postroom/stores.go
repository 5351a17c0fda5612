package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/config"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/secret"
	"github.com/postroom/postroom/mailbox"
	"github.com/postroom/postroom/queue"
)

// stores are the database and the packages that keep something in it: what the server and the commands share.
type stores struct {
	db       *database.DB
	key      *secret.Key
	accounts *accounts.Service
	mailbox  *mailbox.Store
}

// openStores opens the database of the configuration.
func openStores(ctx context.Context, c *config.Config, passwords accounts.Options, log *slog.Logger) (*stores, error) {
	db, err := database.Open(ctx, database.Options{URL: c.Database, DataDir: c.DataDir, Log: log})
	if err != nil {
		return nil, err
	}
	s := &stores{db: db}
	if s.key, err = secret.Load(c.DataDir); err != nil {
		return nil, errors.Join(err, s.close())
	}
	passwords.Log, passwords.Seal = log, s.key.For("accounts")
	if s.accounts, err = accounts.New(ctx, db, passwords); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if s.mailbox, err = mailbox.New(db, mailbox.Options{Log: log}); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// close closes what is open, in the opposite order.
func (s *stores) close() (err error) {
	if s.mailbox != nil {
		err = s.mailbox.Close()
	}
	if s.accounts != nil {
		s.accounts.Close()
	}
	return errors.Join(err, s.db.Close())
}

// erase removes, for good, all that is kept of an account that was removed: mail, also on its way out, ledger rows, and last its passwords,
// so that a failure on the way is found and mended by the next try.
func (s *stores) erase(ctx context.Context, account int64) error {
	q, err := queue.New(queue.Options{Hostname: "localhost", DB: s.db, Store: queueStore{s}}) // it sends nothing
	if err != nil {
		return err
	}
	if _, err := q.Drop(ctx, queue.Filter{Account: account}, "the removal of its account"); err != nil && !errors.Is(err, queue.ErrNotFound) {
		return err
	}
	if err := s.mailbox.Erase(ctx, account); err != nil {
		return fmt.Errorf("erase mail of account %d: %w", account, err)
	}
	if err := s.db.Write(ctx, func(tx *database.Tx) error { return maillog.Erase(tx, account) }); err != nil {
		return fmt.Errorf("erase ledger of account %d: %w", account, err)
	}
	if err := s.accounts.Forget(ctx, account); err != nil {
		return err
	}
	if err := s.db.TruncateLog(ctx); err != nil {
		return fmt.Errorf("account %d is erased, but copies stay in the database's log until it is emptied: %w", account, err)
	}
	return nil
}

// withStores runs fn on the stores of the configured database, as the owner of the data directory.
func (p *program) withStores(ctx context.Context, fn func(*stores) error) (err error) {
	c, err := p.load()
	if err != nil {
		return err
	}
	if _, err := becomeOwner(c.DataDir); err != nil {
		return unsuref("cannot act as the owner of %s: %s", c.DataDir, reason(err))
	}
	log := slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := openStores(ctx, c, p.passwords, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return fn(s)
}

// withAccounts is withStores for commands that need no more.
func (p *program) withAccounts(ctx context.Context, fn func(*accounts.Service) error) error {
	return p.withStores(ctx, func(s *stores) error { return fn(s.accounts) })
}
