package database_test

import (
	"testing"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
)

func TestOnSQLite(t *testing.T) {
	databasetest.Run(t, func(t *testing.T) *database.DB { return databasetest.Open(t) })
}
