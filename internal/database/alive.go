package database

import (
	"context"
	"errors"
	"fmt"
)

// Alive tells whether the database answers: a read works, and the writer gets round to a write that changes nothing. A write
// that is refused, by a full disk or by a lock of another process, is an answer, too.
func (db *DB) Alive(ctx context.Context) error {
	var changes int64
	if err := db.ReadRow(ctx, "SELECT count(*) FROM generation", nil, &changes); err != nil {
		return fmt.Errorf("database %s: read: %w", db.file, err)
	}
	done := make(chan error, 1)
	go func() { done <- db.Write(ctx, func(*Tx) error { return nil }) }() // ctx does not end a write that has begun
	select {
	case err := <-done:
		if errors.Is(err, ErrClosed) || ctx.Err() != nil {
			return fmt.Errorf("database %s: write: %w", db.file, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("database %s: the writer does not answer: %w", db.file, ctx.Err())
	}
}
