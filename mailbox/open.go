package mailbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
)

// Open returns the message as its owner reads it: prefix, body and mark, size octets in all. It is read piece by piece,
// each with a query of its own, so a slow peer holds up nothing. Where the message is deleted meanwhile, Read returns
// ErrNoMessage, and never an early end. ctx lives as long as the reader.
func (s *Store) Open(ctx context.Context, account int64, uid uint32) (content io.ReadCloser, size int64, err error) {
	r := &reader{ctx: ctx, store: s, uid: uid}
	if err = r.find(account); err != nil {
		r.memory.release()
		return nil, 0, fmt.Errorf("mailbox: open message %d of account %d: %w", uid, account, err)
	}
	return r, r.left, nil
}

// reader reads one message. Its parts are the prefix, the body up to the mark, the mark, and the rest of the body.
type reader struct {
	ctx     context.Context // of Open, as a response body has that of its request
	store   *Store
	mailbox int64
	uid     uint32
	uidl    []byte
	blob    int64
	size    int64 // of the body
	prefix  []byte
	markAt  int64
	mark    []byte

	left   int64  // octets not returned yet
	at     int64  // position in the body
	chunk  []byte // what was read of the body ahead of at; in memory
	memory piece
	err    error // what ended the reading
}

// find reads the mailbox row and the first chunk.
func (r *reader) find(account int64) error {
	err := r.store.db.ReadRow(r.ctx, `SELECT m.mailbox_id, m.uidl, m.blob_id, b.size, m.size, m.prefix, m.mark_at, m.mark, c.data
		FROM mailboxes x JOIN messages m ON m.mailbox_id = x.id JOIN blobs b ON b.id = m.blob_id LEFT JOIN chunks c ON c.id = b.id * 65536
		WHERE x.account_id = ? AND x.name = ? AND m.uid = ?`, []any{account, Inbox, r.uid},
		&r.mailbox, &r.uidl, &r.blob, &r.size, &r.left, &r.prefix, &r.markAt, &r.mark, &r.memory)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return ErrNoMessage
	case err != nil:
		return err
	case r.left != int64(len(r.prefix))+r.size+int64(len(r.mark)):
		return fmt.Errorf("its size is %d and its parts do not add up to it", r.left)
	case r.size == 0:
		return nil
	}
	return r.whole()
}

// fetch reads the chunk at r.at. The message row is part of the question: with its UIDL, which no other message ever has,
// it makes sure that the chunk is this message's, even if the body was freed and its id given away again.
func (r *reader) fetch() error {
	err := r.store.db.ReadRow(r.ctx, `SELECT c.data FROM messages m JOIN chunks c ON c.id = ?
		WHERE m.mailbox_id = ? AND m.uid = ? AND m.uidl = ? AND m.blob_id = ?`,
		[]any{chunkID(r.blob, int(r.at/chunkSize)), r.mailbox, r.uid, r.uidl, r.blob}, &r.memory)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNoMessage
	}
	if err != nil {
		return err
	}
	return r.whole()
}

// piece is a chunk in memory that is used again.
type piece struct {
	octets []byte
	free   func()
}

// Scan copies what the driver has read, which is its own. NULL is the chunk of an empty body.
func (p *piece) Scan(from any) error {
	octets, ok := from.([]byte)
	if !ok && from != nil {
		return fmt.Errorf("a chunk is %T", from)
	}
	p.release()
	p.octets, p.free = takeBody(len(octets))
	copy(p.octets, octets)
	return nil
}

func (p *piece) release() {
	if p.free != nil {
		p.free()
	}
	p.octets, p.free = nil, nil
}

// whole tells whether the chunk that was read is as long as it must be.
func (r *reader) whole() error {
	r.chunk = r.memory.octets
	if want := min(chunkSize, r.size-r.at); int64(len(r.chunk)) != want {
		return fmt.Errorf("a part of it has %d octets instead of %d", len(r.chunk), want)
	}
	return nil
}

// Read returns the next octets. io.EOF comes only after all of them.
func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.next(p)
	if err != nil {
		r.err = fmt.Errorf("mailbox: read message %d: %w", r.uid, err)
		return 0, r.err
	}
	r.left -= int64(n)
	return n, nil
}

// next copies from the part whose turn it is. A chunk in which the mark is put is given out in two pieces.
func (r *reader) next(p []byte) (n int, err error) {
	switch {
	case len(r.prefix) > 0:
		n = copy(p, r.prefix)
		r.prefix = r.prefix[n:]
		return n, nil
	case len(r.mark) > 0 && r.at == r.markAt:
		n = copy(p, r.mark)
		r.mark = r.mark[n:]
		return n, nil
	case len(r.mark) > 0 && r.at < r.markAt:
		p = p[:min(int64(len(p)), r.markAt-r.at)]
	}
	if len(r.chunk) == 0 {
		if err := r.fetch(); err != nil {
			return 0, err
		}
	}
	n = copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	r.at += int64(n)
	return n, nil
}

// Close ends the reading.
func (r *reader) Close() error {
	r.chunk = nil
	r.memory.release()
	r.err = errors.New("mailbox: the message is closed")
	return nil
}
