package queue

import (
	"fmt"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/message"
)

// many is a queue with letters to one domain.
func many(b *testing.B) *Queue {
	db := databasetest.Open(b)
	q, err := New(Options{Hostname: "mail.example.org", DB: db, Store: &world{}})
	if err != nil {
		b.Fatal(err)
	}
	err = db.Write(b.Context(), func(tx *database.Tx) error {
		for i := range 5000 {
			l := Letter{ID: message.NewID(), Account: 1, From: path("<anna@example.org>"), Size: 100, Created: time.Now()}
			if err := q.Add(tx, l, 1, to(fmt.Sprintf("a%d@far.example", i))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return q
}

// BenchmarkDue finds the next letter of a domain with many, while as many as one destination may have are being tried.
func BenchmarkDue(b *testing.B) {
	q, taken := many(b), map[int64]struct{}{}
	for i := range maxLimit {
		taken[int64(i+1)] = struct{}{}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, to, err := q.due(b.Context(), turn{"far.example", "example.org"}, taken); err != nil || len(to) != 1 {
			b.Fatal(to, err)
		}
	}
}

// BenchmarkNextDue finds when the next recipient is due, where many are due already.
func BenchmarkNextDue(b *testing.B) {
	q := many(b)
	b.ReportAllocs()
	for b.Loop() {
		if d, err := q.nextDue(b.Context(), time.Now().UnixMilli()); err != nil || d != idlePoll {
			b.Fatal(d, err)
		}
	}
}
