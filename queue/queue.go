package queue

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
)

// Options are what a queue works with. Hostname, DB, Deliverer and Store are required.
type Options struct {
	Hostname  string // that notices come from
	DB        *database.DB
	Deliverer Deliverer
	Store     Store
	Signer    Signer       // of notices that leave; nil: they are not signed
	AlertsTo  addr.Address // who gets alerts besides postmaster; zero: nobody
	Log       *slog.Logger

	Slots   int           // letters that are being handed over at one moment: 256
	Patient int           // slots for destinations that did not answer in time: a quarter
	GiveUp  time.Duration // how old a letter may get: 5 days (RFC 5321 section 4.5.4.1)
	Late    time.Duration // when the sender hears that it is late: 4 hours
}

// Queue keeps letters until the fate of each recipient is known. Its methods may be called from many goroutines; Run is for the
// one process that serves.
type Queue struct {
	Options
	fresh     fresh
	told      told
	unwritten atomic.Int64 // attempts whose outcome the database does not take
}

// New returns a queue.
func New(o Options) (*Queue, error) {
	if o.Hostname == "" || o.DB == nil || o.Store == nil {
		return nil, errors.New("queue: hostname, database and store are required")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Slots = cmp.Or(o.Slots, 256)
	o.Patient = cmp.Or(o.Patient, max(1, o.Slots/4))
	o.GiveUp, o.Late = cmp.Or(o.GiveUp, 5*24*time.Hour), cmp.Or(o.Late, 4*time.Hour)
	return &Queue{Options: o}, nil
}

// The kinds that DB.Watch knows changes of the queue by: new letters in this process, whose domains are known; and all else.
const (
	additions = "queue additions"
	changes   = "queue"
)

// schedule is how long a recipient waits after each try; the last one goes on.
var schedule = [...]time.Duration{5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour}

// wait is the time until the next try after so many, with a tenth of it more or less, so that what failed together does not come
// back together.
func wait(attempts int) time.Duration {
	d := schedule[min(max(attempts, 1), len(schedule))-1]
	return d*9/10 + rand.N(d/5)
}

// Run hands letters over until ctx ends, and returns when all that was under way has ended, half a minute later at most. What was not handed over by then is
// tried again after the next start.
func (q *Queue) Run(ctx context.Context) {
	changed, stop := q.DB.Watch(changes)
	defer stop()
	added, stopAdded := q.DB.Watch(additions)
	defer stopAdded()
	d := newDispatcher(ctx, q)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			d.drain()
			return
		case <-added:
			d.added()
		case <-changed:
			d.again = true
		case s := <-d.done:
			d.ended(s)
		case <-timer.C:
		}
		d.collect()
		timer.Reset(d.fill(ctx))
	}
}
