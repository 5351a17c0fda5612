package database

import (
	"context"
	"database/sql"
)

// readers is the pool of reading connections. A slot holds nil until its connection is needed, and again after an error.
type readers struct {
	ctx   context.Context // never cancelled
	pool  *sql.DB
	slots chan *conn
}

func newReaders(ctx context.Context, pool *sql.DB, n int) *readers {
	r := &readers{ctx: ctx, pool: pool, slots: make(chan *conn, n)}
	for range n {
		r.slots <- nil
	}
	return r
}

// Read runs fn in a transaction that sees one state of the database and changes nothing. It waits for no write, and ctx
// ends only the wait for a connection. Keep fn short, and never let it wait for a peer: while it runs, the log grows.
func (db *DB) Read(ctx context.Context, fn func(*Tx) error) error {
	c, err := db.readers.take(ctx, db.writer.stopping)
	if err != nil {
		return err
	}
	return db.readers.run(c, fn)
}

// take waits for a slot and returns its connection, which is to be given back.
func (r *readers) take(ctx context.Context, stopping <-chan struct{}) (c *conn, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-stopping:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	case c = <-r.slots:
	}
	if c == nil {
		if c, err = connect(r.ctx, r.pool); err != nil {
			r.slots <- nil
			return nil, classify(err)
		}
	}
	return c, nil
}

// run runs fn on the connection and gives the slot back.
func (r *readers) run(c *conn, fn func(*Tx) error) error {
	tx := &Tx{ctx: r.ctx, conn: c, reading: true}
	defer func() { // also when fn panics
		_ = tx.end(nil)
		if err := c.exec(r.ctx, "ROLLBACK"); err != nil || breaksConnection(tx.err) {
			_ = c.close() // the connection failed; what fn has read is reported by its own error
			c = nil
		}
		r.slots <- c
	}()
	if err := tx.note(c.begin(r.ctx, "BEGIN")); err != nil {
		return err
	}
	return tx.end(fn(tx))
}

// ReadRow is Read for one row: a statement alone is a transaction, and takes a third of the time of one that is begun and ended.
// It returns sql.ErrNoRows where there is no such row.
func (db *DB) ReadRow(ctx context.Context, query string, args []any, dest ...any) error {
	r := db.readers
	c, err := r.take(ctx, db.writer.stopping)
	if err != nil {
		return err
	}
	if err = c.roomy(); err == nil {
		tx := &Tx{ctx: r.ctx, conn: c, reading: true}
		err = tx.QueryRow(query, args...).Scan(dest...)
	}
	if breaksConnection(err) {
		_ = c.close() // the error is what counts
		c = nil
	}
	r.slots <- c
	return err
}

// close waits for those who read and closes all connections.
func (r *readers) close() error {
	var failed error
	for range cap(r.slots) {
		if c := <-r.slots; c != nil {
			if err := c.close(); err != nil {
				failed = err
			}
		}
	}
	return failed
}
