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
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/pressly/goose/v3"
)

// open opens the database in the directory and makes a table, unless it is there.
func open(t testing.TB, dir string) *DB {
	t.Helper()
	db, err := Open(t.Context(), Options{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	err = db.Write(t.Context(), func(tx *Tx) error {
		_, err := tx.Exec("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, data BLOB)")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func add(text string) func(*Tx) error {
	return func(tx *Tx) error {
		_, err := tx.Exec("INSERT INTO notes (text) VALUES (?)", text)
		return err
	}
}

func notes(t testing.TB, db *DB) (all string) {
	t.Helper()
	err := db.Read(t.Context(), func(tx *Tx) error {
		return tx.QueryRow("SELECT coalesce(group_concat(text, ' ' ORDER BY text), '') FROM notes").Scan(&all)
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestParseURL(t *testing.T) {
	for _, test := range []struct {
		url, dir, want string // want is the file, or after ! a part of the error
	}{
		{"", "/data", "/data/postroom.db"},
		{"sqlite:postroom.db", "/data", "/data/postroom.db"},
		{"sqlite:sub/x.db", "/data", "/data/sub/x.db"},
		{"sqlite:/var/x.db", "/data", "/var/x.db"},
		{"sqlite:x.db", "", "!data directory"},
		{"sqlite:", "/data", "!file name is missing"},
		{"sqlite:sub/", "/data", "!file name is missing"},
		{"sqlite::memory:", "/data", "!would lose mail"},
		{"postroom.db", "/data", "!write sqlite:"},
		{"mysql://x", "/data", "!unknown kind"},
		{"postgres://postroom:secret@db/postroom", "/data", "!not built in yet"},
		{"postgresql://postroom:secret@db/postroom", "/data", "!not built in yet"},
	} {
		file, err := parseURL(test.url, test.dir)
		want, fails := strings.CutPrefix(test.want, "!")
		switch {
		case fails && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret")):
			t.Errorf("%q: error %v, want one with %q", test.url, err, want)
		case !fails && (err != nil || file != want):
			t.Errorf("%q: %q, %v; want %q", test.url, file, err, want)
		}
	}
}

func TestRewrite(t *testing.T) {
	for _, test := range []struct{ query, want string }{
		{"SELECT 1", "SELECT 1"},
		{"a = ? AND b IN (?, ?)", "a = $1 AND b IN ($2, $3)"},
		{"a = '?' AND \"?\" = ?", "a = '?' AND \"?\" = $1"},
		{"a = 'it''s ?' AND b = ?", "a = 'it''s ?' AND b = $1"},
		{"a = ? -- why?\nAND b = ?", "a = $1 -- why?\nAND b = $2"},
		{"a - ? - -?", "a - $1 - -$2"},
	} {
		if got := PostgreSQL.rewrite(test.query); got != test.want {
			t.Errorf("%q becomes %q, want %q", test.query, got, test.want)
		}
		if got := SQLite.rewrite(test.query); got != test.query {
			t.Errorf("%q becomes %q on SQLite", test.query, got)
		}
	}
}

func TestOlderVersion(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"3.51.2", "3.51.3", true}, {"3.51.3", "3.51.3", false}, {"3.53.0", "3.51.3", false}, {"4.0.0", "3.51.3", false},
		{"3.9.99", "3.51.3", true}, {"3.51", "3.51.3", true}, {"", "3.51.3", true},
	} {
		if got := olderVersion(test.a, test.b); got != test.want {
			t.Errorf("%s older than %s: %t", test.a, test.b, got)
		}
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with spaces?#%41", "data")
	db := open(t, dir)
	if err := db.Write(t.Context(), add("a")); err != nil {
		t.Fatal(err)
	}
	if err := db.LockServer(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		dir: 0o700, db.File(): 0o600, db.File() + "-wal": 0o600, db.File() + "-shm": 0o600, filepath.Join(dir, serverLock): 0o600,
	} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v (%v), want %v", name, info.Mode().Perm(), err, want)
		}
	}
}

func TestPragmas(t *testing.T) {
	db := open(t, t.TempDir())
	for pragma, want := range map[string]string{
		"page_size": "4096", "auto_vacuum": "2", "journal_mode": "wal", "synchronous": "2", "busy_timeout": "10000",
		"wal_autocheckpoint": "0", "foreign_keys": "1", "secure_delete": "0",
	} {
		check := func(tx *Tx) error {
			var got string
			if err := tx.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
				t.Errorf("%s is %s (%v), want %s", pragma, got, err, want)
			}
			return nil
		}
		if err := errors.Join(db.Write(t.Context(), check), db.Read(t.Context(), check)); err != nil {
			t.Error(err)
		}
	}
}

// TestWeakConnection shows that a connection which would lose acknowledged mail is refused.
func TestWeakConnection(t *testing.T) {
	for _, pragma := range []string{"PRAGMA synchronous = NORMAL", "PRAGMA journal_mode = DELETE"} {
		pool, err := sql.Open("sqlite", dsn(filepath.Join(t.TempDir(), "x.db")))
		if err != nil {
			t.Fatal(err)
		}
		c, err := connect(t.Context(), pool)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.exec(t.Context(), pragma); err != nil {
			t.Fatal(err)
		}
		if err := c.check(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v, want it to be refused", pragma, err)
		}
		if err := errors.Join(c.close(), pool.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenSaysWhy(t *testing.T) {
	for _, test := range []struct {
		name   string
		break_ func(dir string) error
		want   string
	}{
		{"not a database", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "postroom.db"), []byte(strings.Repeat("no database ", 100)), 0o600)
		}, "not an SQLite database"},
		{"a directory", func(dir string) error { return os.Mkdir(filepath.Join(dir, "postroom.db"), 0o700) }, "is not a file"},
		{"not readable", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "postroom.db"), nil, 0)
		}, "must belong to the user"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "not readable" && os.Getuid() == 0 {
				t.Skip("root may read everything")
			}
			dir := t.TempDir()
			if err := test.break_(dir); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), Options{DataDir: dir})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want a sentence with %q", err, test.want)
			}
		})
	}
}

func TestOpenError(t *testing.T) {
	for err, want := range map[error]string{
		fs.ErrPermission:                      "must belong to the user",
		fmt.Errorf("x: %w", os.ErrPermission): "must belong to the user",
		errors.New("strange"):                 "strange",
	} {
		if got := openError("/x.db", err).Error(); !strings.Contains(got, want) || !strings.Contains(got, "/x.db") {
			t.Errorf("%v: %s", err, got)
		}
	}
}

func TestSecondServer(t *testing.T) {
	dir := t.TempDir()
	one, two := open(t, dir), open(t, dir)
	if err := one.LockServer(); err != nil {
		t.Fatal(err)
	}
	if err := one.LockServer(); err != nil {
		t.Errorf("locking twice: %v", err)
	}
	err := two.LockServer()
	if !errors.Is(err, ErrServerRuns) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("second server: %v, want the first one's process id", err)
	}
	// The command line works beside the server.
	if err := two.Write(t.Context(), add("a")); err != nil {
		t.Error(err)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if err := two.LockServer(); err != nil {
		t.Errorf("after the first server's end: %v", err)
	}
}

// TestTwoProcesses plays a command line beside a server: two databases on one file.
func TestTwoProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		server, cli := open(t, dir), open(t, dir)
		changed, stop := server.Watch("accounts")
		defer stop()
		var all sync.WaitGroup
		for i, db := range []*DB{server, cli} {
			all.Go(func() {
				for j := range 50 {
					if err := db.Write(t.Context(), add(fmt.Sprint(i, j))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if n := len(strings.Fields(notes(t, server))); n != 100*2 { // two words each
			t.Errorf("%d words, want 200", n)
		}
		for range 2 {
			began := time.Now()
			if err := cli.Write(t.Context(), func(tx *Tx) error { return tx.Raise("accounts") }); err != nil {
				t.Fatal(err)
			}
			<-changed
			if waited := time.Since(began); waited > pollInterval {
				t.Errorf("noticed after %v", waited)
			}
		}
		time.Sleep(time.Minute)
		select {
		case <-changed:
			t.Error("a tick without a change")
		default:
		}
	})
}

// TestDroppedTransaction: SQLite ends a transaction by itself after some errors, which a ROLLBACK of the function's own
// looks like. Everybody else in the group is run again, and kept once.
func TestDroppedTransaction(t *testing.T) {
	for _, test := range []struct {
		name string
		drop func(*Tx) error
	}{
		{"and the function fails", func(tx *Tx) error {
			_, err := tx.Exec("ROLLBACK")
			return errors.Join(err, errors.New("mine"))
		}},
		{"and the function does not notice", func(tx *Tx) error {
			_, err := tx.Exec("ROLLBACK")
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := open(t, t.TempDir())
				gate := make(chan struct{})
				var all sync.WaitGroup
				all.Go(func() {
					if err := db.Write(t.Context(), func(*Tx) error { <-gate; return nil }); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
				var errs [4]error
				for i, fn := range []func(*Tx) error{add("a"), test.drop, add("b"), add("a")} {
					all.Go(func() { errs[i] = db.Write(t.Context(), fn) })
					synctest.Wait()
				}
				close(gate)
				all.Wait()
				if errs[0] != nil || errs[1] == nil || errs[2] != nil || !IsUnique(errs[3]) {
					t.Errorf("got %v", errs)
				}
				if got := notes(t, db); got != "a b" {
					t.Errorf("kept are %q, want a and b once", got)
				}
				if err := db.Write(t.Context(), add("c")); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			})
		})
	}
}

// limitPages makes the disk full at so many pages, or at the size that the database has now.
func limitPages(t testing.TB, db *DB, pages int) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *Tx) error {
		if pages == 0 {
			if err := tx.QueryRow("PRAGMA page_count").Scan(&pages); err != nil {
				return err
			}
		}
		return tx.QueryRow(fmt.Sprintf("PRAGMA max_page_count = %d", pages)).Scan(&pages)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDiskFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := open(t, t.TempDir())
		big := func(text string) func(*Tx) error {
			return func(tx *Tx) error {
				_, err := tx.Exec("INSERT INTO notes (text, data) VALUES (?, ?)", text, make([]byte, 300_000))
				return err
			}
		}
		if err := db.Write(t.Context(), big("first")); err != nil {
			t.Fatal(err)
		}
		limitPages(t, db, 0)
		if err := db.Write(t.Context(), big("alone")); !errors.Is(err, ErrDiskFull) || !IsTemporary(err) {
			t.Errorf("alone: %v, want ErrDiskFull", err)
		}
		gate := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			if err := db.Write(t.Context(), func(*Tx) error { <-gate; return nil }); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		var errs [4]error
		for i, fn := range []func(*Tx) error{add("small"), big("big"), add("other"), func(tx *Tx) error {
			_, err := tx.Exec("DELETE FROM notes WHERE text = 'first'")
			return err
		}} {
			all.Go(func() { errs[i] = db.Write(t.Context(), fn) })
			synctest.Wait()
		}
		close(gate)
		all.Wait()
		if errs[0] != nil || !errors.Is(errs[1], ErrDiskFull) || errs[2] != nil || errs[3] != nil {
			t.Errorf("got %v, want only the big one to fail", errs)
		}
		if got := notes(t, db); got != "other small" {
			t.Errorf("kept are %q", got)
		}
		if err := db.Write(t.Context(), big("after")); err != nil {
			t.Errorf("after the deletion: %v", err)
		}
	})
}

// older returns migrations that end before version, and newer ones that know one more step.
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

// TestCloseLeavesNothing: the bubble fails when a goroutine is left in it.
func TestCloseLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := Open(t.Context(), Options{DataDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		write := func(tx *Tx) error { return tx.Raise("x") }
		read := func(tx *Tx) error { return tx.QueryRow("SELECT count(*) FROM generation").Scan(new(int)) }
		if err := errors.Join(db.Write(t.Context(), write), db.Read(t.Context(), read), db.TruncateLog(t.Context()), db.Close()); err != nil {
			t.Fatal(err)
		}
		// The last connection removes the log: all were closed, with their statements.
		if _, err := os.Stat(db.File() + "-wal"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the log is still there: %v", err)
		}
	})
}

// TestLogStaysShort writes several times the log's bound.
func TestLogStaysShort(t *testing.T) {
	db := open(t, t.TempDir())
	data := make([]byte, 256<<10)
	var largest int64
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range 150 {
				err := db.Write(t.Context(), func(tx *Tx) error {
					_, err := tx.Exec("INSERT INTO notes (text, data) VALUES (?, ?)", fmt.Sprint(i, j), data)
					return err
				})
				if err != nil {
					t.Error(err)
					return
				}
				if i == 0 {
					if info, err := os.Stat(db.File() + "-wal"); err == nil {
						largest = max(largest, info.Size())
					}
				}
			}
		})
	}
	all.Wait()
	t.Logf("largest log: %d MiB", largest>>20)
	if largest == 0 || largest > 64<<20 {
		t.Errorf("the log grew to %d octets", largest)
	}
}

func TestEraseOverwrites(t *testing.T) {
	db := open(t, t.TempDir())
	secret := strings.Repeat("the secret of anna ", 1000)
	if err := db.Write(t.Context(), add(secret)); err != nil {
		t.Fatal(err)
	}
	err := db.Write(t.Context(), func(tx *Tx) error {
		if err := errors.Join(tx.Erase(), tx.Erase()); err != nil {
			return err
		}
		_, err := tx.Exec("DELETE FROM notes")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.TruncateLog(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil { // before reading the file, or its locks were lost
		t.Fatal(err)
	}
	content, err := os.ReadFile(db.File())
	if err != nil || strings.Contains(string(content), "secret of anna") {
		t.Errorf("what was erased is still in the file (%v)", err)
	}
}
