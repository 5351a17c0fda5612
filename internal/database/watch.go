package database

import (
	"slices"
	"sync"
	"time"
)

// pollInterval is how soon a change by another process is noticed.
const pollInterval = 500 * time.Millisecond

// Watch returns a channel that ticks after a transaction with Raise(kind) or Tell(kind) was kept, at once when it was in this process
// and within half a second when it was in another. A tick can stand for several changes, and can come without one. stop
// ends the watch; the channel is not closed.
func (db *DB) Watch(kind string) (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	db.writer.watchers.add(kind, c)
	return c, func() { db.writer.watchers.remove(kind, c) }
}

// watchers are those who wait for a generation to rise.
type watchers struct {
	mu     sync.Mutex // guards byKind
	byKind map[string][]chan struct{}

	seen map[string]int64 // the last known generations; the writer goroutine's own
}

func newWatchers() *watchers {
	return &watchers{byKind: make(map[string][]chan struct{}), seen: make(map[string]int64)}
}

func (w *watchers) add(kind string, c chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.byKind[kind] = append(w.byKind[kind], c)
}

func (w *watchers) remove(kind string, c chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.byKind[kind] = slices.DeleteFunc(w.byKind[kind], func(other chan struct{}) bool { return other == c })
	if len(w.byKind[kind]) == 0 {
		delete(w.byKind, kind)
	}
}

func (w *watchers) empty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.byKind) == 0
}

// notify ticks for the kinds whose generation is not the one last seen.
func (w *watchers) notify(generations map[string]int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for kind, n := range generations {
		if w.seen[kind] == n {
			continue
		}
		w.seen[kind] = n
		w.tick(kind)
	}
}

// tell ticks for the kinds that the group told of.
func (w *watchers) tell(group []*write) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range group {
		for _, kind := range m.told {
			w.tick(kind)
		}
	}
}

// tellOthers ticks for the kinds that have no generation, after some change by another process.
func (w *watchers) tellOthers(generations map[string]int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for kind := range w.byKind {
		if _, raised := generations[kind]; !raised {
			w.tick(kind)
		}
	}
}

// tick needs mu.
func (w *watchers) tick(kind string) {
	for _, c := range w.byKind[kind] {
		select {
		case c <- struct{}{}:
		default: // a tick is waiting already
		}
	}
}

// raise lifts the generation of each kind that the group raised, once, and returns the new numbers.
func (w *writer) raise(group []*write) (map[string]int64, error) {
	var raised map[string]int64
	for _, m := range group {
		for _, kind := range m.raised {
			if _, done := raised[kind]; done {
				continue
			}
			s, err := w.conn.prepare(w.ctx, "INSERT INTO generation (kind, n) VALUES (?, 1) ON CONFLICT (kind) DO UPDATE SET n = generation.n + 1 RETURNING n")
			if err != nil {
				return nil, err
			}
			var n int64
			if err := s.QueryRowContext(w.ctx, kind).Scan(&n); err != nil {
				return nil, err
			}
			if raised == nil {
				raised = make(map[string]int64)
			}
			raised[kind] = n
		}
	}
	return raised, nil
}

// poll looks for changes by other processes. data_version costs no read of the file's pages and stays the same while
// only this connection writes.
func (w *writer) poll() {
	if w.conn == nil || w.watchers.empty() {
		return
	}
	version, err := w.dataVersionNow()
	if err == nil && version == w.dataVersion {
		return
	}
	generations, err := w.generations()
	if err != nil {
		w.log.Warn("database changes by others are not seen", errKey, err)
		w.failed(err)
		return
	}
	w.dataVersion = version
	w.watchers.notify(generations)
	w.watchers.tellOthers(generations)
}

func (w *writer) dataVersionNow() (version int64, err error) {
	s, err := w.conn.prepare(w.ctx, "PRAGMA data_version")
	if err != nil {
		return 0, err
	}
	err = s.QueryRowContext(w.ctx).Scan(&version)
	return version, err
}

func (w *writer) generations() (map[string]int64, error) {
	rows, err := w.conn.sql.QueryContext(w.ctx, "SELECT kind, n FROM generation")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := make(map[string]int64)
	for rows.Next() {
		var (
			kind string
			n    int64
		)
		if err := rows.Scan(&kind, &n); err != nil {
			return nil, err
		}
		all[kind] = n
	}
	return all, rows.Err()
}
