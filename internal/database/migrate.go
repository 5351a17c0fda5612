package database

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pressly/goose/v3"
)

//go:embed migrations
var embedded embed.FS

// bodies are the tables that migrations never rewrite and that the snapshot before a migration leaves out.
var bodies = []string{"chunks"}

// migration brings the schema of one file up to date.
type migration struct {
	file string
	dir  string
	log  *slog.Logger
	fsys fs.FS // the migrations of the dialect
}

// run migrates, forward only, each step in a transaction. An older schema is first copied, but for the bodies.
func (m *migration) run(ctx context.Context) error {
	unlock, err := lockSchema(m.dir)
	if err != nil {
		return openError(m.file, err)
	}
	defer unlock()
	pool, err := m.open()
	if err != nil {
		return openError(m.file, err)
	}
	defer pool.Close()
	provider, err := goose.NewProvider(goose.DialectSQLite3, pool, m.fsys, goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("database migrations: %w", err)
	}
	current, newest, err := provider.GetVersions(ctx)
	switch {
	case err != nil:
		return openError(m.file, err)
	case current > newest:
		return fmt.Errorf("database %s: %w (schema %d, this one knows %d)", m.file, ErrNewer, current, newest)
	case current == newest:
		return nil
	}
	return m.up(ctx, provider, current)
}

// open opens the file. auto_vacuum counts only before the first page is written (the driver runs the pragmas in alphabetical
// order, so it comes before journal_mode); later it would be a write of its own on each connection.
func (m *migration) open() (*sql.DB, error) {
	info, err := os.Stat(m.file)
	if err == nil && info.Size() > 0 {
		return sql.Open("sqlite", dsn(m.file))
	}
	return sql.Open("sqlite", dsn(m.file, "auto_vacuum(incremental)"))
}

// up applies what is missing. A server of the version before must not run on meanwhile.
func (m *migration) up(ctx context.Context, provider *goose.Provider, current int64) error {
	if current > 0 {
		lock, err := lockServer(m.dir)
		if err != nil {
			return fmt.Errorf("database %s: its schema is older than this version and must be changed first: %w", m.file, err)
		}
		defer lock.Close()
		if err := m.snapshot(ctx, next(provider.ListSources(), current)); err != nil {
			return fmt.Errorf("database %s: copy before the migration: %w", m.file, err)
		}
	}
	done, err := provider.Up(ctx)
	if err != nil {
		return fmt.Errorf("database %s: migration failed, nothing of that step was kept: %w", m.file, classify(err))
	}
	for _, r := range done {
		m.log.Info("database migrated", "migration", filepath.Base(r.Source.Path))
	}
	return nil
}

// next returns the first version after the current one.
func next(sources []*goose.Source, current int64) int64 {
	for _, s := range sources { // in ascending order
		if s.Version > current {
			return s.Version
		}
	}
	return current
}

// snapshot copies every table but the bodies to postroom-before-NNNN.db beside the database, and removes older copies.
func (m *migration) snapshot(ctx context.Context, version int64) error {
	base := strings.TrimSuffix(filepath.Base(m.file), ".db") + "-before-"
	target := filepath.Join(filepath.Dir(m.file), fmt.Sprintf("%s%04d.db", base, version))
	part := target + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := createFile(part); err != nil {
		return err
	}
	if err := copyTables(ctx, m.file, part); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	if err := os.Rename(part, target); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(target)); err != nil {
		return err
	}
	m.log.Info("database copied before its migration, without message bodies", "file", target)
	old, err := filepath.Glob(filepath.Join(filepath.Dir(m.file), base+"*.db"))
	if err != nil {
		return err
	}
	for _, name := range old {
		if name != target {
			err = errors.Join(err, os.Remove(name))
		}
	}
	return err
}

// copyTables copies the schema and all rows but those of the bodies, as they are at one moment.
func copyTables(ctx context.Context, from, to string) (err error) {
	pool, err := sql.Open("sqlite", fileURL(to, url.Values{"_pragma": {"synchronous(full)"}}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	pool.SetMaxOpenConns(1) // ATTACH belongs to a connection
	if _, err := pool.ExecContext(ctx, "ATTACH ? AS source", from); err != nil {
		return err
	}
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := copySchema(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}

// copySchema creates each table with its rows, then what depends on tables.
func copySchema(ctx context.Context, tx *sql.Tx) error {
	rows, err := tx.QueryContext(ctx, `SELECT type, name, sql FROM source.sqlite_schema
		WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY type <> 'table', rowid`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var steps []string
	for rows.Next() {
		var kind, name, create string
		if err := rows.Scan(&kind, &name, &create); err != nil {
			return err
		}
		steps = append(steps, create)
		if kind == "table" && !slices.Contains(bodies, name) {
			quoted := `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
			steps = append(steps, "INSERT INTO main."+quoted+" SELECT * FROM source."+quoted)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, step := range steps {
		if _, err := tx.ExecContext(ctx, step); err != nil {
			return fmt.Errorf("%.60s: %w", step, err)
		}
	}
	return nil
}
