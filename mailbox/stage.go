package mailbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/message"
)

const (
	chunkSize = 64 << 10
	// maxInline is the largest body that is written together with its mailbox rows. A larger one is written ahead, so that
	// small letters do not wait for it.
	maxInline = 1 << 20
	// aheadSize is how much of a large body one write takes.
	aheadSize = 8 * chunkSize
	// maxChunks is how many chunks a blob can have: the low 16 bits of a chunk's id are its position.
	maxChunks = 1 << 16
)

// The values of blobs.refs that are no count.
const (
	refsDead   = 0  // no message has it; to be freed
	refsStaged = -1 // written ahead, not yet delivered
	refsErase  = -2 // no message has it; to be overwritten and freed
)

// Staged is a body that is ready to be delivered.
type Staged struct {
	store *Store
	id    message.ID
	size  int64
	body  []byte // up to maxInline
	blob  int64  // of a larger one
	free  func() // gives the memory of body back
}

// Size returns the size of the body.
func (st *Staged) Size() int64 { return st.size }

// ID returns the id of the letter.
func (st *Staged) ID() message.ID { return st.id }

// Stage makes a body of exactly size octets ready to be delivered. Up to 1 MiB stays in memory; a larger one is written
// to the database, durably but referred to by nothing. Discard must be called when it is done with, delivered or not.
func (s *Store) Stage(ctx context.Context, id message.ID, size int64, body io.Reader) (*Staged, error) {
	st := &Staged{store: s, id: id, size: size}
	var err error
	switch {
	case size < 0 || size > maxChunks*chunkSize:
		err = fmt.Errorf("size %d cannot be stored", size)
	case size > maxInline:
		if err = st.writeAhead(ctx, body); err != nil {
			// The caller's ctx may be what failed, and the rows should go all the same.
			err = errors.Join(err, st.Discard(context.WithoutCancel(ctx)))
		}
	default:
		st.body, st.free = takeBody(int(size))
		if err = readExactly(body, st.body, true); err != nil {
			st.free()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("mailbox: stage %s: %w", id, err)
	}
	return st, nil
}

// bodies keeps the memory of small bodies, of these sizes, for the next ones: most mail is small, and there is much of it.
var (
	bodySizes = [...]int{8 << 10, 16 << 10, 64 << 10, 256 << 10}
	bodies    [len(bodySizes)]sync.Pool
)

// takeBody returns memory for a body, and what gives it back.
func takeBody(size int) (body []byte, free func()) {
	for i, n := range bodySizes {
		if size > n {
			continue
		}
		b, ok := bodies[i].Get().(*[]byte)
		if !ok {
			made := make([]byte, n)
			b = &made
		}
		return (*b)[:size], func() { bodies[i].Put(b) }
	}
	return make([]byte, size), func() {}
}

// readExactly fills buf, and where it is the last part sees that nothing follows.
func readExactly(r io.Reader, buf []byte, last bool) error {
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("body is shorter than announced: %w", err)
	}
	if !last {
		return nil
	}
	var more [1]byte
	switch n, err := io.ReadFull(r, more[:]); {
	case n > 0:
		return errors.New("body is longer than announced")
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// writeAhead writes a large body in groups of chunks.
func (st *Staged) writeAhead(ctx context.Context, body io.Reader) error {
	buf := make([]byte, aheadSize)
	for at := int64(0); at < st.size; {
		part := buf[:min(aheadSize, st.size-at)]
		if err := readExactly(body, part, at+int64(len(part)) == st.size); err != nil {
			return err
		}
		blob := st.blob
		err := st.store.db.Write(ctx, func(tx *database.Tx) error {
			blob = st.blob
			if blob == 0 {
				var err error
				if blob, err = insertBlob(tx, st.id, st.size, refsStaged); err != nil {
					return err
				}
			}
			return insertChunks(tx, blob, int(at/chunkSize), part)
		})
		if err != nil {
			return err
		}
		st.blob = blob
		at += int64(len(part))
	}
	return nil
}

// insertBlob adds the header row of a body.
func insertBlob(tx *database.Tx, message message.ID, size int64, refs int) (id int64, err error) {
	err = tx.QueryRow("INSERT INTO blobs (message, size, refs) VALUES (?, ?, ?) RETURNING id", message.String(), size, refs).Scan(&id)
	return id, err
}

// insertChunks adds the part of a body that begins at chunk number seq.
func insertChunks(tx *database.Tx, blob int64, seq int, part []byte) error {
	for len(part) > 0 {
		n := min(len(part), chunkSize)
		if _, err := tx.Exec("INSERT INTO chunks (id, data) VALUES (?, ?)", chunkID(blob, seq), part[:n]); err != nil {
			return err
		}
		part = part[n:]
		seq++
	}
	return nil
}

// chunkID is the key of a chunk: the chunks of a blob follow each other.
func chunkID(blob int64, seq int) int64 { return blob<<16 | int64(seq) }

// Discard gives up what Stage holds. It harms nothing that was delivered, and may be called more than once.
func (st *Staged) Discard(ctx context.Context) error {
	if st.body != nil {
		st.body = nil
		st.free()
	}
	if st.blob == 0 {
		return nil
	}
	var refs int64
	err := st.store.db.Read(ctx, func(tx *database.Tx) error {
		return tx.QueryRow("SELECT coalesce(max(refs), 0) FROM blobs WHERE id = ? AND message = ?", st.blob, st.id.String()).Scan(&refs)
	})
	if err != nil || refs != refsStaged {
		return err
	}
	err = st.store.db.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec("UPDATE blobs SET refs = ? WHERE id = ? AND message = ? AND refs = ?", refsDead, st.blob, st.id.String(), refsStaged)
		return err
	})
	if err != nil {
		return fmt.Errorf("mailbox: discard %s: %w", st.id, err)
	}
	st.store.startFreeing(ctx)
	return nil
}
