// Package databasetest opens databases for tests. It is imported by tests only.
package databasetest

import (
	"log/slog"
	"testing"

	"github.com/postroom/postroom/internal/database"
)

// Open returns a fresh database in a directory of its own, closed at the end of the test.
func Open(t testing.TB) *database.DB {
	t.Helper()
	return OpenIn(t, t.TempDir())
}

// OpenIn opens the database in the directory, and makes it when there is none.
func OpenIn(t testing.TB, dir string) *database.DB {
	t.Helper()
	db, err := database.Open(t.Context(), database.Options{DataDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("open database: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close database: %v", err)
		}
	})
	return db
}
