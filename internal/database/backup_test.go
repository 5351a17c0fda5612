package database

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestBackup copies a database while it is written to: the copy opens, and holds exactly what one moment held.
func TestBackup(t *testing.T) {
	db, err := Open(t.Context(), Options{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Write(t.Context(), func(tx *Tx) error {
		_, err := tx.Exec("CREATE TABLE pairs (n INTEGER NOT NULL PRIMARY KEY, half TEXT NOT NULL)")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	begun := make(chan struct{})
	writing.Go(func() {
		for n := 0; ctx.Err() == nil; n += 2 {
			err := db.Write(ctx, func(tx *Tx) error {
				_, err := tx.Exec("INSERT INTO pairs (n, half) VALUES (?, hex(zeroblob(500))), (?, 'b')", n, n+1)
				return err
			})
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
				return
			}
			if n == 200 {
				close(begun)
			}
		}
	})
	<-begun
	restored := filepath.Join(t.TempDir(), "postroom.db")
	f, err := os.OpenFile(restored, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	octets, err := db.Backup(t.Context(), f)
	stop()
	writing.Wait()
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(restored); err != nil || info.Size() != octets || octets == 0 {
		t.Errorf("%d octets, %v, %v", octets, info, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(db.File()), "backup-*")); left != nil {
		t.Errorf("left behind: %q", left)
	}

	again, err := Open(t.Context(), Options{DataDir: filepath.Dir(restored)})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	var rows, highest, vacuum int
	if err := again.ReadRow(t.Context(), "SELECT auto_vacuum FROM pragma_auto_vacuum", nil, &vacuum); err != nil || vacuum != 2 {
		t.Errorf("auto_vacuum is %d, %v: a restored database would never shrink", vacuum, err)
	}
	if err := again.ReadRow(t.Context(), "SELECT count(*), max(n) FROM pairs", nil, &rows, &highest); err != nil || rows != highest+1 || rows%2 != 0 || rows < 200 {
		t.Errorf("%d rows up to %d, %v", rows, highest, err)
	}
}

// TestBackupFails shows that a backup that cannot be written says so, and leaves nothing behind.
func TestBackupFails(t *testing.T) {
	db, err := Open(t.Context(), Options{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tc := range []struct {
		name string
		ctx  context.Context
		to   io.Writer
	}{
		{"nowhere to write", t.Context(), full{}},
		{"interrupted", ended, new(bytes.Buffer)},
	} {
		if _, err := db.Backup(tc.ctx, tc.to); err == nil {
			t.Errorf("%s: no error", tc.name)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(db.File()), "backup-*")); left != nil {
			t.Errorf("%s: left behind: %q", tc.name, left)
		}
	}
	if err := db.Alive(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, fmt.Errorf("write: %w", ErrDiskFull) }
