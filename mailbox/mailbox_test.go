package mailbox_test

import (
	"testing"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/mailbox/mailboxtest"
)

func TestOnSQLite(t *testing.T) {
	mailboxtest.Run(t, func(t *testing.T) *database.DB { return databasetest.Open(t) })
}
