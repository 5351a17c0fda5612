package mailbox

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/maillog"
)

const (
	// freeOctets and freeBlobs bound what one write frees, so that deliveries wait milliseconds.
	freeOctets = 2 << 20
	freeBlobs  = 128
)

// Sweep frees what was left behind by a process that ended in the middle: bodies written ahead and never delivered, and
// those that lost their last reference. It is for a server's start, under DB.LockServer: what another process is
// writing ahead would go, too.
func (s *Store) Sweep(ctx context.Context) error {
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec("UPDATE blobs SET refs = ? WHERE refs = ? AND refs <= 0", refsDead, refsStaged)
		return err
	})
	for _, dead := range []int{refsErase, refsDead} {
		if err == nil {
			err = s.freeAll(ctx, dead)
		}
	}
	if err != nil {
		return fmt.Errorf("mailbox: sweep: %w", err)
	}
	return nil
}

// freeing is the background work of a store: it runs only while there is something to free.
type freeing struct {
	mu      sync.Mutex // guards all fields but wait
	running bool
	again   bool
	stopped bool
	cancel  context.CancelFunc
	wait    sync.WaitGroup
}

// startFreeing frees dead bodies in the background, unless that is being done already.
func (s *Store) startFreeing(ctx context.Context) {
	f := &s.free
	f.mu.Lock()
	defer f.mu.Unlock()
	f.again = true
	if f.running || f.stopped {
		return
	}
	f.running = true
	ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.wait.Go(func() {
		for f.next() {
			if err := s.freeAll(ctx, refsDead); err != nil && ctx.Err() == nil {
				s.log.Warn("deleted messages not freed yet", maillog.Err, err)
			}
		}
	})
}

// next says whether somebody asked for freeing since the last time, and else ends the work.
func (f *freeing) next() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.again && !f.stopped {
		f.again = false
		return true
	}
	f.running = false
	f.cancel()
	return false
}

// stop ends the work and waits for it.
func (f *freeing) stop() {
	f.mu.Lock()
	f.stopped = true
	if f.running {
		f.cancel()
	}
	f.mu.Unlock()
	f.wait.Wait()
}

// freeAll frees the bodies with this mark, in small transactions.
func (s *Store) freeAll(ctx context.Context, dead int) error {
	for more := true; more; {
		err := s.db.Write(ctx, func(tx *database.Tx) (err error) {
			more, err = freeSome(tx, dead)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// body is a dead one.
type body struct{ id, size int64 }

// freeSome frees some bodies, or the end of a large one, and says whether there may be more.
func freeSome(tx *database.Tx, dead int) (more bool, err error) {
	found, err := deadBodies(tx, dead)
	if err != nil || len(found) == 0 {
		return false, err
	}
	if dead == refsErase {
		if err := tx.Erase(); err != nil {
			return false, err
		}
	}
	budget := int64(freeOctets)
	for _, b := range found {
		if budget <= 0 {
			break
		}
		if err := freeBody(tx, b, &budget); err != nil {
			return false, err
		}
	}
	return true, nil
}

func deadBodies(tx *database.Tx, dead int) (found []body, err error) {
	// Not LIMIT ?, with which SQLite compiles the query anew each time.
	rows, err := tx.Query("SELECT id, size FROM blobs WHERE refs = ? AND refs <= 0 ORDER BY id LIMIT "+strconv.Itoa(freeBlobs), dead)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var b body
		if err := rows.Scan(&b.id, &b.size); err != nil {
			return nil, err
		}
		found = append(found, b)
	}
	return found, rows.Err()
}

// freeBody deletes the chunks of a body from its end as far as the budget goes, and its header row with the first one.
func freeBody(tx *database.Tx, b body, budget *int64) error {
	chunks := (b.size + chunkSize - 1) / chunkSize
	keep := max(0, chunks-max(1, *budget/chunkSize))
	*budget -= min(b.size, (chunks-keep)*chunkSize)
	if _, err := tx.Exec("DELETE FROM chunks WHERE id >= ? AND id < ?", chunkID(b.id, int(keep)), chunkID(b.id+1, 0)); err != nil {
		return err
	}
	if keep == 0 {
		_, err := tx.Exec("DELETE FROM blobs WHERE id = ?", b.id)
		return err
	}
	_, err := tx.Exec("UPDATE blobs SET size = ? WHERE id = ?", keep*chunkSize, b.id)
	return err
}
