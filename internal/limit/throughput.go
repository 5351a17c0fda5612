package limit

import (
	"errors"
	"time"
)

// ErrTooSlow is the error of Throughput.
var ErrTooSlow = errors.New("too slow")

// Throughput is a guard against a body that trickles in: at least MinOctets in each Window. It is a plain value, used by
// one goroutine; the zero value guards nothing. It sees only what is reported to it, so a deadline for a peer that sends
// nothing at all is still needed.
type Throughput struct {
	MinOctets int64
	Window    time.Duration

	start time.Time // of the current window; zero before Start
	seen  int64     // octets in the current window
}

// Start begins the first window. Call it when the peer has been told to send.
func (t *Throughput) Start() { t.start, t.seen = time.Now(), 0 }

// Add reports that n octets arrived. It returns ErrTooSlow when the window is over and too little came in it; a window that
// lasted longer, because the peer was silent, asks for more in proportion. What arrives before the end of the first window
// is not judged.
func (t *Throughput) Add(n int) error {
	if t.Window <= 0 || t.MinOctets <= 0 {
		return nil
	}
	now := time.Now()
	if t.start.IsZero() {
		t.start = now
	}
	t.seen += int64(n)
	elapsed := now.Sub(t.start)
	if elapsed < t.Window {
		return nil
	}
	if float64(t.seen) < float64(t.MinOctets)*(float64(elapsed)/float64(t.Window)) {
		return ErrTooSlow
	}
	t.start, t.seen = now, 0
	return nil
}
