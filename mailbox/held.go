package mailbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/message"
)

// Hold keeps the body for a letter that leaves: it is in no mailbox, and stays until Release. It belongs into the write that puts
// the letter into the queue.
func (s *Store) Hold(tx *database.Tx, st *Staged) (blob int64, err error) {
	var b written
	switch {
	case st.blob != 0:
		b, err = st.refer(tx, 1)
	case int64(len(st.body)) != st.size:
		err = errors.New("it was discarded")
	default:
		b, err = st.insert(tx, 1, st.body)
	}
	if err != nil {
		return 0, fmt.Errorf("mailbox: hold %s: %w", st.id, err)
	}
	return b.id, nil
}

// Release gives up what Hold returned. It belongs into the write that takes the letter out of the queue; the body is freed
// afterwards.
func (s *Store) Release(tx *database.Tx, blob int64) error {
	if _, err := tx.Exec("UPDATE blobs SET refs = CASE WHEN refs > 1 THEN refs - 1 ELSE ? END WHERE id = ? AND refs > 0", refsDead, blob); err != nil {
		return fmt.Errorf("mailbox: release body %d: %w", blob, err)
	}
	s.startFreeing(context.Background()) // its write comes after this one
	return nil
}

// OpenHeld returns a body that is held, read piece by piece as by Open. Where it was released meanwhile, Read returns ErrNoMessage.
func (s *Store) OpenHeld(ctx context.Context, blob int64, id message.ID) (io.ReadCloser, error) {
	r := &heldReader{ctx: ctx, store: s, blob: blob, id: id.String()}
	err := s.db.ReadRow(ctx, "SELECT size FROM blobs WHERE id = ? AND message = ? AND refs > 0", []any{blob, r.id}, &r.size)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoMessage
	}
	if err != nil {
		return nil, fmt.Errorf("mailbox: open held letter %s: %w", id, err)
	}
	return r, nil
}

// heldReader reads a body that is in no mailbox.
type heldReader struct {
	ctx   context.Context // of OpenHeld, as a response body has that of its request
	store *Store
	blob  int64
	id    string
	size  int64

	at     int64
	chunk  []byte // what was read ahead of at; in memory
	memory piece
	err    error // what ended the reading
}

// Read returns the next octets. io.EOF comes only after all of them.
func (r *heldReader) Read(p []byte) (int, error) {
	if r.err == nil && len(r.chunk) == 0 {
		r.err = r.fetch()
	}
	if r.err != nil {
		return 0, r.err
	}
	n := copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	r.at += int64(n)
	return n, nil
}

// fetch reads the chunk at r.at. The row of the body is part of the question, as in the reader of a message.
func (r *heldReader) fetch() error {
	if r.at == r.size {
		return io.EOF
	}
	err := r.store.db.ReadRow(r.ctx, "SELECT c.data FROM blobs b JOIN chunks c ON c.id = ? WHERE b.id = ? AND b.message = ? AND b.refs > 0",
		[]any{chunkID(r.blob, int(r.at/chunkSize)), r.blob, r.id}, &r.memory)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("mailbox: read held letter %s: %w", r.id, ErrNoMessage)
	case err != nil:
		return fmt.Errorf("mailbox: read held letter %s: %w", r.id, err)
	}
	if want := min(chunkSize, r.size-r.at); int64(len(r.memory.octets)) != want {
		return fmt.Errorf("mailbox: read held letter %s: a part of it has %d octets instead of %d", r.id, len(r.memory.octets), want)
	}
	r.chunk = r.memory.octets
	return nil
}

// Close ends the reading.
func (r *heldReader) Close() error {
	r.chunk = nil
	r.memory.release()
	r.err = errors.New("mailbox: the letter is closed")
	return nil
}
