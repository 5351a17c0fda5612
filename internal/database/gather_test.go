package database

import (
	"testing"
	"testing/synctest"
	"time"
)

// commits is how many commits raised the kind.
func commits(t *testing.T, db *DB, kind string) (n int) {
	t.Helper()
	err := db.Read(t.Context(), func(tx *Tx) error { return tx.QueryRow("SELECT n FROM generation WHERE kind = ?", kind).Scan(&n) })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestExpect shows that a write waits for one that was announced, for that one only, and not for long.
func TestExpect(t *testing.T) {
	for _, tc := range []struct {
		name    string
		second  func(done func(), write func()) // what becomes of the announced write
		took    time.Duration
		commits int
	}{
		{"it comes", func(done, write func()) { done(); write() }, 0, 1},
		{"it comes soon", func(done, write func()) { time.Sleep(gatherFor / 2); done(); write() }, gatherFor / 2, 1},
		{"it comes too late", func(done, write func()) { time.Sleep(2 * gatherFor); done(); write() }, 2 * gatherFor, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := open(t, t.TempDir())
				raise := func() {
					if err := db.Write(t.Context(), func(tx *Tx) error { return tx.Raise("x") }); err != nil {
						t.Error(err)
					}
				}
				done := db.Expect()
				began, first := time.Now(), make(chan struct{})
				go func() { defer close(first); raise() }()
				synctest.Wait()
				tc.second(done, raise)
				<-first
				if took, n := time.Since(began), commits(t, db, "x"); took != tc.took || n != tc.commits {
					t.Errorf("%d commits in %v, want %d in %v", n, took, tc.commits, tc.took)
				}
			})
		})
	}
}

// TestExpectNothing shows what a write costs that nobody announced, and what announcements cost that were taken back or never
// come true: next to nothing, since waiting in vain is given up for longer and longer.
func TestExpectNothing(t *testing.T) {
	const writes = 200
	for _, tc := range []struct {
		name     string
		announce func(*DB)
		atMost   time.Duration
	}{
		{"nothing announced", func(*DB) {}, 0},
		{"taken back, twice", func(db *DB) { done := db.Expect(); done(); done() }, 0},
		{"never comes", func(db *DB) { db.Expect() }, 10 * gatherFor},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := open(t, t.TempDir())
				tc.announce(db)
				began := time.Now()
				for range writes {
					if err := db.Write(t.Context(), func(tx *Tx) error { return tx.Raise("x") }); err != nil {
						t.Fatal(err)
					}
				}
				if took, n := time.Since(began), commits(t, db, "x"); took > tc.atMost || n != writes || tc.atMost > 0 && took == 0 {
					t.Errorf("%d commits in %v, want %d in at most %v", n, took, writes, tc.atMost)
				}
			})
		})
	}
}
