package database_test

import (
	"errors"
	"testing"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
)

// table makes a table for a test; packages make theirs by migrations.
func table(t testing.TB, db *database.DB) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *database.Tx) error {
		_, err := tx.Exec("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func add(text string) func(*database.Tx) error {
	return func(tx *database.Tx) error {
		_, err := tx.Exec("INSERT INTO notes (text) VALUES (?)", text)
		return err
	}
}

func count(t testing.TB, db *database.DB) (n int) {
	t.Helper()
	err := db.Read(t.Context(), func(tx *database.Tx) error {
		return tx.QueryRow("SELECT count(*) FROM notes").Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWriteIsKept(t *testing.T) {
	dir := t.TempDir()
	db := databasetest.OpenIn(t, dir)
	table(t, db)
	if err := db.Write(t.Context(), add("one")); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, databasetest.OpenIn(t, dir)); n != 1 {
		t.Fatalf("%d rows after opening again, want 1", n)
	}
}

func TestWriteError(t *testing.T) {
	db := databasetest.Open(t)
	table(t, db)
	mine := errors.New("mine")
	err := db.Write(t.Context(), func(tx *database.Tx) error {
		if err := add("one")(tx); err != nil {
			return err
		}
		return mine
	})
	if !errors.Is(err, mine) {
		t.Fatalf("got %v, want the function's own error", err)
	}
	if n := count(t, db); n != 0 {
		t.Fatalf("%d rows, want 0: a failed write is not kept", n)
	}
}
