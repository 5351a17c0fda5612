package tlsconf

import (
	"context"
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/secret"
)

// sealer opens what is sealed in tests.
func sealer(t *testing.T) *secret.Sealer {
	t.Helper()
	key, err := secret.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	return key.For("tls")
}

// TestStorage is the conformance suite of what the ACME library relies on, in bubbles: nodes are two storages on one database.
func TestStorage(t *testing.T) {
	for _, tc := range []struct {
		name string
		run  func(t *testing.T, a, b *storage)
	}{
		{"values", storageValues},
		{"names below names", storageTree},
		{"sealed", storageSealed},
		{"one at a time", storageOneAtATime},
		{"a lock runs out", storageRunsOut},
		{"a lock is kept", storageKept},
		{"a lock that is lost", storageLost},
		{"waiting ends", storageWaitEnds},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := databasetest.Open(t)
				tc.run(t, newStorage(db, sealer(t)), newStorage(db, sealer(t)))
			})
		})
	}
}

func put(t *testing.T, s *storage, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := s.Store(t.Context(), name, []byte("value of "+name)); err != nil {
			t.Fatal(err)
		}
	}
}

func storageValues(t *testing.T, a, b *storage) {
	put(t, a, "acme/ca/x.json")
	got, err := b.Load(t.Context(), "acme/ca/x.json")
	if err != nil || string(got) != "value of acme/ca/x.json" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := b.Store(t.Context(), "acme/ca/x.json", []byte("")); err != nil {
		t.Fatal(err)
	}
	info, err := a.Stat(t.Context(), "acme/ca/x.json")
	if err != nil || !info.IsTerminal || info.Size != 0 || !info.Modified.Equal(time.Now().Truncate(time.Millisecond)) {
		t.Errorf("got %+v, %v", info, err)
	}
	if got, err := a.Load(t.Context(), "acme/ca/x.json"); err != nil || len(got) != 0 {
		t.Errorf("overwritten, got %q, %v", got, err)
	}
	_, loadErr := a.Load(t.Context(), "acme/ca")
	_, statErr := a.Stat(t.Context(), "acme/c")
	_, listErr := a.List(t.Context(), "nothing", true)
	for what, err := range map[string]error{"load": loadErr, "stat": statErr, "list": listErr} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of what is not there: %v", what, err)
		}
	}
	if err := a.Delete(t.Context(), "nothing"); err != nil {
		t.Errorf("delete of what is not there: %v", err)
	}
}

func storageTree(t *testing.T, a, _ *storage) {
	put(t, a, "a/b/c", "a/b/d", "a/bb", "a/b_/e", "ab")
	for _, tc := range []struct {
		name      string
		recursive bool
		want      string
	}{
		{"a", false, "a/b a/b_ a/bb"},
		{"a", true, "a/b a/b/c a/b/d a/b_ a/b_/e a/bb"},
		{"a/b", false, "a/b/c a/b/d"},
		{"", false, "a ab"},
	} {
		got, err := a.List(t.Context(), tc.name, tc.recursive)
		if err != nil || strings.Join(got, " ") != tc.want {
			t.Errorf("list %q, recursive %t: %v, %v; want %s", tc.name, tc.recursive, got, err, tc.want)
		}
	}
	if info, err := a.Stat(t.Context(), "a/b"); err != nil || info.IsTerminal {
		t.Errorf("a directory is %+v, %v", info, err)
	}
	if err := a.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"a/b": false, "a/b/c": false, "a/bb": true, "a/b_/e": true, "a": true, "ab": true} {
		if got := a.Exists(t.Context(), name); got != want {
			t.Errorf("%s exists %t, want %t", name, got, want)
		}
	}
}

func storageSealed(t *testing.T, a, _ *storage) {
	put(t, a, "key")
	var sealed []byte
	if err := a.db.ReadRow(t.Context(), "SELECT value FROM tls_assets", nil, &sealed); err != nil || strings.Contains(string(sealed), "value") {
		t.Errorf("in the database: %q, %v", sealed, err)
	}
	key, err := secret.New([]byte(strings.Repeat("x", 32)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newStorage(a.db, key.For("tls")).Load(t.Context(), "key"); !errors.Is(err, secret.ErrSealed) {
		t.Errorf("with another key: %v", err)
	}
}

func storageOneAtATime(t *testing.T, a, b *storage) {
	inside, runs := 0, 0
	var all sync.WaitGroup
	for i := range 8 {
		s := []*storage{a, b}[i%2]
		all.Go(func() {
			if err := s.Lock(t.Context(), "order"); err != nil {
				t.Error(err)
				return
			}
			if inside++; inside != 1 {
				t.Error("two at once")
			}
			time.Sleep(3 * time.Second)
			inside--
			runs++
			if err := s.Unlock(t.Context(), "order"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if taken, err := a.TryLock(t.Context(), "order"); runs != 8 || !taken || err != nil {
		t.Errorf("%d ran; at the end the lock is free: %t, %v", runs, taken, err)
	}
	if taken, err := a.TryLock(t.Context(), "other"); !taken || err != nil {
		t.Errorf("another lock: %t, %v", taken, err)
	}
}

func storageRunsOut(t *testing.T, a, b *storage) {
	if taken, err := a.TryLock(t.Context(), "order"); !taken || err != nil {
		t.Fatal(taken, err)
	}
	time.Sleep(lockLease - time.Second)
	if taken, _ := b.TryLock(t.Context(), "order"); taken {
		t.Error("taken before its time was up")
	}
	began := time.Now()
	if err := b.Lock(t.Context(), "order"); err != nil || time.Since(began) > 2*lockPoll {
		t.Errorf("taken over after %v, %v", time.Since(began), err)
	}
	if err := a.Unlock(t.Context(), "order"); err != nil {
		t.Error(err)
	}
	if taken, _ := a.TryLock(t.Context(), "order"); taken {
		t.Error("who was late gave back the lock of the other")
	}
	if err := a.RenewLockLease(t.Context(), "order", time.Hour); !errors.Is(err, errLockLost) {
		t.Errorf("renewed what the other has: %v", err)
	}
}

func storageKept(t *testing.T, a, b *storage) {
	done, err := a.whileLocked(t.Context(), "order", func(ctx context.Context) {
		time.Sleep(10 * lockLease)
		if taken, _ := b.TryLock(t.Context(), "order"); taken || ctx.Err() != nil {
			t.Errorf("taken %t while it was worked on, %v", taken, ctx.Err())
		}
		if again, err := b.whileLocked(t.Context(), "order", func(context.Context) { t.Error("two at once") }); again || err != nil {
			t.Error(again, err)
		}
	})
	if taken, err2 := b.TryLock(t.Context(), "order"); !done || err != nil || !taken || err2 != nil {
		t.Errorf("done %t, %v; free again %t, %v", done, err, taken, err2)
	}
}

func storageLost(t *testing.T, a, _ *storage) {
	_, err := a.whileLocked(t.Context(), "order", func(ctx context.Context) {
		if err := a.db.Write(t.Context(), deleteLocks); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), errLockLost) {
			t.Errorf("ended by %v", context.Cause(ctx))
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func deleteLocks(tx *database.Tx) error {
	_, err := tx.Exec("DELETE FROM tls_locks")
	return err
}

func storageWaitEnds(t *testing.T, a, b *storage) {
	if _, err := a.TryLock(t.Context(), "order"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.Lock(ctx, "order"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestStore shows that rows survive what happens to them: names that come, go and come back keep their key.
func TestStore(t *testing.T) {
	db := databasetest.Open(t)
	s := NewStore(db, sealer(t))
	ctx := t.Context()
	names := func() (all []string) {
		t.Helper()
		list, err := s.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range list {
			all = append(all, v.Name)
		}
		return all
	}
	manage := func(all ...string) {
		t.Helper()
		if err := s.manage(ctx, testHost, all); err != nil {
			t.Fatal(err)
		}
		if got := names(); !reflect.DeepEqual(got, all) {
			t.Errorf("managed %v, want %v", got, all)
		}
	}
	manage("a.example", "b.example")
	before, err := s.Keys(ctx, "b.example")
	if err != nil {
		t.Fatal(err)
	}
	manage("a.example")
	for what, err := range map[string]error{"renew": s.Renew(ctx, "b.example"), "renew nothing": s.Renew(ctx, "c.example")} {
		if !errors.Is(err, ErrUnknownName) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.Roll(ctx, "b.example"); !errors.Is(err, ErrUnknownName) {
		t.Errorf("roll: %v", err)
	}
	manage("a.example", "b.example")
	if after, err := s.Keys(ctx, "b.example"); err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("the key was %v, is %v, %v", before, after, err)
	}
	if err := s.manage(ctx, "other.example", []string{"b.example", "other.example"}); err != nil { // another node
		t.Fatal(err)
	}
	if err := s.manage(ctx, testHost, []string{"a.example"}); err != nil {
		t.Fatal(err)
	}
	if got := names(); !reflect.DeepEqual(got, []string{"a.example", "b.example", "other.example"}) {
		t.Errorf("two nodes ask for %v", got)
	}
	for i, want := range []bool{true, false} {
		if made, err := s.Roll(ctx, "b.example"); made != want || err != nil {
			t.Errorf("roll %d made %t, %v", i, made, err)
		}
	}
	rolling, err := s.Keys(ctx, "b.example")
	if err != nil || len(rolling) != 2 || rolling[0].Next || !rolling[1].Next || !reflect.DeepEqual(rolling[0], before[0]) {
		t.Errorf("while rolling %v, %v", rolling, err)
	}
}
