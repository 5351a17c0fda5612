package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Tx is one transaction, handed to the function of Write or Read and valid until that function returns. A statement
// that fails ends it: every later statement returns the same error, and so does Write, whatever the function returns
// (PostgreSQL works so too). Rows must be read to their end before the next statement; those left open are closed.
type Tx struct {
	ctx     context.Context // the connection's own and never a caller's: a cancelled statement would end the whole group
	conn    *conn
	rows    []*sql.Rows
	err     error
	raised  []string
	told    []string
	then    []func()
	octets  int
	reading bool
}

// Dialect says which SQL this transaction speaks.
func (tx *Tx) Dialect() Dialect { return tx.conn.dialect }

// Exec runs a statement that returns no rows.
func (tx *Tx) Exec(query string, args ...any) (sql.Result, error) {
	s, err := tx.statement(query, args)
	if err != nil {
		return nil, err
	}
	r, err := s.ExecContext(tx.ctx, args...)
	return r, tx.note(err)
}

// Query runs a statement that returns rows.
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	s, err := tx.statement(query, args)
	if err != nil {
		return nil, err
	}
	rows, err := s.QueryContext(tx.ctx, args...)
	if err != nil {
		return nil, tx.note(err)
	}
	tx.rows = append(tx.rows, rows)
	return rows, nil
}

// QueryRow runs a statement that returns at most one row. Scan must be called on the result: it frees the statement.
func (tx *Tx) QueryRow(query string, args ...any) *Row {
	s, err := tx.statement(query, args)
	if err != nil {
		return &Row{tx: tx, err: err}
	}
	return &Row{tx: tx, row: s.QueryRowContext(tx.ctx, args...)}
}

// Row is the result of QueryRow. It is used as an *sql.Row is.
type Row struct {
	tx  *Tx
	row *sql.Row
	err error
}

// Scan copies the columns of the row, or returns sql.ErrNoRows, which is not a failure of the transaction.
func (r *Row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	err := r.row.Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return r.tx.note(err)
}

// Raise tells those who Watch the kind, in this process and others, that something changed, once this transaction is kept.
func (tx *Tx) Raise(kind string) error {
	if tx.reading {
		return tx.note(errors.New("database: Raise in a reading transaction"))
	}
	if !slices.Contains(tx.raised, kind) {
		tx.raised = append(tx.raised, kind)
	}
	return tx.err
}

// Tell ticks for those who Watch the kind as Raise does, but writes nothing: what changes with every letter should not cost a
// page of its own each time. In other processes any change ticks. A kind is either told or raised.
func (tx *Tx) Tell(kind string) error {
	if tx.reading {
		return tx.note(errors.New("database: Tell in a reading transaction"))
	}
	if !slices.Contains(tx.told, kind) {
		tx.told = append(tx.told, kind)
	}
	return tx.err
}

// Then runs fn once this transaction is kept, before Write returns and before those who Watch are told. It runs in the writer's goroutine:
// all others wait for it.
func (tx *Tx) Then(fn func()) error {
	if tx.reading {
		return tx.note(errors.New("database: Then in a reading transaction"))
	}
	tx.then = append(tx.then, fn)
	return tx.err
}

// Erase asks that what this transaction deletes is overwritten in the database file, too, and not only marked as free.
func (tx *Tx) Erase() error {
	if tx.conn.dialect != SQLite || tx.conn.erasing {
		return tx.err
	}
	var on int
	if err := tx.QueryRow("PRAGMA secure_delete = ON").Scan(&on); err != nil {
		return err
	}
	tx.conn.erasing = true // the writer switches it off after the group
	return nil
}

// statement prepares the query and counts what it will write.
func (tx *Tx) statement(query string, args []any) (*sql.Stmt, error) {
	for _, r := range tx.rows {
		_ = tx.note(r.Err()) // remembered in tx.err
	}
	if tx.err == nil && controls(query) {
		tx.err = fmt.Errorf("database: %q is not for a function to say", query)
	}
	if tx.err != nil {
		return nil, tx.err
	}
	for _, a := range args {
		if b, ok := a.([]byte); ok {
			tx.octets += len(b)
		}
	}
	s, err := tx.conn.prepare(tx.ctx, query)
	return s, tx.note(err)
}

// controls tells whether a statement begins or ends a transaction. It would be that of all others in the group, too.
func controls(query string) bool {
	for _, verb := range [...]string{"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"} {
		if strings.HasPrefix(query, verb) {
			return true
		}
	}
	return false
}

// note remembers the first failure.
func (tx *Tx) note(err error) error {
	if err == nil {
		return nil
	}
	err = classify(err)
	if tx.err == nil {
		tx.err = err
	}
	return err
}

// end closes the rows that were left open and returns the error of the whole: the function's own, else the first
// statement that failed.
func (tx *Tx) end(err error) error {
	for _, r := range tx.rows {
		_ = tx.note(r.Err())
		_ = tx.note(r.Close())
	}
	tx.rows = nil
	if err == nil {
		return tx.err
	}
	return err
}
