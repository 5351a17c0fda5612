package mailbox_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/mailbox"
	"github.com/postroom/postroom/mailbox/mailboxtest"
)

// crashDir, in the environment, makes the test binary the process that is killed.
const crashDir = "POSTROOM_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := crashing(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

const (
	crashWorkers  = 8
	crashAccounts = 3
)

// crashing delivers and deletes letters until it is killed. Each acknowledgement is a line: what was done, letter, account, UID.
func crashing(ctx context.Context, dir string) error {
	db, err := database.Open(ctx, database.Options{DataDir: dir, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		return err
	}
	if err := db.LockServer(); err != nil {
		return err
	}
	store, err := mailbox.New(db, mailbox.Options{})
	if err != nil {
		return err
	}
	if err := store.Sweep(ctx); err != nil {
		return err
	}
	var workers sync.WaitGroup
	for range crashWorkers {
		workers.Go(func() {
			for {
				if err := crashingLetter(ctx, db, store); err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
			}
		})
	}
	workers.Wait()
	return db.Close()
}

// crashingLetter delivers one letter to all accounts, and sometimes deletes it from the first.
func crashingLetter(ctx context.Context, db *database.DB, store *mailbox.Store) error {
	number := rand.Uint64()
	content := crashBody(number)
	st, err := store.Stage(ctx, message.NewID(), int64(len(content)), bytes.NewReader(content))
	if err != nil {
		return err
	}
	var to []mailbox.Delivery
	for account := range int64(crashAccounts) {
		to = append(to, mailbox.Delivery{AccountID: account})
	}
	var receipts []mailbox.Receipt
	err = db.Write(ctx, func(tx *database.Tx) (err error) {
		receipts, err = store.Deliver(tx, st, to)
		return err
	})
	if err != nil {
		return err
	}
	for _, r := range receipts {
		fmt.Printf("kept %d %d %d\n", number, r.AccountID, r.UID)
	}
	if number%4 == 0 {
		if err := store.Delete(ctx, 0, []uint32{receipts[0].UID}); err != nil {
			return err
		}
		fmt.Printf("gone %d %d %d\n", number, 0, receipts[0].UID)
	}
	return nil
}

// crashBody returns the letter of that number: the number, a checksum, and octets that the number gives. Some are large
// enough to be written ahead.
func crashBody(number uint64) []byte {
	size := 16 + int(number%20_000)
	if number%50 == 0 {
		size += 1 << 20
	}
	b := make([]byte, 16, size)
	binary.BigEndian.PutUint64(b, number)
	b = append(b, mailboxtest.Body(size-16)...)
	binary.BigEndian.PutUint32(b[8:], crc32.ChecksumIEEE(b[16:]))
	return b
}

// place is where an acknowledged letter lies.
type place struct {
	account int64
	uid     uint32
}

// TestKilled kills a process that delivers, again and again: what it acknowledged is there, once and whole, and what it
// acknowledged as deleted is not.
func TestKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	dir := t.TempDir()
	kept, gone := make(map[place]uint64), make(map[place]bool)
	acknowledged := 0
	for cycle := range 10 {
		acknowledged += killOnce(t, dir, 200+rand.IntN(400), kept, gone)
		verify(t, dir, kept, gone)
		if t.Failed() {
			t.Fatalf("in cycle %d", cycle)
		}
	}
	t.Logf("%d acknowledged, %d deleted", acknowledged, len(gone))
}

// killOnce runs the process until it has acknowledged so many, then kills it.
func killOnce(t *testing.T, dir string, after int, kept map[place]uint64, gone map[place]bool) (acknowledged int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var (
			what   string
			number uint64
			p      place
		)
		if _, err := fmt.Sscan(lines.Text(), &what, &number, &p.account, &p.uid); err != nil {
			break // the last line may be cut
		}
		if what == "gone" {
			gone[p] = true
		} else {
			if was, ok := kept[p]; ok && was != number {
				t.Errorf("%v was given to letter %d and then to %d", p, was, number)
			}
			kept[p] = number
		}
		if acknowledged++; acknowledged == after {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	if acknowledged < after {
		t.Fatalf("the process ended after %d of %d", acknowledged, after)
	}
	return acknowledged
}

// verify opens the database as the next start does and compares.
func verify(t *testing.T, dir string, kept map[place]uint64, gone map[place]bool) {
	t.Helper()
	db := databasetest.OpenIn(t, dir)
	store := newStore(t, db)
	if err := store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	var integrity string
	var staged int
	err := db.Read(t.Context(), func(tx *database.Tx) error {
		if err := tx.QueryRow("PRAGMA integrity_check").Scan(&integrity); err != nil {
			return err
		}
		return tx.QueryRow("SELECT count(*) FROM blobs WHERE refs <= 0").Scan(&staged)
	})
	if err != nil || integrity != "ok" || staged != 0 {
		t.Errorf("integrity: %s (%v), %d bodies that nobody has", integrity, err, staged)
	}
	there := make(map[place]bool)
	for account := range int64(crashAccounts) {
		seen := make(map[uint64]bool)
		snap, err := store.Snapshot(t.Context(), account)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range snap.All() {
			number := verifyLetter(t, store, account, e)
			if seen[number] {
				t.Errorf("account %d has letter %d twice", account, number)
			}
			p := place{account, e.UID}
			if want, ok := kept[p]; ok && want != number {
				t.Errorf("%v is letter %d, acknowledged was %d", p, number, want)
			}
			seen[number], there[p] = true, true
		}
		if n, octets, err := store.Usage(t.Context(), account); err != nil || n != snap.Len() || octets != snap.Octets() {
			t.Errorf("account %d uses %d, %d octets (%v), listed are %d, %d", account, n, octets, err, snap.Len(), snap.Octets())
		}
	}
	for p, number := range kept {
		// Letters that are deleted may be so without the acknowledgement having come through.
		if !there[p] && !gone[p] && (p.account != 0 || number%4 != 0) {
			t.Errorf("letter %d, acknowledged at %v, is lost", number, p)
		}
	}
	for p := range gone {
		if there[p] {
			t.Errorf("%v, acknowledged as deleted, is there", p)
		}
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// verifyLetter reads a letter, compares its checksum and returns its number.
func verifyLetter(t *testing.T, store *mailbox.Store, account int64, e mailbox.Entry) uint64 {
	t.Helper()
	r, size, err := store.Open(t.Context(), account, e.UID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil || int64(len(content)) != size || size != e.Size || size < 16 {
		t.Fatalf("account %d, message %d: %d octets of %d and %d, %v", account, e.UID, len(content), size, e.Size, err)
	}
	if binary.BigEndian.Uint32(content[8:]) != crc32.ChecksumIEEE(content[16:]) {
		t.Errorf("account %d, message %d: its content changed", account, e.UID)
	}
	return binary.BigEndian.Uint64(content)
}
