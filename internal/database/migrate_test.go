package database

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/pressly/goose/v3"
)

// migrationsForTest returns the migrations of two versions; the last step of the newer one fails.
func migrationsForTest() (older, newer fs.FS) {
	one := &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE generation (kind TEXT PRIMARY KEY, n BIGINT NOT NULL);\nCREATE TABLE \"odd \"\"name\" (x TEXT);\nCREATE INDEX odd ON \"odd \"\"name\" (x);\nCREATE TABLE chunks (id INTEGER PRIMARY KEY, data BLOB);\n")}
	two := &fstest.MapFile{Data: []byte("-- +goose Up\nALTER TABLE \"odd \"\"name\" ADD COLUMN y TEXT;\n")}
	bad := &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE half (x TEXT);\nINSERT INTO nowhere VALUES (1);\n")}
	return fstest.MapFS{"0001_one.sql": one}, fstest.MapFS{"0001_one.sql": one, "0020_two.sql": two, "0030_bad.sql": bad}
}

func TestMigration(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "mail.db")
	older, newer := migrationsForTest()
	migrate := func(fsys fs.FS) error {
		m := &migration{file: file, dir: dir, log: slog.New(slog.DiscardHandler), fsys: fsys}
		return m.run(t.Context())
	}
	if err := errors.Join(migrate(older), migrate(older)); err != nil {
		t.Fatal(err)
	}
	if copies, _ := filepath.Glob(filepath.Join(dir, "*before*")); len(copies) != 0 {
		t.Errorf("a fresh database was copied to %v", copies)
	}
	execute(t, file, `INSERT INTO "odd ""name" VALUES ('kept')`, "INSERT INTO chunks VALUES (1, 'body')")
	if err := os.WriteFile(filepath.Join(dir, "mail-before-0007.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	lock, err := lockServer(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := migrate(newer); !errors.Is(err, ErrServerRuns) {
		t.Errorf("migrating under a server: %v", err)
	}
	lock.Close()
	if err := migrate(newer); err == nil || !strings.Contains(err.Error(), "nothing of that step was kept") {
		t.Errorf("the step that fails: %v", err)
	}
	if n := number(t, file, "SELECT count(*) FROM sqlite_schema WHERE name = 'half'"); n != 0 {
		t.Error("half of the failing step was kept")
	}
	copies, err := filepath.Glob(filepath.Join(dir, "*before*"))
	if err != nil || len(copies) != 1 || filepath.Base(copies[0]) != "mail-before-0020.db" {
		t.Fatalf("copies are %v, want mail-before-0020.db alone", copies)
	}
	if info, err := os.Stat(copies[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy is %v, %v", info.Mode(), err)
	}
	for query, want := range map[string]int{
		`SELECT count(*) FROM "odd ""name" WHERE x = 'kept'`:    1,
		"SELECT count(*) FROM chunks":                           0,
		"SELECT count(*) FROM sqlite_schema WHERE name = 'odd'": 1,
		"SELECT max(version_id) FROM goose_db_version":          1,
		`SELECT count(*) FROM pragma_table_info('odd "name')`:   1,
	} {
		if got := number(t, copies[0], query); got != want {
			t.Errorf("in the copy, %s is %d, want %d", query, got, want)
		}
	}
}

func execute(t testing.TB, file string, queries ...string) {
	t.Helper()
	pool, err := sql.Open("sqlite", fileURL(file, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, q := range queries {
		if _, err := pool.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
}

func number(t testing.TB, file, query string) (n int) {
	t.Helper()
	pool, err := sql.Open("sqlite", fileURL(file, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := pool.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNewerDatabase(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	execute(t, db.File(), "INSERT INTO "+goose.DefaultTablename+" (version_id, is_applied) VALUES (999999, 1)")
	if _, err := Open(t.Context(), Options{DataDir: dir}); !errors.Is(err, ErrNewer) {
		t.Errorf("got %v, want ErrNewer", err)
	}
}

// TestOpenAtOnce: several commands may be the first to open a database.
func TestOpenAtOnce(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			db, err := Open(context.WithoutCancel(t.Context()), Options{DataDir: dir})
			if err != nil {
				t.Error(err)
				return
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
