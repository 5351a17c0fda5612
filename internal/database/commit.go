package database

import (
	"errors"
	"fmt"

	sqlite3 "modernc.org/sqlite/lib"
)

// begin opens the transaction of a group, and the connection first where an error closed it.
func (w *writer) begin() error {
	if w.conn == nil {
		if err := w.reconnect(); err != nil {
			return err
		}
	}
	err := w.conn.begin(w.ctx, "BEGIN IMMEDIATE")
	if err != nil {
		w.failed(err)
	}
	return classify(err)
}

// reconnect opens the connection anew. After an fsync that failed, the end of the log may be in memory only although later
// syncs succeed, so everything is first copied into the database and the log begun anew.
func (w *writer) reconnect() error {
	c, err := connect(w.ctx, w.pool)
	if err != nil {
		return classify(err)
	}
	logged, done, err := c.checkpoint(w.ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	if err == nil && (logged > 0 || done > 0) {
		err = fmt.Errorf("%w: its log could not be begun anew", ErrUnavailable)
	}
	if err != nil {
		return errors.Join(classify(err), c.close())
	}
	w.conn, w.dataVersion = c, 0
	w.wal.reset()
	w.log.Info("database opened again after an error")
	return nil
}

// failed closes the connection when err says that it must not be trusted any more.
func (w *writer) failed(err error) {
	if !breaksConnection(err) {
		return
	}
	w.log.Error("database connection failed", errKey, err)
	w.disconnect()
}

// disconnect closes the connection.
func (w *writer) disconnect() {
	if w.conn == nil {
		return
	}
	if err := w.conn.close(); err != nil {
		w.log.Warn("database connection not closed cleanly", errKey, err)
	}
	w.conn = nil
}

// commit keeps what the group did and answers all of it. The members that failed are answered last, too, since what they
// saw of their neighbours counts only now.
func (w *writer) commit(kept, failed []*write) {
	if len(kept) == 0 {
		w.rollback()
		w.answer(failed, nil)
		return
	}
	raised, err := w.raise(kept)
	if err == nil {
		err = w.conn.exec(w.ctx, "COMMIT")
	}
	if err != nil {
		w.uncommitted(append(kept, failed...), err)
		return
	}
	w.stopErasing()
	for _, m := range kept {
		for _, fn := range m.then {
			fn()
		}
	}
	w.watchers.notify(raised) // before the answers: whoever has one finds the tick there
	w.watchers.tell(kept)
	w.answer(kept, nil)
	w.answer(failed, nil)
	w.measure()
}

// uncommitted answers a group whose COMMIT failed. Where the disk is full, each member is tried alone: a small letter or
// a deletion may still fit. After any other error nothing is tried on the same connection again.
func (w *writer) uncommitted(group []*write, err error) {
	w.rollback()
	w.failed(err)
	switch {
	case resultCode(err) != sqlite3.SQLITE_FULL:
		w.answer(group, fmt.Errorf("%w: not committed: %w", ErrUnavailable, err))
	case len(group) > 1:
		w.alone(group, err)
	default:
		w.answer(group, fmt.Errorf("not committed: %w", classify(err)))
		w.checkpoint() // the log can then begin anew in the room that it has
	}
}

// rollback ends the transaction, if there still is one.
func (w *writer) rollback() {
	if w.conn == nil {
		return
	}
	// It fails when SQLite has rolled back by itself, and then there is nothing to do.
	_ = w.conn.exec(w.ctx, "ROLLBACK")
	w.stopErasing()
}

// alone runs each member of a group that failed as a whole again, in a transaction of its own.
func (w *writer) alone(group []*write, why error) {
	w.log.Warn("database writes are repeated one by one", errKey, why)
	w.rollback()
	w.failed(why)
	if resultCode(why) == sqlite3.SQLITE_FULL {
		w.checkpoint()
	}
	for _, m := range group {
		m.err = nil
		one := []*write{m}
		if err := w.begin(); err != nil {
			w.answer(one, err)
			continue
		}
		_, err := w.member(m, false)
		switch {
		case errors.Is(err, errDropped):
			w.rollback()
			w.failed(err)
			w.answer(one, fmt.Errorf("%w: %w", ErrUnavailable, classify(err)))
		case err != nil:
			m.err = err
			w.commit(nil, one)
		default:
			w.commit(one, nil)
		}
	}
}

// answer gives each member its own error, or err when there is one.
func (w *writer) answer(group []*write, err error) {
	for _, m := range group {
		if err != nil {
			m.err = err
		}
		close(m.done)
	}
}

// stopErasing switches off what Tx.Erase switched on.
func (w *writer) stopErasing() {
	if w.conn == nil || !w.conn.erasing {
		return
	}
	if err := w.conn.exec(w.ctx, "PRAGMA secure_delete = OFF"); err != nil {
		w.log.Warn("database goes on overwriting what is deleted", errKey, err)
		return
	}
	w.conn.erasing = false
}
