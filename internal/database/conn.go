package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"modernc.org/sqlite"
)

const (
	// pageSize is SQLite's default.
	pageSize = 4096
	// maxStatements is how many statements stay prepared on one connection.
	maxStatements = 256
	// minSQLite is the first version without the WAL-reset bug, which strikes when two connections write and checkpoint at
	// the same time, as our writer and checkpointer do.
	minSQLite = "3.51.3"
)

// dsn returns the data source name of the file. The driver runs the pragmas on every connection that it opens.
func dsn(file string, pragmas ...string) string {
	all := append([]string{
		"busy_timeout(10000)",
		"journal_mode(wal)",
		"synchronous(full)", // anything less loses acknowledged mail at a power cut
		"wal_autocheckpoint(0)",
		"journal_size_limit(67108864)",
		"foreign_keys(on)",
	}, pragmas...)
	return fileURL(file, url.Values{"_pragma": all, "_txlock": {"immediate"}})
}

// fileURL writes the file name so that no character in it means something to SQLite.
func fileURL(file string, query url.Values) string {
	return (&url.URL{Scheme: "file", Path: file, RawQuery: query.Encode()}).String()
}

// conn is one connection with its prepared statements. One goroutine uses it at a time.
type conn struct {
	sql        *sql.Conn
	dialect    Dialect
	statements map[string]*sql.Stmt
	erasing    bool // secure_delete is on
}

// connect opens one connection of the pool and checks that it is as durable as it must be.
func connect(ctx context.Context, pool *sql.DB) (*conn, error) {
	c, err := pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	opened := &conn{sql: c, statements: make(map[string]*sql.Stmt)}
	if err := opened.check(ctx); err != nil {
		opened.close()
		return nil, err
	}
	return opened, nil
}

// check reads the pragmas back: a setting that did not take is an error here and not lost mail later.
func (c *conn) check(ctx context.Context) error {
	var (
		version, journal string
		synchronous      int
	)
	err := c.sql.QueryRowContext(ctx, "SELECT sqlite_version(), (SELECT journal_mode FROM pragma_journal_mode), (SELECT synchronous FROM pragma_synchronous)").
		Scan(&version, &journal, &synchronous)
	switch {
	case err != nil:
		return err
	case journal != "wal":
		return fmt.Errorf("%w: journal_mode is %q where wal was asked for (a network file system?)", ErrUnavailable, journal)
	case synchronous != 2:
		return fmt.Errorf("%w: synchronous is %d where 2 (full) was asked for", ErrUnavailable, synchronous)
	case olderVersion(version, minSQLite):
		return fmt.Errorf("%w: SQLite %s is older than %s, which mends a bug that damages databases", ErrUnavailable, version, minSQLite)
	}
	return nil
}

// olderVersion says whether the dotted version a is older than b.
func olderVersion(a, b string) bool {
	var x, y [3]int
	// A part that is missing or no number counts as 0, thus as old.
	_, _ = fmt.Sscanf(strings.ReplaceAll(a, ".", " "), "%d %d %d", &x[0], &x[1], &x[2])
	_, _ = fmt.Sscanf(strings.ReplaceAll(b, ".", " "), "%d %d %d", &y[0], &y[1], &y[2])
	for i := range x {
		if x[i] != y[i] {
			return x[i] < y[i]
		}
	}
	return false
}

// prepare returns the statement of the query, prepared once on this connection.
func (c *conn) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := c.statements[query]; ok {
		return s, nil
	}
	s, err := c.sql.PrepareContext(ctx, c.dialect.rewrite(query))
	if err != nil {
		return nil, err
	}
	c.statements[query] = s
	return s, nil
}

// begin opens a transaction.
func (c *conn) begin(ctx context.Context, query string) error {
	if err := c.roomy(); err != nil {
		return err
	}
	return c.exec(ctx, query)
}

// roomy forgets the prepared statements where they have become too many. It is called between transactions, when none is in use.
func (c *conn) roomy() error {
	if len(c.statements) < maxStatements {
		return nil
	}
	return c.forget()
}

// exec runs a statement of this package.
func (c *conn) exec(ctx context.Context, query string) error {
	s, err := c.prepare(ctx, query)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(ctx)
	return err
}

// forget closes the prepared statements. A statement that stays open would keep the file open after Close.
func (c *conn) forget() error {
	var errs []error
	for query, s := range c.statements {
		errs = append(errs, s.Close())
		delete(c.statements, query)
	}
	return errors.Join(errs...)
}

// close closes the connection itself; database/sql alone would put it back into its pool.
func (c *conn) close() error {
	err := c.forget()
	bad := c.sql.Raw(func(any) error { return driver.ErrBadConn })
	if bad != nil && !errors.Is(bad, driver.ErrBadConn) {
		err = errors.Join(err, bad)
	}
	if e := c.sql.Close(); e != nil && !errors.Is(e, sql.ErrConnDone) {
		err = errors.Join(err, e)
	}
	return err
}

// pagesWritten returns how many pages this connection has written to the log since it was opened.
func (c *conn) pagesWritten() (n int, err error) {
	err = c.sql.Raw(func(d any) error {
		status, ok := d.(sqlite.DBStatus)
		if !ok {
			return errors.New("the driver counts no pages")
		}
		n, _, err = status.Status(sqlite.DBStatusCacheWrite, false)
		return err
	})
	return n, err
}

// passiveCheckpoint copies what it can of the log into the database without waiting for anybody. It returns the
// number of pages in the log and how many of them are in the database now.
func (c *conn) passiveCheckpoint(ctx context.Context) (logged, done int, err error) {
	return c.checkpoint(ctx, "PRAGMA wal_checkpoint(PASSIVE)")
}

func (c *conn) checkpoint(ctx context.Context, pragma string) (logged, done int, err error) {
	var busy int
	err = c.sql.QueryRowContext(ctx, pragma).Scan(&busy, &logged, &done)
	return logged, done, err
}
