package limit

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestReserve shows that there is no room below the reserve, and again some above it.
func TestReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free, asked := int64(999), 0
		d := &Reserve{Octets: 1000, Free: func() (int64, error) { asked++; return free, nil }}
		for _, step := range []struct {
			free  int64
			wait  time.Duration
			room  bool
			asked int
		}{
			{999, 0, false, 1},
			{5000, 0, false, 1}, // the answer counts for a second
			{5000, freeSpaceFor, true, 2},
			{0, freeSpaceFor, false, 3},
		} {
			time.Sleep(step.wait)
			free = step.free
			if room, err := d.Room(); room != step.room || err != nil || asked != step.asked {
				t.Errorf("%+v: room %t, %v, asked %d times", step, room, err, asked)
			}
		}
		broken := &Reserve{Octets: 1, Free: func() (int64, error) { return 0, errors.New("no answer") }}
		if _, err := broken.Room(); err == nil {
			t.Error("an error is room")
		}
		if room, err := (&Reserve{}).Room(); !room || err != nil {
			t.Error("without a reserve there is always room")
		}
	})
}
