package accounts_test

import (
	"testing"

	"github.com/postroom/postroom/accounts/accountstest"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
)

// TestConformance runs the suite that every database has to pass.
func TestConformance(t *testing.T) {
	accountstest.Run(t, func(t *testing.T) *database.DB { return databasetest.Open(t) })
}
