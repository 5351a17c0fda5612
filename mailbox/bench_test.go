package mailbox_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/mailbox"
	"github.com/postroom/postroom/mailbox/mailboxtest"
)

func newStore(t testing.TB, db *database.DB) *mailbox.Store {
	t.Helper()
	store, err := mailbox.New(db, mailbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// deliver stages and delivers one letter, as a session does.
func deliver(t testing.TB, db *database.DB, store *mailbox.Store, body []byte, to ...mailbox.Delivery) error {
	st, err := store.Stage(t.Context(), message.NewID(), int64(len(body)), bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer st.Discard(t.Context())
	return db.Write(t.Context(), func(tx *database.Tx) error {
		_, err := store.Deliver(tx, st, to)
		return err
	})
}

// parallel calls each b.N times in all, from so many goroutines, and reports what one call took of the processor.
func parallel(b *testing.B, goroutines int, each func(worker int) error) {
	b.Helper()
	var (
		left  atomic.Int64
		group sync.WaitGroup
	)
	left.Store(int64(b.N))
	before := processorTime()
	b.ResetTimer()
	for worker := range goroutines {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				if err := each(worker); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
	b.ReportMetric(float64(processorTime()-before)/float64(b.N)/1e3, "cpu-µs/op")
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDeliver is the durable delivery of a letter by so many sessions at once.
func BenchmarkDeliver(b *testing.B) {
	for _, size := range []int{1 << 10, 10 << 10, 100 << 10} {
		for _, sessions := range []int{1, 10, 50} {
			b.Run(fmt.Sprintf("size=%dK/sessions=%d", size>>10, sessions), func(b *testing.B) {
				db := databasetest.Open(b)
				store := newStore(b, db)
				body := mailboxtest.Body(size)
				prefix := []byte("Return-Path: <anna@example.org>\r\nDelivered-To: bert@example.net\r\n")
				b.SetBytes(int64(size))
				b.ReportAllocs()
				parallel(b, sessions, func(worker int) error {
					return deliver(b, db, store, body, mailbox.Delivery{AccountID: int64(worker + 1), Prefix: prefix})
				})
			})
		}
	}
}

// BenchmarkRaw is the limit that BenchmarkDeliver is held against: the bodies alone, appended to a file with one sync for
// all that wait.
func BenchmarkRaw(b *testing.B) {
	for _, sessions := range []int{1, 10, 50} {
		b.Run(fmt.Sprintf("size=10K/sessions=%d", sessions), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			type letter struct{ done chan error }
			letters := make(chan letter, 256)
			go func() {
				body := mailboxtest.Body(10 << 10)
				for first := range letters {
					group := []letter{first}
					for len(letters) > 0 {
						group = append(group, <-letters)
					}
					var err error
					for range group {
						if _, e := f.Write(body); e != nil {
							err = e
						}
					}
					if e := syscall.Fdatasync(int(f.Fd())); e != nil {
						err = e
					}
					for _, l := range group {
						l.done <- err
					}
				}
			}()
			defer close(letters)
			parallel(b, sessions, func(int) error {
				l := letter{make(chan error, 1)}
				letters <- l
				return <-l.done
			})
		})
	}
}

// BenchmarkSnapshot lists a big inbox, as every POP3 login does.
func BenchmarkSnapshot(b *testing.B) {
	for _, n := range []int{20_000, 100_000} {
		b.Run(fmt.Sprintf("messages=%d", n), func(b *testing.B) {
			db := databasetest.Open(b)
			store := newStore(b, db)
			fillSeparately(b, db, store, 1, n)
			b.ReportAllocs()
			for b.Loop() {
				snap, err := store.Snapshot(b.Context(), 1)
				if err != nil || snap.Len() != n {
					b.Fatal(snap.Len(), err)
				}
			}
		})
	}
}

// BenchmarkOpen reads letters of 10 KB, as RETR does.
func BenchmarkOpen(b *testing.B) {
	db := databasetest.Open(b)
	store := newStore(b, db)
	if err := deliver(b, db, store, mailboxtest.Body(10<<10), mailbox.Delivery{AccountID: 1}); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 32<<10)
	b.ReportAllocs()
	for b.Loop() {
		r, size, err := store.Open(b.Context(), 1, 1)
		if err != nil {
			b.Fatal(err)
		}
		for size > 0 {
			n, err := r.Read(buf)
			if err != nil {
				b.Fatal(err)
			}
			size -= int64(n)
		}
		r.Close()
	}
}
