package queue

import "sync"

// turn is what takes turns: all letters of one sender's domain to one domain have the same destination.
type turn struct{ domain, sender string }

// Bounds of what is remembered of turns. What does not fit is found again by a round through the database.
const (
	maxFresh  = 1000   // named by new letters since the last look
	maxTurns  = 10_000 // waiting to be looked at
	maxParked = 10_000 // waiting for a destination that is busy
)

// fresh are turns that just got a letter.
type fresh struct {
	mu       sync.Mutex // guards what follows
	turns    []turn
	overflow bool // there were more
}

func (f *fresh) add(turns []turn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	room := maxFresh - len(f.turns)
	f.overflow = f.overflow || len(turns) > room
	f.turns = append(f.turns, turns[:min(len(turns), room)]...)
}

func (f *fresh) take() (turns []turn, overflow bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	turns, overflow = f.turns, f.overflow
	f.turns, f.overflow = nil, false
	return turns, overflow
}

// line is turns one behind the other, each once.
type line struct {
	order []turn
	in    map[turn]struct{}
}

// add puts a turn at the end. It returns false where it does not fit.
func (l *line) add(t turn, limit int) bool {
	if _, is := l.in[t]; is {
		return true
	}
	if len(l.order) >= limit {
		return false
	}
	if l.in == nil {
		l.in = map[turn]struct{}{}
	}
	l.order = append(l.order, t)
	l.in[t] = struct{}{}
	return true
}

func (l *line) next() (t turn, ok bool) {
	if len(l.order) == 0 {
		return t, false
	}
	t = l.order[0]
	l.order = l.order[1:]
	delete(l.in, t)
	return t, true
}

// parking is where turns wait for something that is busy.
type parking struct {
	line line
	more bool // some did not fit
}
