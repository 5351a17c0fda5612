package database

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// serverLock is the file that a server holds while it works on the data directory.
const serverLock = "postroom.lock"

// LockServer makes this process the only server on the data directory, until Close. Where another holds the lock, the
// error is an ErrServerRuns and names its process.
func (db *DB) LockServer() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.lock != nil {
		return nil
	}
	lock, err := lockServer(db.dir)
	db.lock = lock
	return err
}

// ServerRuns tells whether a server works on a data directory, without touching it.
func ServerRuns(dir string) (bool, error) {
	f, err := os.Open(filepath.Join(dir, serverLock))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock file: %w", err)
	}
	defer f.Close() // which frees what was taken
	err = flock(f, syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// lockServer takes the lock. The kernel frees it when the process ends, however it ends; the process id in the file is
// there for people only.
func lockServer(dir string) (*os.File, error) {
	name := filepath.Join(dir, serverLock)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock file: %w", err)
	}
	err = flock(f, syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		pid, _ := io.ReadAll(io.LimitReader(f, 20)) // only for the message
		f.Close()
		return nil, fmt.Errorf("%w %s (process %s)", ErrServerRuns, dir, strings.TrimSpace(string(pid)))
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock file %s: %w", name, err)
	}
	return f, nil
}

// flock locks the file or directory, and goes on after a signal.
func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// lockSchema lets one process at a time look at the schema and change it. It waits for the other, which is done soon.
func lockSchema(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := flock(f, syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}
