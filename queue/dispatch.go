package queue

import (
	"context"
	"errors"
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
	// maxSeeks bounds the turns that are looked at in one go.
	maxSeeks = 1000
	// maxKnown bounds the destinations that something is remembered of.
	maxKnown = 10_000
	// impatience is how long a destination that does not answer may keep a slot that others need.
	impatience = 2 * time.Second
	// pressureEvery is how soon a slot is looked for where all are taken.
	pressureEvery = 250 * time.Millisecond
	// longest is how long one attempt may take, whatever happens.
	longest = 4 * time.Hour
	// dueEvery is how exactly times are kept.
	dueEvery = 100 * time.Millisecond
	// idlePoll is how long nothing may happen until the database is asked again, and roundEvery until all of it is looked at.
	idlePoll, roundEvery = time.Minute, 10 * time.Minute
)

// errTooLong ends an attempt that takes longer than longest.
var errTooLong = errors.New("queue: the attempt took too long")

// dispatcher gives out slots. All of it belongs to the goroutine of Run.
//
//	new letters, those whose time has come -> turns, and a round through all -> a letter -> a slot -> attempt -> settled -> its turn again
//	                                          a turn whose destination is busy is parked until that has a slot
type dispatcher struct {
	q       *Queue
	done    chan step
	wait    sync.WaitGroup
	running map[*attempt]struct{}
	taken   map[int64]struct{} // recipients that are being tried
	known   map[string]*destination
	silent  parking         // turns of destinations that do not answer, beyond those that may be tried
	work    context.Context // of the attempts: it ends later than that of Run
	stop    context.CancelFunc

	turns     line
	odd       bool  // the round is asked before the turns
	dueUntil  int64 // what has become due until then has got its turn
	lastRound time.Time
	again     bool // something changed since the round began
	inRound   bool // the round has not seen all
	cursor    turn // that it saw last; the next round begins with the first one
}

// destination is what is remembered of where letters go: a domain, or a smarthost.
type destination struct {
	running int
	limit   int
	silent  bool // it did not answer in time, the last time
	parked  parking
}

func newDispatcher(ctx context.Context, q *Queue) *dispatcher {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	return &dispatcher{q: q, work: work, stop: stop, done: make(chan step, 2*q.Slots), running: map[*attempt]struct{}{}, taken: map[int64]struct{}{},
		known: map[string]*destination{}, again: true, dueUntil: time.Now().UnixMilli()}
}

// attempt is a letter on its way to one destination.
type attempt struct {
	letter      queued
	turn        turn
	destination string
	to          []waiting
	silent      bool // it has one of the slots of those that did not answer in time
	began       time.Time
	talking     atomic.Bool // the other side has come as far as the content
	cut         atomic.Bool // others needed its slot
	cancel      context.CancelFunc
	well, quiet bool // how it ended
	handed      bool // it has ended, and is being written down; belongs to the goroutine of Run
}

// step is how far an attempt has come: the letter is handed over, or not, and then that is written down.
type step struct {
	*attempt
	settled bool
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
	for s := range d.done {
		d.ended(s)
	}
}

// ended takes the place at the destination back, and when all is written down the slot.
func (d *dispatcher) ended(s step) {
	if !s.settled {
		d.handed(s.attempt)
		return
	}
	delete(d.running, s.attempt)
	for _, w := range s.to {
		delete(d.taken, w.row)
	}
}

// handed lets the next letter have the place at the destination, and learns.
func (d *dispatcher) handed(a *attempt) {
	a.handed = true
	dest := d.known[a.destination]
	dest.running--
	dest.silent = a.quiet
	if a.well {
		dest.limit = min(dest.limit+1, maxLimit)
	} else {
		dest.limit = max(dest.limit/2, 1)
	}
	d.wake(&dest.parked, dest.limit-dest.running)
	if a.silent {
		d.wake(&d.silent, 1)
	}
	d.push(a.turn) // there may be more of it
	d.forget()
}

// push gives a turn its place in the line.
func (d *dispatcher) push(t turn) {
	if !d.turns.add(t, maxTurns) {
		d.again = true
	}
}

// park lets a turn wait until p has a slot.
func (d *dispatcher) park(p *parking, t turn) {
	if !p.line.add(t, maxParked) {
		p.more = true
	}
}

// wake gives so many turns that were parked their place in the line.
func (d *dispatcher) wake(p *parking, n int) {
	for range n {
		t, ok := p.line.next()
		if !ok {
			d.again, p.more = d.again || p.more, false // the round finds those that did not fit
			return
		}
		d.push(t)
	}
}

// forget keeps what is remembered within its bound: what is idle goes.
func (d *dispatcher) forget() {
	if len(d.known) < maxKnown {
		return
	}
	for name, dest := range d.known {
		if dest.running == 0 && len(dest.parked.line.order) == 0 {
			delete(d.known, name)
		}
	}
}

// collect takes over what has ended meanwhile.
func (d *dispatcher) collect() {
	for {
		select {
		case s := <-d.done:
			d.ended(s)
		default:
			return
		}
	}
}

// added takes over the turns of new letters.
func (d *dispatcher) added() {
	named, overflow := d.q.fresh.take()
	for _, t := range named {
		d.push(t)
	}
	d.again = d.again || overflow
}

// due gives those their turn whose time has come, and begins a round now and then, which finds what the rest of this file forgets.
func (d *dispatcher) due(ctx context.Context) error {
	now := time.Now()
	if now.Sub(d.lastRound) >= roundEvery || now.UnixMilli() < d.dueUntil { // or the clock was set back
		d.again, d.lastRound, d.dueUntil = true, now, min(d.dueUntil, now.UnixMilli())
	}
	if now.UnixMilli() < d.dueUntil+dueEvery.Milliseconds() {
		return nil
	}
	turns, all, err := d.q.dueSince(ctx, d.dueUntil, now.UnixMilli())
	if err != nil {
		return err
	}
	for _, t := range turns {
		d.push(t)
	}
	d.dueUntil, d.again = now.UnixMilli(), d.again || !all
	return nil
}

// fill gives out free slots, and returns when it is to be called again at the latest. While outcomes cannot be written down, nothing is
// begun: what cannot be remembered would be sent again.
func (d *dispatcher) fill(ctx context.Context) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	if err := d.due(ctx); err != nil {
		return d.failed(ctx, err)
	}
	for range maxSeeks {
		if !d.free() || d.q.unwritten.Load() > 0 {
			break
		}
		t, ok, err := d.next(ctx)
		if err == nil && ok {
			err = d.claim(ctx, t)
		}
		if err != nil {
			return d.failed(ctx, err)
		}
		if !ok {
			break
		}
	}
	switch {
	case d.q.unwritten.Load() > 0:
		return pressureEvery
	case !d.free():
		d.press()
		return pressureEvery
	case len(d.turns.order) > 0 || d.inRound || d.again:
		return 0
	}
	next, err := d.q.nextDue(ctx, d.dueUntil)
	if err != nil {
		return d.failed(ctx, err)
	}
	return min(max(next, dueEvery), idlePoll)
}

// failed is a database that does not answer: nothing is lost by waiting.
func (d *dispatcher) failed(ctx context.Context, err error) time.Duration {
	d.again = true // the turn that failed is found again
	if ctx.Err() == nil {
		d.q.Log.Error("queue cannot be read", maillog.Err, err)
	}
	return time.Second
}

func (d *dispatcher) free() bool { return len(d.running) < d.q.Slots }

// next is whose turn it is: alternately one from the line, and one of the round.
func (d *dispatcher) next(ctx context.Context) (t turn, ok bool, err error) {
	if d.odd = !d.odd; d.odd || len(d.turns.order) == 0 {
		if t, ok, err = d.round(ctx); ok || err != nil {
			return t, ok, err
		}
	}
	t, ok = d.turns.next()
	return t, ok, nil
}

// round goes on through all that is in the queue, and returns the next turn that has something due.
func (d *dispatcher) round(ctx context.Context) (t turn, ok bool, err error) {
	if !d.inRound {
		if !d.again {
			return t, false, nil
		}
		d.again, d.inRound, d.cursor, d.lastRound = false, true, turn{}, time.Now()
	}
	for range maxSeeks {
		t, next, err := d.q.turnAfter(ctx, d.cursor)
		if err != nil {
			return t, false, err
		}
		if t == (turn{}) { // the last one was the last
			d.inRound = false
			return t, false, nil
		}
		d.cursor = t
		if next <= time.Now().UnixMilli() {
			return t, true, nil
		}
	}
	return t, false, nil
}

// claim gives a slot to one letter of a turn, which then goes to the end of the line.
func (d *dispatcher) claim(ctx context.Context, t turn) error {
	letter, to, err := d.q.due(ctx, t, d.taken)
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
	switch {
	case dest.running >= dest.limit:
		d.park(&dest.parked, t)
		return nil
	case dest.silent && d.silentRunning() >= d.q.Patient:
		d.park(&d.silent, t)
		return nil
	}
	d.start(&attempt{letter: letter, turn: t, destination: name, to: to, silent: dest.silent}, dest)
	d.push(t)
	return nil
}

// silentRunning is how many slots those have that did not answer in time.
func (d *dispatcher) silentRunning() (n int) {
	for a := range d.running {
		if a.silent && !a.handed {
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
	a.began = time.Now()
	ctx, cancel := context.WithTimeoutCause(d.work, longest, errTooLong)
	a.cancel = cancel
	d.wait.Go(func() {
		settle := d.q.try(d.work, ctx, a)
		a.cancel()
		d.done <- step{a, false}
		settle()
		d.done <- step{a, true}
	})
}

// press takes slots from destinations that do not answer, where others wait for one. Those that are known for it keep theirs.
func (d *dispatcher) press() {
	for a := range d.running {
		if !a.silent && !a.handed && !a.talking.Load() && time.Since(a.began) >= impatience && a.cut.CompareAndSwap(false, true) {
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
