package queue

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postroom/postroom/internal/maillog"
)

const (
	// maxBatch is how many recipients of a letter are handed over together.
	maxBatch = 100
	// firstLimit and maxLimit are how many letters at once go to one destination: one more after each that went well, half after
	// each that did not.
	firstLimit, maxLimit = 4, 20
	// maxSeeks bounds the domains that are looked at in one go.
	maxSeeks = 1000
	// maxKnown bounds the destinations that something is remembered of.
	maxKnown = 10_000
	// impatience is how long a destination that does not answer may keep a slot that others need.
	impatience = 2 * time.Second
	// pressureEvery is how soon a slot is looked for where all are taken.
	pressureEvery = 250 * time.Millisecond
	// longest is how long one attempt may take, whatever happens.
	longest = time.Hour
	// idlePoll is how long nothing may happen until the database is asked again.
	idlePoll = time.Minute
)

// dispatcher gives out slots. All of it belongs to the goroutine of Run.
//
//	fresh domains, then all domains in turn -> a letter and its due recipients there -> a slot -> attempt -> settled -> done
type dispatcher struct {
	q       *Queue
	done    chan *attempt
	wait    sync.WaitGroup
	running map[*attempt]struct{}
	taken   map[int64]struct{} // recipients that are being tried
	inTry   map[string]int     // how many of them there are in each domain
	known   map[string]*destination
	work    context.Context // of the attempts: it ends later than that of Run
	stop    context.CancelFunc
	fresh   []string // domains to be looked at first
	named   []string // those of the last tick

	again   bool   // something changed since the round began
	inRound bool   // the round has not seen all domains
	cursor  string // the domain that it saw last; the next round begins with the first one
}

// destination is what is remembered of where letters go: a domain, or a smarthost.
type destination struct {
	running int
	limit   int
	silent  bool // it did not answer in time, the last time
}

func newDispatcher(ctx context.Context, q *Queue) *dispatcher {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	return &dispatcher{q: q, work: work, stop: stop, done: make(chan *attempt, q.Slots), running: map[*attempt]struct{}{}, taken: map[int64]struct{}{},
		inTry: map[string]int{}, known: map[string]*destination{}}
}

// attempt is a letter on its way to one destination.
type attempt struct {
	letter      queued
	domain      string
	destination string
	to          []waiting
	silent      bool // it has one of the slots of those that did not answer in time
	began       time.Time
	talking     atomic.Bool // the other side has come as far as the content
	cut         atomic.Bool // others needed its slot
	cancel      context.CancelFunc
	well, quiet bool // how it ended
}

// grace is how long an attempt may go on when the queue stops: a letter that is cut off at its end may arrive twice.
const grace = 20 * time.Second

// drain waits for what is under way.
func (d *dispatcher) drain() {
	ending := time.AfterFunc(grace, d.stop)
	defer ending.Stop()
	defer d.stop()
	go func() {
		d.wait.Wait()
		close(d.done)
	}()
	for a := range d.done {
		d.ended(a)
	}
}

// ended takes a slot back, and learns.
func (d *dispatcher) ended(a *attempt) {
	delete(d.running, a)
	for _, w := range a.to {
		delete(d.taken, w.row)
	}
	if d.inTry[a.domain] -= len(a.to); d.inTry[a.domain] <= 0 {
		delete(d.inTry, a.domain)
	}
	dest := d.known[a.destination]
	dest.running--
	dest.silent = a.quiet
	if a.well {
		dest.limit = min(dest.limit+1, maxLimit)
	} else {
		dest.limit = max(dest.limit/2, 1)
	}
	d.fresh = append(d.fresh, a.domain) // there may be more for it
	d.again = d.again || a.silent       // and others may have its slot
	d.forget()
}

// forget keeps what is remembered within its bound: what is idle goes.
func (d *dispatcher) forget() {
	if len(d.known) < maxKnown {
		return
	}
	for name, dest := range d.known {
		if dest.running == 0 {
			delete(d.known, name)
		}
	}
}

// collect takes over what has ended meanwhile.
func (d *dispatcher) collect() {
	for {
		select {
		case a := <-d.done:
			d.ended(a)
		default:
			return
		}
	}
}

// added takes over the domains of new letters. Those of the last time are looked at once more: a letter names its domain while it is
// being written, and there is a tick after each write, so that one that was named too early is there at the next tick.
func (d *dispatcher) added() {
	named, overflow := d.q.fresh.take()
	if overflow || len(d.fresh) >= maxFresh {
		d.again = true
	} else {
		d.fresh = append(append(d.fresh, d.named...), named...)
	}
	d.named = named
}

// fill gives out free slots, and returns when it is to be called again at the latest.
func (d *dispatcher) fill(ctx context.Context) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	for len(d.fresh) > 0 && d.free() {
		domain := d.fresh[0]
		d.fresh = d.fresh[1:]
		if err := d.claim(ctx, domain); err != nil {
			return d.failed(ctx, err)
		}
	}
	more, err := d.round(ctx)
	if err != nil {
		return d.failed(ctx, err)
	}
	switch {
	case !d.free():
		d.press()
		return pressureEvery
	case more:
		return 0
	}
	next, err := d.q.nextDue(ctx)
	if err != nil {
		return d.failed(ctx, err)
	}
	return min(next, idlePoll)
}

// failed is a database that does not answer: nothing is lost by waiting.
func (d *dispatcher) failed(ctx context.Context, err error) time.Duration {
	if ctx.Err() == nil {
		d.q.Log.Error("queue cannot be read", maillog.Err, err)
	}
	return time.Second
}

func (d *dispatcher) free() bool { return len(d.running) < d.q.Slots }

// round goes on through the domains that have something in the queue, each in its turn, and tells whether it has not seen all
// since something changed.
func (d *dispatcher) round(ctx context.Context) (more bool, err error) {
	if !d.inRound {
		if !d.again {
			return false, nil
		}
		d.again, d.inRound = false, true
	}
	for range maxSeeks {
		if !d.free() {
			return true, nil
		}
		domain, next, err := d.q.domainAfter(ctx, d.cursor)
		if err != nil {
			return false, err
		}
		if domain == "" { // the last one was the last
			d.cursor, d.inRound = "", false
			return d.again, nil
		}
		d.cursor = domain
		if next <= time.Now().UnixMilli() {
			if err := d.claim(ctx, domain); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// claim gives slots to letters of a domain, as many as its destination may have.
func (d *dispatcher) claim(ctx context.Context, domain string) error {
	for d.free() {
		letter, to, err := d.q.due(ctx, domain, d.inTry[domain]+maxBatch, d.taken)
		if err != nil || len(to) == 0 {
			return err
		}
		name, err := d.q.Deliverer.Destination(ctx, letter.Letter, to[0].To)
		if err != nil {
			return err
		}
		dest := d.known[name]
		if dest == nil {
			dest = &destination{limit: firstLimit}
			d.known[name] = dest
		}
		if dest.running >= dest.limit || dest.silent && d.silent() >= d.q.Patient {
			return nil
		}
		d.start(&attempt{letter: letter, domain: domain, destination: name, to: to, silent: dest.silent}, dest)
	}
	return nil
}

// silent is how many slots those have that did not answer in time.
func (d *dispatcher) silent() (n int) {
	for a := range d.running {
		if a.silent {
			n++
		}
	}
	return n
}

func (d *dispatcher) start(a *attempt, dest *destination) {
	dest.running++
	d.running[a] = struct{}{}
	for _, w := range a.to {
		d.taken[w.row] = struct{}{}
	}
	d.inTry[a.domain] += len(a.to)
	a.began = time.Now()
	ctx, cancel := context.WithTimeout(d.work, longest)
	a.cancel = cancel
	d.wait.Go(func() {
		defer func() {
			a.cancel()
			d.done <- a
		}()
		d.q.try(ctx, a)
	})
}

// press takes slots from destinations that do not answer, where others wait for one. Those that are known for it keep theirs.
func (d *dispatcher) press() {
	for a := range d.running {
		if !a.silent && !a.talking.Load() && time.Since(a.began) >= impatience && a.cut.CompareAndSwap(false, true) {
			a.cancel()
		}
	}
}

// caught runs what hands a letter over, and makes an error of a panic.
func caught(fn func()) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	fn()
	return nil
}
