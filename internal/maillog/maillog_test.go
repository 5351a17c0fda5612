package maillog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/message"
)

func TestNew(t *testing.T) {
	var out bytes.Buffer
	log, err := New(&out, slog.LevelInfo, "json")
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("not shown")
	log.Info(Stored, Service, "smtp", Msg, "abc", From, "a@b\nlevel=ERROR")
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if line["event"] != Stored || line["msg"] != "abc" {
		t.Errorf("got %v", line)
	}
	out.Reset()
	log, err = New(&out, slog.LevelInfo, "text")
	if err != nil {
		t.Fatal(err)
	}
	log.Info(Stored, From, "a@b\nlevel=ERROR")
	if strings.Count(out.String(), "\n") != 1 {
		t.Errorf("an address wrote a line of its own: %q", out.String())
	}
	if _, err := New(&out, slog.LevelInfo, "xml"); err == nil {
		t.Error("a format that does not exist was accepted")
	}
}

func TestSecret(t *testing.T) {
	const secret = Secret("hunter2")
	var out bytes.Buffer
	log, _ := New(&out, slog.LevelInfo, "json") // the format exists
	log.Info("x", "password", secret, "in", struct{ P Secret }{secret})
	fmt.Fprintf(&out, "%v %s %q %+v %#v %x %d", secret, secret, secret, secret, secret, secret, struct{ P Secret }{secret})
	if s := out.String(); strings.Contains(s, "hunter2") || strings.Contains(s, fmt.Sprintf("%x", "hunter2")) {
		t.Errorf("the secret is in %s", s)
	}
}

func TestLedger(t *testing.T) {
	db := databasetest.Open(t)
	one, two := message.NewID(), message.NewID()
	at := one.Time().Add(-time.Hour).UTC() // the clock was set back
	first := Entry{at, one, KindStored, 7, "a@b.example", "anna@example.org", "192.0.2.1", "kept"}
	second := Entry{at.Add(time.Second), one, KindStored, 7, "", "", "", "kept once more"}
	other := Entry{at, two, KindStored, 8, "", "ben@example.org", "", "kept"}
	err := db.Write(t.Context(), func(tx *database.Tx) error { return Add(tx, first, second, other) })
	if err != nil {
		t.Fatal(err)
	}
	got, err := OfMessage(t.Context(), db, one)
	if err != nil || len(got) != 2 || got[0] != first || got[1] != second {
		t.Errorf("of the letter: %v, %v", got, err)
	}
	got, err = OfAccount(t.Context(), db, 7, 1)
	if err != nil || len(got) != 1 || got[0] != second {
		t.Errorf("newest of the account: %v, %v", got, err)
	}
	earlier := first
	earlier.Time = at.Add(-time.Hour)
	if err := db.Write(t.Context(), func(tx *database.Tx) error { return Add(tx, earlier) }); err != nil {
		t.Fatal(err)
	}
	if got, err := OfMessage(t.Context(), db, one); err != nil || len(got) != 3 || got[2] != earlier {
		t.Errorf("with a row of an earlier time: %v, %v", got, err)
	}
	if err := db.Write(t.Context(), func(tx *database.Tx) error { return Erase(tx, 7) }); err != nil {
		t.Fatal(err)
	}
	if got, err := OfMessage(t.Context(), db, one); err != nil || len(got) != 0 {
		t.Errorf("after Erase: %v, %v", got, err)
	}
	if got, err := OfMessage(t.Context(), db, two); err != nil || len(got) != 1 {
		t.Errorf("another account's rows after Erase: %v, %v", got, err)
	}
}
