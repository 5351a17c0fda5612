package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"
)

const (
	// maxGroup and maxGroupOctets bound one group commit; what waits beyond them goes into the next.
	maxGroup       = 256
	maxGroupOctets = 16 << 20
	// maxWaiting bounds the writes that wait; a caller beyond it waits to be allowed to wait.
	maxWaiting = 1024
)

// Panic is what Write panics with when its function did. Nothing of that function was kept.
type Panic struct {
	Value any
	Stack []byte // of the function, since Write's own stack does not show it
}

// Error makes the panic readable in a crash report.
func (p *Panic) Error() string {
	return fmt.Sprintf("database: write panicked: %v\n\n%s", p.Value, p.Stack)
}

// The states of a write. Whoever moves it from waiting decides: the writer starts it, or its caller gives it up.
const (
	waiting int32 = iota
	started
	abandoned
)

// write is one call of DB.Write on its way through the writer.
type write struct {
	fn       func(*Tx) error
	state    atomic.Int32
	done     chan struct{}
	err      error
	panicked *Panic
	raised   []string
	told     []string
	then     []func()
}

// Write runs fn in a transaction and returns nil only when its changes are on disk. Many writes share one commit, but each
// stands alone: when fn returns an error, or one of its statements fails, nothing of it is kept and its neighbours are not
// harmed. fn may run twice, so it touches nothing but tx and variables that it sets anew each time; it must not call Write.
// ctx ends the wait for fn to start; from then on Write returns when the outcome is known. When fn panics, Write does; fn
// must not end its goroutine, as t.FailNow does, for that is the writer's.
func (db *DB) Write(ctx context.Context, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &write{fn: fn, done: make(chan struct{})}
	select {
	case db.writer.writes <- w:
	case <-ctx.Done():
		return ctx.Err()
	case <-db.writer.stopping:
		return ErrClosed
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		if w.state.CompareAndSwap(waiting, abandoned) {
			return ctx.Err()
		}
		<-w.done
	case <-db.writer.stopped:
		if w.state.CompareAndSwap(waiting, abandoned) {
			return ErrClosed
		}
		<-w.done
	}
	if w.panicked != nil {
		panic(w.panicked)
	}
	return w.err
}

// writer owns the only connection that writes. All fields below the channels belong to its goroutine; mind that where
// SQLite has dropped the transaction, a statement that followed would be a transaction of its own, and kept.
//
//	waiting writes -> BEGIN -> fn of each -> COMMIT -> all are answered
//	                    a write that failed -> BEGIN -> SAVEPOINT, fn, RELEASE (or ROLLBACK TO) for each -> COMMIT
//	                    a transaction that SQLite dropped -> each write again alone
type writer struct {
	writes   chan *write
	stopping chan struct{} // closed by Close: no new writes
	stopped  chan struct{} // closed by the goroutine at its end

	ctx      context.Context // never cancelled, and the only one that reaches SQLite
	pool     *sql.DB
	log      *slog.Logger
	conn     *conn // nil after an I/O error, until it could be opened anew
	wal      *walSize
	watchers *watchers
	gathering

	dataVersion int64 // PRAGMA data_version at the last poll
}

// run is the writer goroutine.
func (w *writer) run() {
	defer close(w.stopped)
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		writes := w.writes
		if w.wal.mustWait() {
			writes = nil // the checkpointer asks for its turn soon
		}
		select {
		case first := <-writes:
			w.group(first)
		case turn := <-w.wal.turns:
			w.checkpoint()
			close(turn)
		case <-poll.C:
			w.poll()
		case <-w.stopping:
			w.drain()
			return
		}
	}
}

// drain does what still waits, then closes the connection.
func (w *writer) drain() {
	for first := w.take(); first != nil; first = w.take() {
		w.group(first)
	}
	w.disconnect()
}

// take returns the next write that waits, or nil.
func (w *writer) take() *write {
	select {
	case next := <-w.writes:
		return next
	default:
		return nil
	}
}

// grouped is what one commit keeps.
type grouped struct {
	all          []*write // kept, failed, and the one that is running
	kept, failed []*write
	octets       int
	careful      bool // each write has a savepoint
}

func (g *grouped) full() bool { return len(g.all) >= maxGroup || g.octets >= maxGroupOctets }

// group is one group commit: the first write and those that wait behind it.
func (w *writer) group(first *write) {
	if err := w.begin(); err != nil {
		w.refuse(first, err)
		return
	}
	g := &grouped{}
	w.skip, w.gathering.began = max(0, w.skip-1), time.Now()
	for next := first; next != nil; next = w.next(len(g.kept)) {
		if !next.state.CompareAndSwap(waiting, started) {
			continue
		}
		g.all = append(g.all, next)
		if err := w.join(g, next); err != nil {
			w.alone(g.all, err)
			return
		}
		if g.full() {
			break
		}
	}
	w.commit(g.kept, g.failed)
}

// join runs one write inside the open transaction. A savepoint costs as much as a small write does, and few writes fail, so a
// group has none until one does; then it is run again, with a savepoint for each.
func (w *writer) join(g *grouped, m *write) error {
	n, err := w.member(m, g.careful && len(g.kept) > 0)
	g.octets += n
	switch {
	case errors.Is(err, errDropped):
		return err
	case err == nil:
		g.kept = append(g.kept, m)
		return nil
	case !g.careful && len(g.kept) > 0:
		if undo := w.repeat(g, m); undo != nil {
			return errors.Join(err, undo)
		}
		return nil
	}
	m.err = err
	g.failed = append(g.failed, m)
	if undo := w.undo(g.careful && len(g.kept) > 0); undo != nil {
		return errors.Join(err, undo)
	}
	return nil
}

// repeat runs a group again whose last write failed after others had changed something.
func (w *writer) repeat(g *grouped, last *write) error {
	again := append(g.kept, last)
	g.kept, g.careful = nil, true
	if err := w.undo(false); err != nil {
		return err
	}
	for _, m := range again {
		if err := w.join(g, m); err != nil {
			return err
		}
	}
	return nil
}

// refuse answers the first write and those that wait behind it when no transaction could be opened: each of them would
// wait as long as this one did.
func (w *writer) refuse(first *write, err error) {
	n := 0
	for next := first; next != nil; next = w.take() {
		if next.state.CompareAndSwap(waiting, started) {
			w.answer([]*write{next}, err)
		}
		if n++; n == maxGroup {
			return
		}
	}
}

// errDropped says that SQLite no longer has the transaction in which the group was.
var errDropped = errors.New("the transaction is gone")

// member runs one write inside the open transaction. What one that failed did is still to be undone.
func (w *writer) member(m *write, savepoint bool) (octets int, err error) {
	if savepoint {
		if err := w.conn.exec(w.ctx, "SAVEPOINT member"); err != nil {
			return 0, errors.Join(errDropped, err)
		}
	}
	tx := &Tx{ctx: w.ctx, conn: w.conn}
	err = w.call(m, tx)
	m.raised, m.told, m.then = tx.raised, tx.told, tx.then
	switch {
	case err != nil && breaksConnection(tx.err):
		return tx.octets, errors.Join(errDropped, tx.err)
	case err == nil && savepoint:
		if err := w.conn.exec(w.ctx, "RELEASE member"); err != nil {
			return 0, errors.Join(errDropped, err)
		}
	}
	return tx.octets, err
}

// undo takes back what the member that just failed did: all of the transaction, where it has no savepoint.
func (w *writer) undo(savepoint bool) error {
	if savepoint {
		err := w.conn.exec(w.ctx, "ROLLBACK TO member")
		if err == nil {
			err = w.conn.exec(w.ctx, "RELEASE member")
		}
		if err != nil {
			return errors.Join(errDropped, err)
		}
		return nil
	}
	// SQLite may have rolled back by itself; BEGIN tells whether all is well.
	_ = w.conn.exec(w.ctx, "ROLLBACK")
	if err := w.conn.begin(w.ctx, "BEGIN IMMEDIATE"); err != nil {
		return errors.Join(errDropped, err)
	}
	return nil
}

// call runs the function of a write and turns a panic into an error.
func (w *writer) call(m *write, tx *Tx) (err error) {
	m.panicked = nil
	defer func() {
		if v := recover(); v != nil {
			m.panicked = &Panic{Value: v, Stack: debug.Stack()}
			err = tx.end(m.panicked)
		}
	}()
	return tx.end(m.fn(tx))
}
