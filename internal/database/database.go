package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
)

// errKey is the log attribute of an error, as in maillog, which imports this package.
const errKey = "err"

// Options says which database to open.
type Options struct {
	URL     string // sqlite: and a file name relative to DataDir; DefaultURL when empty
	DataDir string // created with mode 0700 when missing
	Log     *slog.Logger
}

// DB is an open database. Its methods may be called from many goroutines.
type DB struct {
	file    string
	dir     string
	log     *slog.Logger
	writing *sql.DB // connections of the writer and the checkpointer
	reading *sql.DB
	writer  *writer
	readers *readers
	running sync.WaitGroup

	mu     sync.Mutex // guards lock and closed
	lock   *os.File   // held by a server
	closed bool
}

// Open opens the database, makes it when there is none, and brings its schema up to date.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	file, err := parseURL(o.URL, o.DataDir)
	if err != nil {
		return nil, err
	}
	db := &DB{file: file, dir: o.DataDir, log: o.Log}
	if db.dir == "" {
		db.dir = filepath.Dir(file)
	}
	if err := db.prepareFiles(); err != nil {
		return nil, openError(file, err)
	}
	steps, err := fs.Sub(embedded, "migrations/sqlite")
	if err != nil {
		return nil, err
	}
	m := &migration{file: file, dir: db.dir, log: o.Log, fsys: steps}
	if err := m.run(ctx); err != nil {
		return nil, err
	}
	if err := db.start(context.WithoutCancel(ctx)); err != nil {
		return nil, openError(file, err)
	}
	return db, nil
}

// Dialect says which SQL the database speaks.
func (db *DB) Dialect() Dialect { return SQLite }

// File returns the name of the database file.
func (db *DB) File() string { return db.file }

// prepareFiles makes the directory and an empty file that nobody else can read; SQLite gives the log the same mode.
func (db *DB) prepareFiles() error {
	if err := os.MkdirAll(db.dir, 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(db.file), 0o700); err != nil {
		return err
	}
	// Only a file that is not there yet is opened: closing one would free the locks that this process holds on it.
	if err := createFile(db.file); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Stat(db.file)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file", db.file)
	case info.Mode().Perm()&0o077 != 0:
		return os.Chmod(db.file, 0o600)
	}
	return nil
}

// createFile makes an empty private file that will be there after a power cut.
func createFile(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// syncDir makes the names in the directory durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// start opens the connections and starts the goroutines. ctx is never cancelled.
func (db *DB) start(ctx context.Context) (err error) {
	if db.writing, err = sql.Open("sqlite", dsn(db.file, "cache_size(-16000)")); err != nil {
		return err
	}
	if db.reading, err = sql.Open("sqlite", dsn(db.file, "cache_size(-4000)", "query_only(on)")); err != nil {
		return err
	}
	first, err := connect(ctx, db.writing)
	if err != nil {
		return errors.Join(err, db.writing.Close())
	}
	w := &writer{
		writes:   make(chan *write, maxWaiting),
		stopping: make(chan struct{}),
		stopped:  make(chan struct{}),
		ctx:      ctx,
		pool:     db.writing,
		log:      db.log,
		conn:     first,
		wal:      newWALSize(),
		watchers: newWatchers(),
	}
	seen, err := w.generations()
	if err != nil {
		return errors.Join(err, first.close(), db.writing.Close())
	}
	w.watchers.seen = seen
	db.writer = w
	db.readers = newReaders(ctx, db.reading, max(4, min(16, 2*runtime.GOMAXPROCS(0))))
	c := &checkpointer{ctx: ctx, pool: db.writing, log: db.log, wal: w.wal, stopping: w.stopping}
	db.running.Go(w.run)
	db.running.Go(c.run)
	return nil
}

// Close lets the writes that wait finish, refuses new ones, waits for the readers and closes the files.
func (db *DB) Close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return nil
	}
	db.closed = true
	close(db.writer.stopping)
	db.running.Wait()
	err := errors.Join(db.readers.close(), db.reading.Close(), db.writing.Close())
	if db.lock != nil {
		err = errors.Join(err, db.lock.Close())
	}
	if err != nil {
		return fmt.Errorf("database %s: close: %w", db.file, err)
	}
	return nil
}
