package retrieval

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/mailbox"
)

const (
	waitForLock = 5 * time.Second
	idleEnough  = 30 * time.Second // after this a session may lose its maildrop to another
	maxWaiting  = 3                // logins for one maildrop
)

// maildrop is one session's hold on a mailbox: the pop3d.Maildrop of a login.
type maildrop struct {
	s        *session
	login    accounts.Login
	snapshot *mailbox.Snapshot

	// Guarded by drops.mu.
	busy      bool
	lost      bool
	idleSince time.Time
}

// Len returns the number of messages.
func (d *maildrop) Len() int { return d.snapshot.Len() }

// Message returns the size and unique-id of a message.
func (d *maildrop) Message(i int) (size int64, uidl string) {
	e := d.snapshot.At(i)
	return e.Size, e.UIDL.String()
}

// Open returns the message, to be read in pieces.
func (d *maildrop) Open(ctx context.Context, i int) (io.ReadCloser, error) {
	content, _, err := d.s.h.mailboxes.Open(ctx, d.login.AccountID, d.snapshot.At(i).UID)
	if errors.Is(err, mailbox.ErrNoMessage) {
		return nil, refusalGone
	}
	return content, err
}

// Delete removes messages, all or none.
func (d *maildrop) Delete(ctx context.Context, messages []int) error {
	uids := make([]uint32, len(messages))
	for n, i := range messages {
		uids[n] = d.snapshot.At(i).UID
	}
	// A client that goes away now was promised nothing; but a deletion that has begun ends in one way or the other.
	return d.s.h.mailboxes.Delete(context.WithoutCancel(ctx), d.login.AccountID, uids)
}

// Busy notes what the session does, and tells whether the maildrop is still its own.
func (d *maildrop) Busy(busy bool) (mine bool) {
	all := d.s.h.drops
	all.mu.Lock()
	defer all.mu.Unlock()
	if d.busy && !busy {
		d.idleSince = time.Now()
	}
	d.busy = busy
	return !d.lost
}

// Close gives the lock back.
func (d *maildrop) Close() { d.s.h.drops.unlock(d) }

// drops are the maildrops that sessions hold, by account.
type drops struct {
	mu   sync.Mutex // guards what follows
	held map[int64]*hold
}

// hold is a maildrop in use, and those who wait for it.
type hold struct {
	owner   *maildrop
	waiting int
	freed   chan struct{} // closed when the owner is gone
}

func newDrops() *drops { return &drops{held: make(map[int64]*hold)} }

// errInUse says that another session keeps the maildrop.
var errInUse = errors.New("maildrop in use")

// lock makes d the only session on its account, waiting for another or taking its place.
func (a *drops) lock(ctx context.Context, d *maildrop) error {
	deadline := time.Now().Add(waitForLock)
	for {
		freed, again := a.tryLock(d)
		if freed == nil {
			return nil
		}
		left := time.Until(deadline)
		if left <= 0 || again < 0 {
			return errInUse
		}
		err := a.wait(ctx, d, freed, min(left, again))
		if err != nil {
			return err
		}
	}
}

// tryLock returns nil when d has the lock now. Else freed tells when the owner goes, and again is when the owner has been
// idle for long enough; below 0 too many wait already.
func (a *drops) tryLock(d *maildrop) (freed <-chan struct{}, again time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.held[d.login.AccountID]
	now := time.Now()
	if h == nil || a.mayTake(h.owner, now) {
		if h != nil {
			a.lose(h)
		}
		d.busy = true
		a.held[d.login.AccountID] = &hold{owner: d, freed: make(chan struct{})}
		return nil, 0
	}
	if h.waiting >= maxWaiting {
		return h.freed, -1
	}
	if h.owner.busy {
		return h.freed, waitForLock
	}
	return h.freed, idleEnough - now.Sub(h.owner.idleSince)
}

// mayTake decides whether a session is idle enough to lose its maildrop.
func (a *drops) mayTake(owner *maildrop, now time.Time) bool {
	return owner.lost || !owner.busy && now.Sub(owner.idleSince) >= idleEnough
}

// lose takes the maildrop from its owner, whose session ends at its next step.
func (a *drops) lose(h *hold) {
	if !h.owner.lost {
		h.owner.lost = true
		h.owner.s.c.Wake()
	}
	close(h.freed)
}

// wait waits until the owner goes, or for a while.
func (a *drops) wait(ctx context.Context, d *maildrop, freed <-chan struct{}, long time.Duration) error {
	a.count(d.login.AccountID, freed, 1)
	defer a.count(d.login.AccountID, freed, -1)
	timer := time.NewTimer(long)
	defer timer.Stop()
	select {
	case <-freed:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// count changes how many wait, if the owner is still the same.
func (a *drops) count(account int64, freed <-chan struct{}, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.held[account]; h != nil && h.freed == freed {
		h.waiting += n
	}
}

// unlock gives the maildrop back, unless it was taken away before.
func (a *drops) unlock(d *maildrop) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.held[d.login.AccountID]; h != nil && h.owner == d {
		delete(a.held, d.login.AccountID)
		close(h.freed)
	}
}

// all returns the maildrops in use.
func (a *drops) all() []*maildrop {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]*maildrop, 0, len(a.held))
	for _, h := range a.held {
		all = append(all, h.owner)
	}
	return all
}

// take makes the session of d end, without a successor.
func (a *drops) take(d *maildrop) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.held[d.login.AccountID]
	if h == nil || h.owner != d {
		return
	}
	delete(a.held, d.login.AccountID)
	a.lose(h)
}
