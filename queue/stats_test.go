package queue

import (
	"reflect"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
)

func TestStats(t *testing.T) {
	db := databasetest.Open(t)
	q := &Queue{Options: Options{DB: db}}
	if s, err := q.Stats(t.Context()); err != nil || len(s.Recipients) != 0 || !s.OldestDue.IsZero() || s.Failing != nil {
		t.Errorf("empty: %+v, %v", s, err)
	}
	due := time.UnixMilli(1_700_000_000_000).UTC()
	err := db.Write(t.Context(), func(tx *database.Tx) error {
		if _, err := tx.Exec(`INSERT INTO queue_letters (id, message, account_id, reverse_path, size, flags, ret, envid, blob_id, created, pending)
			VALUES (1, 'x', 1, '<>', 1, 0, '', '', 1, 0, 20)`); err != nil {
			return err
		}
		for _, r := range []struct {
			domain   string
			state    State
			attempts int
			after    time.Duration
		}{
			{"a.example", Waiting, 0, 0}, {"b.example", Waiting, 3, time.Minute}, {"c.example", Waiting, 1, time.Hour}, {"c.example", Waiting, 2, time.Hour},
			{"a.example", Held, 9, -time.Hour}, {"a.example", AccountHeld, 0, -time.Hour}, {"a.example", AccountHeld, 0, -time.Hour}, {"a.example", Aside, 1, -time.Hour},
		} {
			if _, err := tx.Exec(`INSERT INTO queue_recipients (letter_id, recipient, domain, notify, original, state, attempts, next, delay_told, reason)
				VALUES (1, '<x>', ?, '', '', ?, ?, ?, 0, '')`, r.domain, r.state, r.attempts, due.Add(r.after).UnixMilli()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Stats{
		Recipients: map[State]int{Waiting: 4, Held: 1, AccountHeld: 2, Aside: 1}, OldestDue: due,
		Failing: []Destination{{"c.example", 2}, {"b.example", 1}},
	}
	if s, err := q.Stats(t.Context()); err != nil || !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v, %v; want %+v", s, err, want)
	}
}

// TestStatsAreBounded shows that many failing domains do not make many lines.
func TestStatsAreBounded(t *testing.T) {
	db := databasetest.Open(t)
	err := db.Write(t.Context(), func(tx *database.Tx) error {
		if _, err := tx.Exec(`INSERT INTO queue_letters (id, message, account_id, reverse_path, size, flags, ret, envid, blob_id, created, pending)
			VALUES (1, 'x', 1, '<>', 1, 0, '', '', 1, 0, 20)`); err != nil {
			return err
		}
		for i := range 3 * mostFailing {
			if _, err := tx.Exec(`INSERT INTO queue_recipients (letter_id, recipient, domain, notify, original, state, attempts, next, delay_told, reason)
				VALUES (1, '<x>', 'd' || ? || '.example', '', '', 0, 1, 0, 0, '')`, i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := (&Queue{Options: Options{DB: db}}).Stats(t.Context()); err != nil || len(s.Failing) != mostFailing {
		t.Errorf("%d domains, %v", len(s.Failing), err)
	}
}
