package limit

import (
	"sync"
	"time"
)

// freeSpaceFor is how long an answer about the disk counts.
const freeSpaceFor = time.Second

// Reserve tells whether more than a reserve of octets is free on a disk, which it asks at most once a second. Its methods may be
// called from many goroutines; without a reserve there is always room.
type Reserve struct {
	Free   func() (int64, error)
	Octets int64

	mu    sync.Mutex // guards what follows
	asked time.Time
	full  bool
}

// Room tells whether there is room.
func (r *Reserve) Room() (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Octets <= 0 {
		return true, nil
	}
	if now := time.Now(); r.asked.IsZero() || now.Sub(r.asked) >= freeSpaceFor {
		free, err := r.Free()
		if err != nil {
			return false, err
		}
		r.asked, r.full = now, free < r.Octets
	}
	return !r.full, nil
}
