package database

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// The kinds of failure that callers tell apart. Whatever is none of these is a mistake in the statement or comes from the
// caller's own function.
var (
	// ErrNewer says that a later version of Postroom made the database.
	ErrNewer = errors.New("the database was made by a newer version of Postroom")
	// ErrDiskFull says that the change did not fit on the disk. Nothing of it was kept.
	ErrDiskFull = errors.New("the disk is full")
	// ErrUnavailable says that the database cannot do it now: busy, an I/O error, or closing.
	ErrUnavailable = errors.New("the database is unavailable")
	// ErrClosed says that Close was called. It is an ErrUnavailable.
	ErrClosed = fmt.Errorf("%w: it is closed", ErrUnavailable)
	// ErrServerRuns says that another postroom serve works on the same data directory.
	ErrServerRuns = errors.New("another postroom serve is using the data directory")
)

// IsTemporary says whether the same call may succeed later without a change to the program or its input.
func IsTemporary(err error) bool {
	return errors.Is(err, ErrDiskFull) || errors.Is(err, ErrUnavailable) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// IsUnique says whether a statement failed because a row with the same key exists already.
func IsUnique(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && (e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// resultCode returns SQLite's primary result code of err, or 0.
func resultCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

// isFull says whether there was no room. Growing the index of the write-ahead log in shared memory fails for that reason
// alone, and SQLite has no better name for it than an I/O error.
func isFull(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && (e.Code()&0xff == sqlite3.SQLITE_FULL || e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE)
}

// classify joins a driver error with the kind that callers look for.
func classify(err error) error {
	if isFull(err) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	switch resultCode(err) {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT,
		sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// breaksConnection says whether the connection must not be used again after err: what it believes about its file may be
// wrong, and a second fsync on the same handle can succeed without the data being on disk.
func breaksConnection(err error) bool {
	switch resultCode(err) {
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CANTOPEN,
		sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_MISUSE:
		return true
	}
	return false
}

// openError says in one sentence why the database file cannot be opened.
func openError(file string, err error) error {
	switch code := resultCode(err); {
	case errors.Is(err, fs.ErrPermission), code == sqlite3.SQLITE_PERM, code == sqlite3.SQLITE_READONLY:
		return fmt.Errorf("database %s: not allowed to read and write it; it must belong to the user that runs postroom: %w", file, err)
	case errors.Is(err, syscall.ENOSPC), isFull(err):
		return fmt.Errorf("database %s: %w: %w", file, ErrDiskFull, err)
	case code == sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("database %s: cannot be opened; see that its directory exists and belongs to the user that runs postroom: %w", file, err)
	case code == sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("database %s: not an SQLite database: %w", file, err)
	case code == sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("database %s: damaged; restore it from a backup: %w", file, err)
	}
	return fmt.Errorf("database %s: %w", file, classify(err))
}
