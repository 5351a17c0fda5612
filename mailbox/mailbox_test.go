package mailbox_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/mailbox"
	"github.com/postroom/postroom/mailbox/mailboxtest"
)

func TestOnSQLite(t *testing.T) {
	mailboxtest.Run(t, func(t *testing.T) *database.DB { return databasetest.Open(t) })
}

// TestBigDeletion deletes a big inbox while letters go on arriving: they wait for the unlinking at most, and not for the
// bodies to be freed.
func TestBigDeletion(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const n = 10_000
	for _, test := range []struct {
		name string
		pick func(uid uint32) bool
	}{
		{"all", func(uint32) bool { return true }},
		{"every second", func(uid uint32) bool { return uid%2 == 0 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			db := databasetest.Open(t)
			store := newStore(t, db)
			fillSeparately(t, db, store, 1, n)
			snap, err := store.Snapshot(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			var uids []uint32
			for _, e := range snap.All() {
				if test.pick(e.UID) {
					uids = append(uids, e.UID)
				}
			}
			began := time.Now()
			if err := store.Delete(t.Context(), 1, uids); err != nil {
				t.Fatal(err)
			}
			unlinked := time.Since(began)
			var longest time.Duration
			for i := range 50 {
				began := time.Now()
				if err := deliver(t, db, store, []byte("hello"), mailbox.Delivery{AccountID: int64(2 + i)}); err != nil {
					t.Fatal(err)
				}
				longest = max(longest, time.Since(began))
			}
			left, _, err := store.Usage(t.Context(), 1)
			if err != nil || left != n-len(uids) {
				t.Errorf("%d messages left (%v), want %d", left, err, n-len(uids))
			}
			t.Logf("%d of %d unlinked in %v; a delivery meanwhile waited at most %v", len(uids), n, unlinked, longest)
			if err := store.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			var bodies int
			err = db.Read(t.Context(), func(tx *database.Tx) error {
				return tx.QueryRow("SELECT count(*) FROM blobs").Scan(&bodies)
			})
			if want := n - len(uids) + 50; err != nil || bodies != want {
				t.Errorf("%d bodies left (%v), want %d", bodies, err, want)
			}
		})
	}
}

// fillSeparately delivers n letters, each with a body of its own.
func fillSeparately(t testing.TB, db *database.DB, store *mailbox.Store, account int64, n int) {
	t.Helper()
	body := mailboxtest.Body(3000)
	st, err := store.Stage(t.Context(), message.NewID(), int64(len(body)), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for n > 0 {
		some := min(n, 5000)
		err := db.Write(t.Context(), func(tx *database.Tx) error {
			for range some {
				if _, err := store.Deliver(tx, st, []mailbox.Delivery{{AccountID: account}}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		n -= some
	}
}

// FuzzOpen reads back any prefix, mark and body, whatever the pieces are that they are read in.
func FuzzOpen(f *testing.F) {
	db := databasetest.Open(f)
	store := newStore(f, db)
	for _, size := range []uint32{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 128 << 10, 1 << 20, 1<<20 + 1} {
		for _, at := range []uint32{0, 1, 64 << 10, size} {
			f.Add([]byte("Return-Path: <>\r\n"), "[suspicious] ", at, size, uint16(1000))
		}
	}
	f.Add([]byte(nil), "", uint32(0), uint32(5), uint16(1))
	account := int64(0)
	f.Fuzz(func(t *testing.T, prefix []byte, mark string, at, size uint32, piece uint16) {
		size %= 2 << 20
		at %= size + 1
		body := mailboxtest.Body(int(size))
		account++
		to := []mailbox.Delivery{{AccountID: account, Prefix: prefix, MarkAt: int64(at), Mark: mark}}
		if piece%2 == 1 { // one more, so that the body is shared
			to = append(to, mailbox.Delivery{AccountID: -1})
		}
		if err := deliver(t, db, store, body, to...); err != nil {
			t.Fatal(err)
		}
		r, n, err := store.Open(t.Context(), account, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var got bytes.Buffer
		buf := make([]byte, int(piece)+1)
		if _, err := io.CopyBuffer(struct{ io.Writer }{&got}, r, buf); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("%s%s%s%s", prefix, body[:at], mark, body[at:])
		if got.String() != want || n != int64(len(want)) {
			t.Errorf("prefix %d, mark %d at %d of %d: read back differently; size %d, want %d", len(prefix), len(mark), at, size, n, len(want))
		}
		if err := store.Delete(t.Context(), account, []uint32{1}); err != nil {
			t.Fatal(err)
		}
	})
}
