package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
)

const (
	// checkpointPages is how far the log grows until it is copied into the database: 16 MiB. The size sets the longest
	// pause and not the throughput.
	checkpointPages = 16 << 20 / pageSize
	// waitPages is where writing waits for the checkpointer: at 40 MiB one more group still leaves the log below 64 MiB.
	waitPages = 40 << 20 / pageSize
)

// walSize is what the writer knows about the size of the log.
type walSize struct {
	wake  chan struct{}      // to the checkpointer: there is work
	turns chan chan struct{} // from the checkpointer: now the writer's part; closed when it is done

	written int  // the connection's count of pages at the last look
	pages   int  // in the log
	since   int  // written since the checkpointer was last woken
	asked   bool // the checkpointer is at work
}

func newWALSize() *walSize {
	return &walSize{wake: make(chan struct{}, 1), turns: make(chan chan struct{})}
}

// reset forgets the counts of a connection that is gone.
func (s *walSize) reset() { s.written, s.pages, s.since = 0, 0, 0 }

// mustWait says whether writing has outrun the checkpointer.
func (s *walSize) mustWait() bool { return s.asked && s.pages >= waitPages }

// measure looks how far the log has grown and wakes the checkpointer.
func (w *writer) measure() {
	n, err := w.conn.pagesWritten()
	if err != nil {
		w.log.Warn("database log cannot be measured", errKey, err)
		return
	}
	s := w.wal
	grown := n - s.written
	s.written = n
	s.pages += grown
	s.since += grown
	if s.asked || s.since < checkpointPages {
		return
	}
	s.asked, s.since = true, 0
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// checkpoint is the writer's part: passive checkpoints beside steady writing never find the moment to begin the log anew.
func (w *writer) checkpoint() {
	w.wal.asked = false
	if w.conn == nil {
		return
	}
	logged, done, err := w.conn.passiveCheckpoint(w.ctx)
	switch {
	case err != nil:
		w.log.Warn("database checkpoint failed", errKey, err)
		w.failed(err)
	case logged == done:
		w.wal.pages = 0
	default:
		w.wal.pages = logged
	}
}

// checkpointer copies the log into the database while the writer goes on, then asks the writer for its part.
type checkpointer struct {
	ctx      context.Context // never cancelled
	pool     *sql.DB
	log      *slog.Logger
	conn     *conn
	wal      *walSize
	stopping <-chan struct{}
}

func (c *checkpointer) run() {
	defer c.disconnect()
	for {
		select {
		case <-c.wal.wake:
		case <-c.stopping:
			return
		}
		if err := c.copy(); err != nil {
			c.log.Warn("database checkpoint failed", errKey, err)
			c.disconnect()
		}
		turn := make(chan struct{})
		select {
		case c.wal.turns <- turn:
			<-turn
		case <-c.stopping:
			return
		}
	}
}

// copy does the bulk in a first pass and what was written meanwhile in a second.
func (c *checkpointer) copy() (err error) {
	if c.conn == nil {
		if c.conn, err = connect(c.ctx, c.pool); err != nil {
			return err
		}
	}
	for range 2 {
		if _, _, err := c.conn.passiveCheckpoint(c.ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *checkpointer) disconnect() {
	if c.conn == nil {
		return
	}
	if err := c.conn.close(); err != nil {
		c.log.Warn("database connection not closed cleanly", errKey, err)
	}
	c.conn = nil
}

// TruncateLog copies the whole log into the database and empties it, so that nothing that was erased is left there. It waits
// for readers, and fails where another process reads for long.
func (db *DB) TruncateLog(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := connect(db.writer.ctx, db.writing)
	if err != nil {
		return classify(err)
	}
	logged, _, err := c.checkpoint(db.writer.ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	if err == nil && logged > 0 {
		err = fmt.Errorf("%w: another process reads from its log", ErrUnavailable)
	}
	return errors.Join(classify(err), c.close())
}
