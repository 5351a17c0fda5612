package database

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
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
		name  string
		spoil func(dir string) error
		want  string
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
			if err := test.spoil(dir); err != nil {
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
	if runs, err := ServerRuns(dir); runs || err != nil {
		t.Errorf("before the first server: %t, %v", runs, err)
	}
	if err := one.LockServer(); err != nil {
		t.Fatal(err)
	}
	if runs, err := ServerRuns(dir); !runs || err != nil {
		t.Errorf("beside the first server: %t, %v", runs, err)
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
	if runs, err := ServerRuns(dir); runs || err != nil {
		t.Errorf("after the first server's end: %t, %v", runs, err)
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
		told, stopTold := server.Watch("mailbox")
		defer stopTold()
		for range 2 {
			began := time.Now()
			err := cli.Write(t.Context(), func(tx *Tx) error { return errors.Join(tx.Raise("accounts"), tx.Tell("mailbox")) })
			if err != nil {
				t.Fatal(err)
			}
			<-changed
			<-told
			if waited := time.Since(began); waited > pollInterval {
				t.Errorf("noticed after %v", waited)
			}
		}
		time.Sleep(time.Minute)
		select {
		case <-changed:
			t.Error("a tick without a change")
		case <-told:
			t.Error("a tick without any change")
		default:
		}
	})
}

// group runs the functions as one group of the writer, in this order, inside a synctest bubble.
func group(t *testing.T, db *DB, fns ...func(*Tx) error) []error {
	t.Helper()
	gate := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		if err := db.Write(t.Context(), func(*Tx) error { <-gate; return nil }); err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	errs := make([]error, len(fns))
	for i, fn := range fns {
		all.Go(func() { errs[i] = db.Write(t.Context(), fn) })
		synctest.Wait()
	}
	close(gate)
	all.Wait()
	return errs
}

// TestThen: what is to be done once a write is kept is done once, though the group was run again for a neighbour that failed.
func TestThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := open(t, t.TempDir())
		var done []string
		then := func(word string) func(*Tx) error {
			return func(tx *Tx) error {
				return errors.Join(tx.Then(func() { done = append(done, word) }), add(word)(tx))
			}
		}
		group(t, db, then("a"), then("a"), then("b"))
		if got := strings.Join(done, " "); got != "a b" || notes(t, db) != got {
			t.Errorf("done %q, kept %q", got, notes(t, db))
		}
		if err := db.Read(t.Context(), func(tx *Tx) error { return tx.Then(func() {}) }); err == nil {
			t.Error("a reading transaction has something to keep")
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
			return errors.Join(tx.conn.exec(tx.ctx, "ROLLBACK"), errors.New("mine"))
		}},
		{"which a function may not say itself", func(tx *Tx) error {
			_, err := tx.Exec("ROLLBACK")
			if err == nil {
				t.Error("it may")
			}
			return nil
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := open(t, t.TempDir())
				errs := group(t, db, add("a"), test.drop, add("b"), add("a"))
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
		errs := group(t, db, add("small"), big("big"), add("other"), func(tx *Tx) error {
			_, err := tx.Exec("DELETE FROM notes WHERE text = 'first'")
			return err
		})
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

// TestBusy: another process holds the database for longer than a writer waits.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		server, cli := open(t, dir), open(t, dir)
		short := func(tx *Tx) error { return tx.QueryRow("PRAGMA busy_timeout = 10").Scan(new(int)) }
		if err := server.Write(t.Context(), short); err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		release := sync.OnceFunc(func() { close(gate) })
		defer release()
		var all sync.WaitGroup
		all.Go(func() {
			if err := cli.Write(t.Context(), func(tx *Tx) error { <-gate; return add("cli")(tx) }); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		for range 3 {
			if err := server.Write(t.Context(), add("server")); !errors.Is(err, ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
		}
		if got := notes(t, server); got != "" {
			t.Errorf("read %q while another writes", got)
		}
		// Opening needs no write.
		if third, err := Open(t.Context(), Options{DataDir: dir}); err != nil {
			t.Error(err)
		} else if err := third.Close(); err != nil {
			t.Error(err)
		}
		release()
		all.Wait()
		if err := server.Write(t.Context(), add("server")); err != nil {
			t.Error(err)
		}
		if got := notes(t, server); got != "cli server" {
			t.Errorf("kept are %q", got)
		}
	})
}

// TestManyStatements: the statements that stay prepared are bounded.
func TestManyStatements(t *testing.T) {
	db := open(t, t.TempDir())
	for i := range 3 * maxStatements {
		err := db.Write(t.Context(), func(tx *Tx) error {
			var n int
			if err := tx.QueryRow(fmt.Sprintf("SELECT %d", i)).Scan(&n); err != nil || n != i {
				return fmt.Errorf("%d: %w", n, err)
			}
			if n := len(tx.conn.statements); n > maxStatements+5 {
				return fmt.Errorf("%d statements", n)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
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
