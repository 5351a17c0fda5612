package database

import (
	"sync/atomic"
	"time"
)

const (
	// gatherFor is how long a group waits for the next of the writes that were announced, and gatherAtMost for all of them.
	gatherFor    = time.Millisecond
	gatherAtMost = 4 * time.Millisecond
	// maxSkipped is how many groups in a row do not wait, after waits that brought nothing.
	maxSkipped = 64
)

// gathering makes groups larger when more writes are about to come: a commit costs nearly the same for one letter as for ten. A
// write waits for none but those that were announced, and for these no longer than gatherAtMost.
type gathering struct {
	coming atomic.Int32 // writes that were announced

	// The rest belongs to the writer's goroutine.
	timer   *time.Timer
	began   time.Time // of the group
	skip    int       // groups that do not wait any more
	skipped int       // after the last wait that brought nothing
}

// Expect announces a Write. done says that it is being made, or will not come; it may be called more than once. Who announces
// a write that does not come within a few milliseconds makes others wait for nothing, now and then.
func (db *DB) Expect() (done func()) {
	g := &db.writer.gathering
	g.coming.Add(1)
	var told atomic.Bool
	return func() {
		if told.CompareAndSwap(false, true) {
			g.coming.Add(-1)
		}
	}
}

// next returns the write that comes next into a group of that size, or nil when the group is to be committed: nothing waits, and
// nothing that was announced is worth waiting for.
func (w *writer) next(size int) *write {
	if next := w.take(); next != nil {
		return next
	}
	g := &w.gathering
	if size == 0 || g.coming.Load() == 0 || g.skip > 0 || time.Since(g.began) > gatherAtMost {
		return nil
	}
	if g.timer == nil {
		g.timer = time.NewTimer(gatherFor)
	} else {
		g.timer.Reset(gatherFor)
	}
	select {
	case next := <-w.writes:
		g.timer.Stop()
		g.skipped = 0
		return next
	case <-g.timer.C:
		g.skipped = min(2*g.skipped+1, maxSkipped)
		g.skip = g.skipped
		return nil
	}
}
