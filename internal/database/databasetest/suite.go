package databasetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/database"
)

// suite is one fresh database with a table of notes.
type suite struct {
	*testing.T
	db *database.DB
}

// Run runs the conformance suite of package database: what its callers rely on, whatever the database behind it is. open
// returns a fresh database, closed by a cleanup. Each test runs in a synctest bubble.
func Run(t *testing.T, open func(t *testing.T) *database.DB) {
	for _, test := range []struct {
		name string
		run  func(s *suite)
	}{
		{"write is read back", (*suite).readBack},
		{"failing function is undone", (*suite).undone},
		{"failing statement fails the write", (*suite).failingStatement},
		{"failing member harms no neighbour", (*suite).neighbours},
		{"failing first member harms no neighbour", (*suite).failingFirst},
		{"panic reaches the caller", (*suite).panics},
		{"cancelled wait runs nothing", (*suite).cancelled},
		{"started write is waited for", (*suite).startedIsWaitedFor},
		{"reader sees one state", (*suite).oneState},
		{"reader writes nothing", (*suite).readOnly},
		{"one row is read alone", (*suite).readRow},
		{"unique key", (*suite).unique},
		{"rows left open", (*suite).openRows},
		{"watch", (*suite).watch},
		{"failed write raises nothing", (*suite).noTick},
		{"closed", (*suite).closed},
		{"many writers", (*suite).manyWriters},
		{"free space", (*suite).freeSpace},
		{"alive", (*suite).alive},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &suite{T: t, db: open(t)}
				s.mustWrite(func(tx *database.Tx) error {
					_, err := tx.Exec("CREATE TABLE notes (text TEXT NOT NULL PRIMARY KEY)")
					return err
				})
				test.run(s)
			})
		})
	}
}

func (s *suite) write(fn func(*database.Tx) error) error {
	return s.db.Write(s.Context(), fn)
}

func (s *suite) mustWrite(fn func(*database.Tx) error) {
	s.Helper()
	if err := s.write(fn); err != nil {
		s.Fatal(err)
	}
}

// add returns a function that adds a note.
func add(text string) func(*database.Tx) error {
	return func(tx *database.Tx) error {
		_, err := tx.Exec("INSERT INTO notes (text) VALUES (?)", text)
		return err
	}
}

// has says which of the notes are there.
func (s *suite) has(want map[string]bool) {
	s.Helper()
	for text, there := range want {
		var n int
		err := s.db.Read(s.Context(), func(tx *database.Tx) error {
			return tx.QueryRow("SELECT count(*) FROM notes WHERE text = ?", text).Scan(&n)
		})
		if err != nil {
			s.Fatal(err)
		}
		if (n == 1) != there {
			s.Errorf("note %q is there %d times, want %t", text, n, there)
		}
	}
}

// hold keeps the writer busy until release is called, so that the writes that follow form one group.
func (s *suite) hold() (release func()) {
	gate := make(chan struct{})
	done := make(chan error)
	go func() {
		done <- s.write(func(*database.Tx) error { <-gate; return nil })
	}()
	synctest.Wait()
	return func() {
		close(gate)
		if err := <-done; err != nil {
			s.Error(err)
		}
	}
}

// group runs the functions as one group and returns what Write said to each.
func (s *suite) group(fns ...func(*database.Tx) error) []error {
	release := s.hold()
	errs := make([]error, len(fns))
	var all sync.WaitGroup
	for i, fn := range fns {
		all.Go(func() { errs[i] = caught(func() error { return s.write(fn) }) })
		synctest.Wait() // they wait in this order
	}
	release()
	all.Wait()
	return errs
}

// caught returns what fn returns or panics with.
func caught(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err, _ = v.(error)
		}
	}()
	return fn()
}

func (s *suite) readBack() {
	s.mustWrite(add("one"))
	s.has(map[string]bool{"one": true, "two": false})
}

var errMine = errors.New("mine")

// fails adds a note and then gives up.
func fails(text string) func(*database.Tx) error {
	return func(tx *database.Tx) error { return errors.Join(add(text)(tx), errMine) }
}

func (s *suite) undone() {
	if err := s.write(fails("one")); !errors.Is(err, errMine) {
		s.Errorf("got %v, want the function's own error", err)
	}
	s.has(map[string]bool{"one": false})
}

func (s *suite) failingStatement() {
	err := s.write(func(tx *database.Tx) error {
		if err := add("one")(tx); err != nil {
			return err
		}
		if _, err := tx.Exec("INSERT INTO nowhere VALUES (1)"); err == nil {
			s.Error("a statement on a table that is not there succeeds")
		}
		if err := add("two")(tx); err == nil {
			s.Error("a statement after a failed one succeeds")
		}
		if err := tx.QueryRow("SELECT 1").Scan(new(int)); err == nil {
			s.Error("a query after a failed statement succeeds")
		}
		if rows, err := tx.Query("SELECT 1"); err == nil {
			rows.Close()
			s.Error("a query after a failed statement succeeds")
		}
		return nil
	})
	if err == nil || database.IsTemporary(err) {
		s.Errorf("got %v, want the failed statement's error", err)
	}
	s.has(map[string]bool{"one": false, "two": false})
}

func (s *suite) neighbours() {
	errs := s.group(add("a"), fails("b"), add("c"), func(tx *database.Tx) error {
		_ = add("d")(tx)
		_, _ = tx.Exec("INSERT INTO nowhere VALUES (1)")
		return nil
	}, add("a"), add("e"))
	for i, want := range []bool{true, false, true, false, false, true} {
		if (errs[i] == nil) != want {
			s.Errorf("member %d: %v, want success %t", i, errs[i], want)
		}
	}
	if !errors.Is(errs[1], errMine) || !database.IsUnique(errs[4]) {
		s.Errorf("members got each other's errors: %v", errs)
	}
	s.has(map[string]bool{"a": true, "b": false, "c": true, "d": false, "e": true})
}

func (s *suite) failingFirst() {
	errs := s.group(fails("a"), fails("b"), add("c"), fails("d"), add("e"))
	for i, want := range []bool{false, false, true, false, true} {
		if (errs[i] == nil) != want {
			s.Errorf("member %d: %v, want success %t", i, errs[i], want)
		}
	}
	s.has(map[string]bool{"a": false, "b": false, "c": true, "d": false, "e": true})
}

func (s *suite) panics() {
	errs := s.group(add("a"), func(tx *database.Tx) error {
		_ = add("b")(tx)
		panic("oh")
	}, add("c"), func(*database.Tx) error { panic(errMine) })
	for i, want := range []any{nil, "oh", nil, errMine} {
		p, panicked := errors.AsType[*database.Panic](errs[i])
		if panicked != (want != nil) || panicked && (p.Value != want || len(p.Stack) == 0) {
			s.Errorf("member %d: %v, want a panic with %v", i, errs[i], want)
		}
	}
	s.has(map[string]bool{"a": true, "b": false, "c": true})
	s.mustWrite(add("d"))
}

func (s *suite) cancelled() {
	release := s.hold()
	ctx, cancel := context.WithCancel(s.Context())
	var ran bool
	done := make(chan error)
	go func() {
		done <- s.db.Write(ctx, func(tx *database.Tx) error { ran = true; return add("a")(tx) })
	}()
	synctest.Wait()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		s.Errorf("got %v, want context.Canceled while the writer is busy", err)
	}
	release()
	s.mustWrite(add("b"))
	if ran {
		s.Error("a write that was given up ran all the same")
	}
	if err := s.db.Write(ctx, add("c")); !errors.Is(err, context.Canceled) {
		s.Errorf("cancelled before: %v", err)
	}
	if err := s.db.Read(ctx, func(*database.Tx) error { return nil }); err != nil && !errors.Is(err, context.Canceled) {
		s.Errorf("cancelled read: %v", err)
	}
	s.has(map[string]bool{"a": false, "b": true, "c": false})
}

func (s *suite) startedIsWaitedFor() {
	ctx, cancel := context.WithCancel(s.Context())
	gate := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- s.db.Write(ctx, func(tx *database.Tx) error {
			<-gate
			return add("a")(tx)
		})
	}()
	synctest.Wait()
	cancel()
	synctest.Wait()
	select {
	case err := <-done:
		s.Fatalf("Write returned %v while its function runs", err)
	default:
	}
	close(gate)
	if err := <-done; err != nil {
		s.Errorf("got %v: a cancelled caller's write that has started is kept", err)
	}
	s.has(map[string]bool{"a": true})
}

func (s *suite) oneState() {
	s.mustWrite(add("a"))
	err := s.db.Read(s.Context(), func(tx *database.Tx) error {
		var before, after int
		if err := tx.QueryRow("SELECT count(*) FROM notes").Scan(&before); err != nil {
			return err
		}
		s.mustWrite(add("b"))
		if err := tx.QueryRow("SELECT count(*) FROM notes").Scan(&after); err != nil {
			return err
		}
		if before != 1 || after != before {
			s.Errorf("%d notes, then %d, in one reading transaction", before, after)
		}
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) readOnly() {
	if err := s.db.Read(s.Context(), add("a")); err == nil {
		s.Error("a reading transaction wrote")
	}
	if err := s.db.Read(s.Context(), func(tx *database.Tx) error { return tx.Raise("x") }); err == nil {
		s.Error("a reading transaction raised a generation")
	}
	if err := s.db.Read(s.Context(), func(tx *database.Tx) error { return tx.Tell("x") }); err == nil {
		s.Error("a reading transaction raised a generation")
	}
	if err := caught(func() error { return s.db.Read(s.Context(), func(*database.Tx) error { panic(errMine) }) }); !errors.Is(err, errMine) {
		s.Errorf("panic while reading: %v", err)
	}
	s.has(map[string]bool{"a": false})
}

func (s *suite) unique() {
	s.mustWrite(add("a"))
	if err := s.write(add("a")); !database.IsUnique(err) || database.IsTemporary(err) {
		s.Errorf("got %v, want an error about a unique key", err)
	}
	if database.IsUnique(errMine) || database.IsTemporary(errMine) {
		s.Error("any error is about a unique key, or temporary")
	}
}

func (s *suite) openRows() {
	s.mustWrite(func(tx *database.Tx) error {
		if err := errors.Join(add("a")(tx), add("b")(tx)); err != nil {
			return err
		}
		rows, err := tx.Query("SELECT text FROM notes")
		if err == nil {
			rows.Next() // and neither read to the end nor closed
		}
		return err
	})
	s.mustWrite(add("c"))
	s.has(map[string]bool{"a": true, "c": true})
}

func ticked(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// raise and tell are functions that raise the kind, and tell of it.
func raise(kind string) func(*database.Tx) error {
	return func(tx *database.Tx) error { return tx.Raise(kind) }
}

func tell(kind string) func(*database.Tx) error {
	return func(tx *database.Tx) error { return errors.Join(tx.Tell(kind), tx.Tell(kind)) }
}

func (s *suite) watch() {
	s.watchFor(raise)
	s.watchFor(tell)
}

func (s *suite) watchFor(raise func(kind string) func(*database.Tx) error) {
	mine, stopMine := s.db.Watch("mine")
	also, stopAlso := s.db.Watch("mine")
	other, stopOther := s.db.Watch("other")
	defer stopOther()
	for range 3 {
		s.mustWrite(raise("mine"))
	}
	if !ticked(mine) || !ticked(also) || ticked(other) {
		s.Error("a generation that rose ticks for those who watch it and nobody else")
	}
	if ticked(mine) {
		s.Error("several changes that nobody looked at are one tick")
	}
	stopMine()
	s.mustWrite(raise("mine"))
	if ticked(mine) || !ticked(also) {
		s.Error("a watch that was stopped does not tick, and the others do")
	}
	stopAlso()
}

func (s *suite) noTick() {
	mine, stop := s.db.Watch("mine")
	defer stop()
	err := s.write(func(tx *database.Tx) error { return errors.Join(tx.Raise("mine"), tx.Tell("mine"), errMine) })
	if !errors.Is(err, errMine) {
		s.Fatal(err)
	}
	s.mustWrite(add("a"))
	if ticked(mine) {
		s.Error("a write that failed raised its generation")
	}
}

func (s *suite) closed() {
	release := s.hold()
	done := make(chan error)
	go func() { done <- s.write(add("waits")) }()
	synctest.Wait()
	closing := make(chan error)
	go func() { closing <- s.db.Close() }()
	synctest.Wait()
	release()
	if err := <-done; err != nil {
		s.Errorf("a write that waits when Close is called: %v, want it to be done", err)
	}
	if err := <-closing; err != nil {
		s.Error(err)
	}
	if err := s.write(add("late")); !errors.Is(err, database.ErrClosed) || !database.IsTemporary(err) {
		s.Errorf("write after Close: %v", err)
	}
	if err := s.db.Read(s.Context(), func(*database.Tx) error { return nil }); !errors.Is(err, database.ErrClosed) {
		s.Errorf("read after Close: %v", err)
	}
	if err := s.db.Close(); err != nil {
		s.Errorf("second Close: %v", err)
	}
}

func (s *suite) manyWriters() {
	const writers, each = 40, 25
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			for j := range each {
				fn, want := add(fmt.Sprint(i, j)), error(nil)
				if j%5 == 4 {
					fn, want = fails(fmt.Sprint(i, j)), errMine
				}
				if err := s.write(fn); !errors.Is(err, want) {
					s.Errorf("writer %d: %v, want %v", i, err, want)
				}
			}
		})
	}
	all.Wait()
	var n int
	err := s.db.Read(s.Context(), func(tx *database.Tx) error {
		return tx.QueryRow("SELECT count(*) FROM notes").Scan(&n)
	})
	if err != nil || n != writers*each*4/5 {
		s.Errorf("%d notes (%v), want %d", n, err, writers*each*4/5)
	}
}

func (s *suite) freeSpace() {
	if n, err := s.db.FreeSpace(); err != nil || n <= 0 {
		s.Errorf("%d octets free, %v", n, err)
	}
}

func (s *suite) alive() {
	alive := func() error {
		ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
		defer cancel()
		return s.db.Alive(ctx)
	}
	if err := alive(); err != nil {
		s.Error(err)
	}
	gate, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.write(func(*database.Tx) error {
			<-gate
			return nil
		})
	}()
	synctest.Wait()
	if err := alive(); !errors.Is(err, context.DeadlineExceeded) {
		s.Errorf("while a write never ends: %v", err)
	}
	close(gate)
	if err := <-done; err != nil {
		s.Error(err)
	}
	if err := alive(); err != nil {
		s.Errorf("after it has ended: %v", err)
	}
	if err := s.db.Close(); err != nil {
		s.Error(err)
	}
	if err := alive(); !errors.Is(err, database.ErrClosed) {
		s.Errorf("after Close: %v", err)
	}
}

func (s *suite) readRow() {
	s.mustWrite(add("a"))
	var text string
	if err := s.db.ReadRow(s.Context(), "SELECT text FROM notes WHERE text = ?", []any{"a"}, &text); err != nil || text != "a" {
		s.Errorf("%q, %v", text, err)
	}
	if err := s.db.ReadRow(s.Context(), "SELECT text FROM notes WHERE text = ?", []any{"b"}, &text); !errors.Is(err, sql.ErrNoRows) {
		s.Errorf("no such row: %v", err)
	}
	if err := s.db.ReadRow(s.Context(), "SELECT nothing FROM notes", nil, &text); err == nil || errors.Is(err, sql.ErrNoRows) {
		s.Errorf("a statement that is none: %v", err)
	}
	if err := s.db.ReadRow(s.Context(), "INSERT INTO notes (text) VALUES ('c') RETURNING text", nil, &text); err == nil {
		s.Error("a reader wrote")
	}
	gone, cancel := context.WithCancel(s.Context())
	cancel()
	if err := s.db.ReadRow(gone, "SELECT text FROM notes", nil, &text); !errors.Is(err, context.Canceled) {
		s.Errorf("with a context that has ended: %v", err)
	}
	s.has(map[string]bool{"a": true, "b": false, "c": false})
}
