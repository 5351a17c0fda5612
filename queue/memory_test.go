package queue

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/message"
)

// TestMemory: letters in the queue cost disk and not memory, however many there are, and a new one is tried at once.
func TestMemory(t *testing.T) {
	letters := 3000 // POSTROOM_QUEUE_LETTERS says another number
	if v := os.Getenv("POSTROOM_QUEUE_LETTERS"); v != "" {
		var err error
		if letters, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.q.Log = slog.New(slog.DiscardHandler) // what the test keeps of the log is not the queue's memory
		w.answer = func(ctx context.Context, c call) []Outcome {
			w.mu.Lock()
			w.calls = w.calls[:0]
			w.mu.Unlock()
			return all(c, deferred)
		}
		before := heap()
		blob := w.keep([]byte(letterText))
		for done := 0; done < letters; done += 100 {
			err := w.db.Write(t.Context(), func(tx *database.Tx) error {
				for i := done; i < min(done+100, letters); i++ {
					l := Letter{ID: message.NewID(), Account: 1, From: path("<anna@example.org>"), Size: 100, Created: time.Now()}
					if err := w.q.Add(tx, l, blob, to(fmt.Sprintf("a%d@n%d.example", i, i%1000))); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		defer w.run()()
		w.sleep(time.Minute)
		if n := w.count("queue_recipients WHERE attempts > 0"); n != letters {
			t.Errorf("%d of %d were tried within a minute", n, letters)
		}
		grown := (heap() - before) >> 20
		t.Logf("%d letters: %d MiB more in the heap", letters, grown)
		if grown > 50 {
			t.Errorf("%d letters cost %d MiB of memory", letters, grown)
		}
		w.mu.Lock()
		w.answer = nil
		w.mu.Unlock()
		w.add(Letter{}, to("b@new.example")...)
		w.sleep(time.Second)
		if n := w.count("ledger WHERE kind = 'sent'"); n != 1 {
			t.Errorf("%d new letters were sent", n)
		}
	})
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}
