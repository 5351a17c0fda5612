package queue

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/postroom/postroom/internal/database"
)

// Stats are how the queue stands.
type Stats struct {
	Recipients map[State]int // by why they are there
	OldestDue  time.Time     // when the recipient was due that is due longest; in the future where none is; zero: none waits
	Failing    []Destination // that have most recipients that were tried and wait
}

// Destination is a domain that letters wait for.
type Destination struct {
	Domain     string
	Recipients int
}

// mostFailing is how many domains Stats names.
const mostFailing = 10

// Stats looks at the queue.
func (q *Queue) Stats(ctx context.Context) (s Stats, err error) {
	err = q.DB.Read(ctx, func(tx *database.Tx) error {
		s = Stats{Recipients: map[State]int{}}
		if err := s.count(tx); err != nil {
			return err
		}
		var oldest sql.NullInt64
		if err := tx.QueryRow("SELECT min(next) FROM queue_recipients WHERE state = 0").Scan(&oldest); err != nil {
			return err
		}
		if oldest.Valid {
			s.OldestDue = time.UnixMilli(oldest.Int64).UTC()
		}
		return s.rank(tx)
	})
	if err != nil {
		return Stats{}, fmt.Errorf("queue: stats: %w", err)
	}
	return s, nil
}

func (s *Stats) count(tx *database.Tx) error {
	rows, err := tx.Query("SELECT state, count(*) FROM queue_recipients GROUP BY state")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var state State
		var n int
		if err := rows.Scan(&state, &n); err != nil {
			return err
		}
		s.Recipients[state] = n
	}
	return rows.Err()
}

func (s *Stats) rank(tx *database.Tx) error {
	rows, err := tx.Query(`SELECT domain, count(*) FROM queue_recipients WHERE state = 0 AND attempts > 0
		GROUP BY domain ORDER BY count(*) DESC, domain LIMIT ?`, mostFailing)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var d Destination
		if err := rows.Scan(&d.Domain, &d.Recipients); err != nil {
			return err
		}
		s.Failing = append(s.Failing, d)
	}
	return rows.Err()
}
