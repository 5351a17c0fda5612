package database

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"testing"
)

// faultDir, in the environment, makes the test binary the process whose disk fails.
const faultDir = "POSTROOM_FAULT_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(faultDir); dir != "" {
		if err := failing(context.Background(), dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestWriteErrors runs in a process of its own, whose files are not allowed to grow: SQLite takes that for an I/O error.
func TestWriteErrors(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), faultDir+"="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// failing writes, lets the disk fail under a group of writes, mends it and looks at what was kept.
func failing(ctx context.Context, dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	db, err := Open(ctx, Options{DataDir: dir, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	var was syscall.Rlimit
	err = errors.Join(
		db.Write(ctx, func(tx *Tx) error {
			_, err := tx.Exec("CREATE TABLE notes (text TEXT NOT NULL UNIQUE, data BLOB)")
			return err
		}),
		db.Write(ctx, add("before")),
		syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was),
	)
	if err != nil {
		return err
	}
	info, err := os.Stat(db.File() + "-wal")
	if err != nil {
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(info.Size()) + 20_000, Max: was.Max}); err != nil {
		return err
	}
	var all sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		all.Go(func() {
			errs[i] = db.Write(ctx, func(tx *Tx) error {
				_, err := tx.Exec("INSERT INTO notes (text, data) VALUES (?, ?)", fmt.Sprintf("during%02d", i), make([]byte, 100_000))
				return err
			})
		})
	}
	all.Wait()
	for _, err := range errs {
		if !errors.Is(err, ErrUnavailable) || !IsTemporary(err) {
			return fmt.Errorf("a write that could not be written: %w", err)
		}
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		return err
	}
	var kept, integrity string
	err = errors.Join(
		db.Write(ctx, add("later")),
		db.Read(ctx, func(tx *Tx) error {
			if err := tx.QueryRow("SELECT group_concat(text, ' ' ORDER BY text) FROM notes").Scan(&kept); err != nil {
				return err
			}
			return tx.QueryRow("PRAGMA integrity_check").Scan(&integrity)
		}),
		db.Close(),
	)
	if err != nil || kept != "before later" || integrity != "ok" {
		return fmt.Errorf("afterwards: kept %q, integrity %s: %w", kept, integrity, err)
	}
	return nil
}
