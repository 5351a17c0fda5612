// Package mailboxtest is the conformance suite of package mailbox: what holds on every database that mail is kept in.
package mailboxtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/mailbox"
)

// suite is one store on one fresh database.
type suite struct {
	*testing.T
	db    *database.DB
	store *mailbox.Store
}

// Run runs the suite; open returns a fresh database, closed by a cleanup.
func Run(t *testing.T, open func(t *testing.T) *database.DB) {
	for _, test := range []struct {
		name string
		run  func(s *suite)
	}{
		{"delivered letter is read back", (*suite).readBack},
		{"prefix and mark are put in", (*suite).prefixAndMark},
		{"a letter that leaves is held", (*suite).held},
		{"one copy per mailbox", (*suite).oneCopy},
		{"uids and uidls are never given again", (*suite).neverAgain},
		{"failed write delivers nothing", (*suite).failedWrite},
		{"function that runs twice delivers once", (*suite).runsTwice},
		{"large letter is written ahead", (*suite).large},
		{"discarded letter leaves nothing", (*suite).discard},
		{"sweep frees what was never delivered", (*suite).sweep},
		{"wrong sizes are refused", (*suite).wrongSize},
		{"mark outside the body is refused", (*suite).wrongMark},
		{"deletion is exact", (*suite).deletion},
		{"message deleted while it is read", (*suite).deletedWhileRead},
		{"shared body lives until its last reference", (*suite).shared},
		{"erased account leaves nothing", (*suite).erase},
		{"empty account", (*suite).empty},
		{"watchers see deliveries and deletions", (*suite).watch},
	} {
		t.Run(test.name, func(t *testing.T) {
			db := open(t)
			store, err := mailbox.New(db, mailbox.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { store.Close() })
			test.run(&suite{T: t, db: db, store: store})
		})
	}
}

// Body returns n octets that look like no other n octets.
func Body(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func (s *suite) stage(body []byte) *mailbox.Staged {
	s.Helper()
	// A reader that gives odd pieces, as a network does.
	st, err := s.store.Stage(s.Context(), message.NewID(), int64(len(body)), iotest.HalfReader(bytes.NewReader(body)))
	if err != nil {
		s.Fatal(err)
	}
	return st
}

func (s *suite) deliver(st *mailbox.Staged, to ...mailbox.Delivery) (receipts []mailbox.Receipt) {
	s.Helper()
	err := s.db.Write(s.Context(), func(tx *database.Tx) (err error) {
		receipts, err = s.store.Deliver(tx, st, to)
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	return receipts
}

// letter delivers a body to the accounts and returns the first receipt.
func (s *suite) letter(body []byte, accounts ...int64) mailbox.Receipt {
	s.Helper()
	var to []mailbox.Delivery
	for _, a := range accounts {
		to = append(to, mailbox.Delivery{AccountID: a})
	}
	st := s.stage(body)
	r := s.deliver(st, to...)
	if err := st.Discard(s.Context()); err != nil {
		s.Fatal(err)
	}
	return r[0]
}

func (s *suite) read(account int64, uid uint32) []byte {
	s.Helper()
	r, size, err := s.store.Open(s.Context(), account, uid)
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		s.Fatal(err)
	}
	if int64(len(got)) != size {
		s.Errorf("message %d has %d octets, announced were %d", uid, len(got), size)
	}
	return got
}

func (s *suite) snapshot(account int64) *mailbox.Snapshot {
	s.Helper()
	snap, err := s.store.Snapshot(s.Context(), account)
	if err != nil {
		s.Fatal(err)
	}
	return snap
}

func (s *suite) usage(account int64, messages int, octets int64) {
	s.Helper()
	n, o, err := s.store.Usage(s.Context(), account)
	if err != nil || n != messages || o != octets {
		s.Errorf("account %d uses %d messages and %d octets (%v), want %d and %d", account, n, o, err, messages, octets)
	}
}

// rows counts a table's rows.
func (s *suite) rows(table string) (n int) {
	s.Helper()
	err := s.db.Read(s.Context(), func(tx *database.Tx) error {
		return tx.QueryRow("SELECT count(*) FROM " + table).Scan(&n)
	})
	if err != nil {
		s.Fatal(err)
	}
	return n
}

// nothingLeft sees that no body is kept, once all that is dead was freed.
func (s *suite) nothingLeft() {
	s.Helper()
	if err := s.store.Sweep(s.Context()); err != nil {
		s.Fatal(err)
	}
	for _, table := range []string{"messages", "blobs", "chunks"} {
		if n := s.rows(table); n != 0 {
			s.Errorf("%d rows left in %s", n, table)
		}
	}
}

// sizes lie around the borders of chunks, of what stays in memory and of what is written ahead in one go.
var sizes = []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 200_000, 1 << 20, 1<<20 + 1, 3<<19 + 7}

func (s *suite) readBack() {
	for _, size := range sizes {
		body := Body(size)
		r := s.letter(body, 7)
		if got := s.read(7, r.UID); !bytes.Equal(got, body) {
			s.Errorf("body of %d octets is read back differently", size)
		}
	}
	snap := s.snapshot(7)
	if snap.Len() != len(sizes) {
		s.Fatalf("%d messages listed, want %d", snap.Len(), len(sizes))
	}
	var octets int64
	for i, e := range snap.All() {
		if e.Size != int64(sizes[i]) || e != snap.At(i) {
			s.Errorf("message %d is %+v", i, e)
		}
		octets += e.Size
	}
	if snap.Octets() != octets || snap.UIDValidity == 0 {
		s.Errorf("%d octets, validity %d; want %d and a number", snap.Octets(), snap.UIDValidity, octets)
	}
	s.usage(7, len(sizes), octets)
}

func (s *suite) prefixAndMark() {
	for _, size := range sizes {
		body := Body(size)
		for _, at := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, size} {
			if at > size {
				continue
			}
			d := mailbox.Delivery{AccountID: 3, Prefix: []byte("Return-Path: <a@example.org>\r\n"), MarkAt: int64(at), Mark: "[suspicious] "}
			want := slices.Concat(d.Prefix, body[:at], []byte(d.Mark), body[at:])
			for _, to := range [][]mailbox.Delivery{{d}, {d, {AccountID: 4}}} {
				r := s.deliver(s.stage(body), to...)[0]
				if got := s.read(3, r.UID); !bytes.Equal(got, want) || r.Size != int64(len(want)) {
					s.Errorf("%d octets to %d with a mark at %d: read back differently, or size %d is not %d", size, len(to), at, r.Size, len(want))
				}
			}
		}
	}
}

func (s *suite) oneCopy() {
	st := s.stage([]byte("hello"))
	receipts := s.deliver(st,
		mailbox.Delivery{AccountID: 2, Prefix: []byte("first ")},
		mailbox.Delivery{AccountID: 1},
		mailbox.Delivery{AccountID: 2, Prefix: []byte("second ")})
	if len(receipts) != 2 {
		s.Fatalf("%d receipts, want one for each account", len(receipts))
	}
	if got := s.read(2, 1); string(got) != "first hello" {
		s.Errorf("got %q: the first delivery of an account counts", got)
	}
	s.usage(1, 1, 5)
	s.usage(2, 1, 11)
	if n := s.rows("blobs"); n != 1 {
		s.Errorf("%d bodies, want one for all", n)
	}
}

func (s *suite) neverAgain() {
	uidls := make(map[string]bool)
	last := uint32(0)
	for range 5 {
		r := s.letter([]byte("hello"), 1)
		if r.UID <= last || uidls[r.UIDL] {
			s.Fatalf("UID %d after %d, UIDL %s", r.UID, last, r.UIDL)
		}
		if len(r.UIDL) != 26 || strings.Trim(r.UIDL, "abcdefghijklmnopqrstuvwxyz234567") != "" {
			s.Fatalf("UIDL %q is not 26 characters of base32", r.UIDL)
		}
		if e := s.snapshot(1).At(0); e.UIDL.String() != r.UIDL {
			s.Fatalf("listed as %s, delivered as %s", e.UIDL, r.UIDL)
		}
		last, uidls[r.UIDL] = r.UID, true
		if err := s.store.Delete(s.Context(), 1, []uint32{r.UID}); err != nil {
			s.Fatal(err)
		}
	}
}

func (s *suite) failedWrite() {
	for _, size := range []int{5, 2 << 20} {
		st := s.stage(Body(size))
		mine := errors.New("mine")
		err := s.db.Write(s.Context(), func(tx *database.Tx) error {
			if _, err := s.store.Deliver(tx, st, []mailbox.Delivery{{AccountID: 1}, {AccountID: 2}}); err != nil {
				return err
			}
			return mine
		})
		if !errors.Is(err, mine) {
			s.Fatal(err)
		}
		s.usage(1, 0, 0)
		// The same letter can still be delivered.
		r := s.deliver(st, mailbox.Delivery{AccountID: 9})[0]
		if got := s.read(9, r.UID); !bytes.Equal(got, Body(size)) {
			s.Errorf("%d octets: differ", size)
		}
	}
}

func (s *suite) runsTwice() {
	for _, size := range []int{5, 2 << 20} {
		st := s.stage(Body(size))
		again := errors.New("again")
		deliver := func(tx *database.Tx) error {
			_, err := s.store.Deliver(tx, st, []mailbox.Delivery{{AccountID: 1}})
			return err
		}
		err := s.db.Write(s.Context(), func(tx *database.Tx) error { return errors.Join(deliver(tx), again) })
		if !errors.Is(err, again) {
			s.Fatal(err)
		}
		if err := s.db.Write(s.Context(), deliver); err != nil {
			s.Fatal(err)
		}
	}
	s.usage(1, 2, 5+2<<20)
	if n := s.rows("blobs"); n != 2 {
		s.Errorf("%d bodies, want 2", n)
	}
}

func (s *suite) large() {
	body := Body(2<<20 + 3)
	st := s.stage(body)
	if n := s.rows("chunks"); n != 33 {
		s.Errorf("%d chunks written ahead, want 33", n)
	}
	s.usage(1, 0, 0)
	receipts := s.deliver(st, mailbox.Delivery{AccountID: 1}, mailbox.Delivery{AccountID: 2})
	for range 2 {
		if err := st.Discard(s.Context()); err != nil {
			s.Fatal(err)
		}
	}
	for _, r := range receipts {
		if got := s.read(r.AccountID, r.UID); !bytes.Equal(got, body) {
			s.Errorf("account %d reads something else", r.AccountID)
		}
	}
}

func (s *suite) discard() {
	small, large := s.stage(Body(100)), s.stage(Body(9<<20))
	for _, st := range []*mailbox.Staged{small, large} {
		if err := st.Discard(s.Context()); err != nil {
			s.Fatal(err)
		}
		err := s.db.Write(s.Context(), func(tx *database.Tx) error {
			_, err := s.store.Deliver(tx, st, []mailbox.Delivery{{AccountID: 1}})
			return err
		})
		if err == nil {
			s.Error("a discarded letter was delivered")
		}
	}
	s.nothingLeft()
}

// held: a body that is held stays until it is released, whoever else has it, and is nobody else's afterwards.
func (s *suite) held() {
	for _, size := range sizes {
		body := Body(size)
		st := s.stage(body)
		var blob int64
		err := s.db.Write(s.Context(), func(tx *database.Tx) (err error) {
			if blob, err = s.store.Hold(tx, st); err != nil {
				return err
			}
			_, err = s.store.Deliver(tx, st, []mailbox.Delivery{{AccountID: 1, Prefix: []byte("x: y\r\n")}})
			return err
		})
		if err := errors.Join(err, st.Discard(s.Context()), s.store.Delete(s.Context(), 1, []uint32{s.snapshot(1).At(0).UID}), s.store.Sweep(s.Context())); err != nil {
			s.Fatal(err)
		}
		r, err := s.store.OpenHeld(s.Context(), blob, st.ID())
		if err != nil {
			s.Fatal(err)
		}
		if err := iotest.TestReader(io.MultiReader(r), body); err != nil {
			s.Errorf("%d octets: %v", size, err)
		}
		if err := r.Close(); err != nil {
			s.Error(err)
		}
		if _, err := r.Read(make([]byte, 1)); err == nil {
			s.Error("a closed letter is read")
		}
		if _, err := s.store.OpenHeld(s.Context(), blob, message.NewID()); !errors.Is(err, mailbox.ErrNoMessage) {
			s.Errorf("under another id: %v", err)
		}
		s.released(blob, st.ID())
	}
	s.nothingLeft()
}

// released releases a held body while it is read.
func (s *suite) released(blob int64, id message.ID) {
	r, err := s.store.OpenHeld(s.Context(), blob, id)
	if err != nil {
		s.Fatal(err)
	}
	defer r.Close()
	if err := s.db.Write(s.Context(), func(tx *database.Tx) error { return s.store.Release(tx, blob) }); err != nil {
		s.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, r); err == nil && n > 0 || err != nil && !errors.Is(err, mailbox.ErrNoMessage) {
		s.Errorf("reading a body that was released: %d octets, %v", n, err)
	}
	if _, err := s.store.OpenHeld(s.Context(), blob, id); !errors.Is(err, mailbox.ErrNoMessage) {
		s.Errorf("opening a body that was released: %v", err)
	}
}

func (s *suite) sweep() {
	st := s.stage(Body(9 << 20))
	kept := s.letter(Body(2<<20), 1)
	if err := s.store.Sweep(s.Context()); err != nil {
		s.Fatal(err)
	}
	err := s.db.Write(s.Context(), func(tx *database.Tx) error {
		_, err := s.store.Deliver(tx, st, []mailbox.Delivery{{AccountID: 1}})
		return err
	})
	if !database.IsTemporary(err) {
		s.Errorf("delivering what was swept: %v, want a temporary error", err)
	}
	if n := s.rows("blobs"); n != 1 {
		s.Errorf("%d bodies left, want the delivered one", n)
	}
	if got := s.read(1, kept.UID); !bytes.Equal(got, Body(2<<20)) {
		s.Error("the delivered one is read back differently")
	}
}

func (s *suite) wrongSize() {
	for _, size := range []int{10, 2 << 20} {
		for _, given := range []int{0, size - 1, size + 1} {
			_, err := s.store.Stage(s.Context(), message.NewID(), int64(size), bytes.NewReader(Body(given)))
			if err == nil {
				s.Errorf("%d octets announced, %d given: accepted", size, given)
			}
		}
	}
	if _, err := s.store.Stage(s.Context(), message.NewID(), -1, strings.NewReader("")); err == nil {
		s.Error("negative size accepted")
	}
	cut := errors.New("cut")
	_, err := s.store.Stage(s.Context(), message.NewID(), 3<<20, io.MultiReader(bytes.NewReader(Body(2<<20)), iotest.ErrReader(cut)))
	if !errors.Is(err, cut) {
		s.Errorf("body that cannot be read: %v", err)
	}
	s.nothingLeft()
}

func (s *suite) wrongMark() {
	st := s.stage([]byte("hello"))
	for _, at := range []int64{-1, 6} {
		err := s.db.Write(s.Context(), func(tx *database.Tx) error {
			_, err := s.store.Deliver(tx, st, []mailbox.Delivery{{AccountID: 1, MarkAt: at, Mark: "x"}})
			return err
		})
		if err == nil {
			s.Errorf("mark at %d accepted", at)
		}
	}
}

func (s *suite) deletion() {
	var all []uint32
	for i := range 20 {
		all = append(all, s.letter([]byte(fmt.Sprintf("letter %02d", i)), 1).UID)
	}
	other := s.letter([]byte("other"), 2)
	// Twice, out of order, and some that never were.
	gone := []uint32{all[3], all[19], all[4], all[0], all[4], 4_000_000_000, 77}
	for range 2 {
		if err := s.store.Delete(s.Context(), 1, gone); err != nil {
			s.Fatal(err)
		}
		s.usage(1, 16, 16*9)
	}
	for _, e := range s.snapshot(1).All() {
		if slices.Contains(gone, e.UID) {
			s.Errorf("message %d is still listed", e.UID)
		}
		if got, want := string(s.read(1, e.UID)), fmt.Sprintf("letter %02d", e.UID-1); got != want {
			s.Errorf("message %d is %q, want %q", e.UID, got, want)
		}
	}
	if _, _, err := s.store.Open(s.Context(), 1, all[3]); !errors.Is(err, mailbox.ErrNoMessage) {
		s.Errorf("deleted message opens: %v", err)
	}
	if got := s.read(2, other.UID); string(got) != "other" {
		s.Errorf("another account's message is %q", got)
	}
	if n := s.rows("tombstones"); n != 3 {
		s.Errorf("%d ranges of deleted messages, want 1, 4-5 and 20", n)
	}
	if err := s.store.Delete(s.Context(), 99, gone); err != nil {
		s.Errorf("account without mail: %v", err)
	}
	if err := s.store.Delete(s.Context(), 1, all); err != nil {
		s.Fatal(err)
	}
	if err := s.store.Delete(s.Context(), 2, []uint32{other.UID}); err != nil {
		s.Fatal(err)
	}
	s.nothingLeft()
}

func (s *suite) deletedWhileRead() {
	for _, again := range []bool{false, true} {
		body := Body(300_000)
		got := s.letter(body, 1)
		r, _, err := s.store.Open(s.Context(), 1, got.UID)
		if err != nil {
			s.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, r, 100_000); err != nil {
			s.Fatal(err)
		}
		if err := s.store.Delete(s.Context(), 1, []uint32{got.UID}); err != nil {
			s.Fatal(err)
		}
		if again { // the freed body's place is taken by somebody else's
			if err := s.store.Sweep(s.Context()); err != nil {
				s.Fatal(err)
			}
			s.letter(Body(300_001), 2)
		}
		rest, err := io.ReadAll(r)
		if !errors.Is(err, mailbox.ErrNoMessage) {
			s.Errorf("reading on gives %d octets and %v, want ErrNoMessage", len(rest), err)
		}
		if !bytes.HasPrefix(body[100_000:], rest) {
			s.Error("reading on gave another message's octets")
		}
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, mailbox.ErrNoMessage) {
			s.Errorf("and then %v, want the same error", err)
		}
		r.Close()
	}
}

func (s *suite) shared() {
	body := Body(70_000)
	r := s.letter(body, 1, 2, 3)
	for _, account := range []int64{1, 3} {
		if err := s.store.Delete(s.Context(), account, []uint32{r.UID}); err != nil {
			s.Fatal(err)
		}
		if err := s.store.Sweep(s.Context()); err != nil {
			s.Fatal(err)
		}
		if got := s.read(2, r.UID); !bytes.Equal(got, body) {
			s.Fatal("the last one's body changed")
		}
	}
	if err := s.store.Delete(s.Context(), 2, []uint32{r.UID}); err != nil {
		s.Fatal(err)
	}
	s.nothingLeft()
}

func (s *suite) erase() {
	both := s.letter(Body(70_000), 1, 2)
	for range 3 {
		s.letter(Body(9<<20), 1)
	}
	if err := s.store.Delete(s.Context(), 1, []uint32{2}); err != nil {
		s.Fatal(err)
	}
	if err := s.store.Erase(s.Context(), 1); err != nil {
		s.Fatal(err)
	}
	s.usage(1, 0, 0)
	if n := s.snapshot(1).Len(); n != 0 {
		s.Errorf("%d messages listed after erasing", n)
	}
	if n := s.rows("mailboxes"); n != 1 {
		s.Errorf("%d mailboxes, want the other account's", n)
	}
	if got := s.read(2, both.UID); !bytes.Equal(got, Body(70_000)) {
		s.Error("the other account's letter changed")
	}
	if err := s.store.Erase(s.Context(), 2); err != nil {
		s.Fatal(err)
	}
	s.nothingLeft()
}

func (s *suite) empty() {
	s.usage(1, 0, 0)
	if n := s.snapshot(1).Len(); n != 0 {
		s.Errorf("%d messages", n)
	}
	if _, _, err := s.store.Open(s.Context(), 1, 1); !errors.Is(err, mailbox.ErrNoMessage) {
		s.Errorf("open: %v", err)
	}
	if err := s.store.Delete(s.Context(), 1, []uint32{1}); err != nil {
		s.Errorf("delete: %v", err)
	}
	if err := s.store.Erase(s.Context(), 1); err != nil {
		s.Errorf("erase: %v", err)
	}
}

func (s *suite) watch() {
	changed, stop := s.db.Watch("mailbox")
	defer stop()
	r := s.letter([]byte("hello"), 1)
	<-changed
	if err := s.store.Delete(s.Context(), 1, []uint32{r.UID}); err != nil {
		s.Fatal(err)
	}
	<-changed
}
