// Package database opens the one SQL database that keeps everything that must last, brings its schema up to date, and has
// one way to write: DB.Write returns nil only when the change is on disk.
//
// On SQLite one goroutine owns the only writing connection. It gathers the writes that wait into one transaction, each
// behind a savepoint, commits once and answers all of them: group commit. Readers use a small pool of read-only
// connections and never wait for the writer. A checkpointer on a connection of its own keeps the write-ahead log short.
//
// While a DB is open nothing else in the same process may open its file, not even to copy it: closing a file frees the
// locks that SQLite holds on it (a property of POSIX locks).
//
// The package knows no table but its own (generation); each package that keeps something owns its tables and its SQL, and
// adds its schema under migrations. PostgreSQL will stand behind the same API: SQL is written with ? as placeholder.
package database
