package database

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Dialect says which SQL the database speaks.
type Dialect int

// The dialects.
const (
	SQLite Dialect = iota
	PostgreSQL
)

// String returns the name that a user reads.
func (d Dialect) String() string {
	if d == PostgreSQL {
		return "PostgreSQL"
	}
	return "SQLite"
}

// DefaultURL is the database that is used when nothing else is said.
const DefaultURL = "sqlite:postroom.db"

// parseURL reads the database key of the configuration: sqlite: and a file name relative to the data directory.
func parseURL(url, dataDir string) (file string, err error) {
	if url == "" {
		url = DefaultURL
	}
	scheme, rest, found := strings.Cut(url, ":")
	switch {
	case !found:
		return "", fmt.Errorf("database %q: write sqlite: and a file name, such as %s", url, DefaultURL)
	case scheme == "postgres" || scheme == "postgresql":
		// The URL may hold a password, so it is not repeated.
		return "", errors.New("database: PostgreSQL is not built in yet; use " + DefaultURL)
	case scheme != "sqlite":
		return "", fmt.Errorf("database %q: unknown kind of database; use %s", url, DefaultURL)
	case rest == "" || strings.HasSuffix(rest, "/"):
		return "", fmt.Errorf("database %q: the file name is missing", url)
	case strings.HasPrefix(rest, ":memory:"):
		return "", fmt.Errorf("database %q: a database in memory would lose mail", url)
	case filepath.IsAbs(rest):
		return filepath.Clean(rest), nil
	case dataDir == "":
		return "", errors.New("database: the data directory is not set")
	}
	return filepath.Abs(filepath.Join(dataDir, rest))
}

// rewrite turns the ? placeholders of a query into the dialect's own. Quoted strings and names, and comments to the end
// of the line, are left alone.
func (d Dialect) rewrite(query string) string {
	if d != PostgreSQL || !strings.Contains(query, "?") {
		return query
	}
	var b strings.Builder
	n, quote := 0, byte(0)
	for i := 0; i < len(query); i++ {
		c := query[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '-' && strings.HasPrefix(query[i:], "--"):
			quote = '\n'
		case c == '?':
			n++
			fmt.Fprintf(&b, "$%d", n)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
