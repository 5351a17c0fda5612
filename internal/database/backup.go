package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
)

// Backup writes the whole database to w, as it is at one moment, while it is used. It is made beside the database, which
// takes as much room again, and checked before the first octet leaves. The log grows until the copy is made.
func (db *DB) Backup(ctx context.Context, w io.Writer) (octets int64, err error) {
	part, err := os.CreateTemp(filepath.Dir(db.file), "backup-*.part") // mode 0600, which VACUUM INTO keeps
	if err != nil {
		return 0, fmt.Errorf("database %s: backup: %w", db.file, err)
	}
	defer func() { err = errors.Join(err, part.Close(), os.Remove(part.Name())) }()
	if err := copyInto(ctx, db.file, part.Name()); err != nil {
		return 0, fmt.Errorf("database %s: backup: %w", db.file, classify(err))
	}
	if octets, err = io.Copy(w, part); err != nil {
		return octets, fmt.Errorf("database %s: write the backup: %w", db.file, err)
	}
	return octets, nil
}

// copyInto copies a database into an empty file, on a connection of its own, and checks the copy.
func copyInto(ctx context.Context, from, to string) (err error) {
	source, err := sql.Open("sqlite", dsn(from))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	if _, err := source.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		return err
	}
	made, err := sql.Open("sqlite", fileURL(to, url.Values{"_pragma": {"query_only(on)"}}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, made.Close()) }()
	var verdict string
	if err := made.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("the copy is damaged, and so may be the database: %s", verdict)
	}
	return nil
}
