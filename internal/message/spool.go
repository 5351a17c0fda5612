package message

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// Spool holds the octets of one letter while it is received and looked at: in memory up to 256 KiB, beyond that in a
// temporary file that has no name any more, so that a crash leaves nothing behind. Write or ReadFrom first, then read
// as often as you like, from several goroutines too. Writing, and Close, must not run beside anything else.
//
//	empty --write--> memory --more than 256 KiB--> file
//	  |                 |                           |
//	  +-----------------+----------Close------------+--> closed
type Spool struct {
	dir    string
	create func(dir string) (*os.File, error) // createUnlinked, but for tests
	chunks []*[]byte                          // the memory, chunk i of chunkSizes[i] octets; none once there is a file
	file   *os.File
	size   int64
	err    error // of the write that failed: there are no octets after a gap
	closed bool
}

// chunkSizes is how the memory of a spool grows: a short letter holds 4 KiB, and all chunks are 256 KiB.
var chunkSizes = [...]int{4 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10}

// transferIndex is the chunk size that ReadFrom copies through once there is a file: 32 KiB.
const transferIndex = 4

// pools keeps chunks of each size for the next letter. It is shared by all spools because their memory is one resource of
// the process, and holds nothing but free memory. A chunk is always written before it is read.
var pools [len(chunkSizes)]sync.Pool

func takeChunk(i int) *[]byte {
	if b, ok := pools[i].Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, chunkSizes[i])
	return &b
}

// NewSpool makes an empty spool. Nothing is created in dir before the letter outgrows the memory.
func NewSpool(dir string) *Spool { return &Spool{dir: dir, create: createUnlinked} }

func createUnlinked(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "spool-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Write appends p. Once there is a file, each Write is a write to it: large pieces are better. After an error (for
// example syscall.ENOSPC, which errors.Is finds) every further Write fails alike.
func (s *Spool) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		if err := s.usable(); err != nil {
			return written, err
		}
		if s.file != nil {
			n, err := s.writeFile(p[written:])
			return written + n, err
		}
		space, err := s.space()
		if err != nil {
			return written, err
		}
		n := copy(space, p[written:])
		s.size += int64(n)
		written += n
	}
	return written, s.usable()
}

// ReadFrom appends what r holds, up to its io.EOF, without a buffer in between while the letter is in memory. (It makes the
// file when the memory is full, before it knows that there is more.) An error of r is returned as it is; what came before
// it is kept.
func (s *Spool) ReadFrom(r io.Reader) (int64, error) {
	begin := s.size
	for {
		if err := s.usable(); err != nil {
			return s.size - begin, err
		}
		if s.file != nil {
			err := s.readToFile(r)
			return s.size - begin, err
		}
		space, err := s.space()
		if err != nil || space == nil {
			continue // there is an error, or a file now
		}
		n, err := r.Read(space)
		s.size += int64(n)
		if err == io.EOF {
			return s.size - begin, nil
		}
		if err != nil {
			return s.size - begin, err
		}
	}
}

// readToFile copies r to the file through one pooled chunk.
func (s *Spool) readToFile(r io.Reader) error {
	buffer := takeChunk(transferIndex)
	defer pools[transferIndex].Put(buffer)
	for {
		n, err := r.Read(*buffer)
		if n > 0 {
			if _, err := s.writeFile((*buffer)[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// space returns free memory to write to, at s.size. It is nil when the memory was full and has been moved to a file.
func (s *Spool) space() ([]byte, error) {
	offset := int(s.size)
	for i, chunk := range s.chunks {
		if offset < chunkSizes[i] {
			return (*chunk)[offset:], nil
		}
		offset -= chunkSizes[i]
	}
	if len(s.chunks) == len(chunkSizes) {
		return nil, s.spill()
	}
	s.chunks = append(s.chunks, takeChunk(len(s.chunks)))
	return *s.chunks[len(s.chunks)-1], nil
}

// spill moves the memory to a file.
func (s *Spool) spill() error {
	file, err := s.create(s.dir)
	if err != nil {
		s.err = fmt.Errorf("message: create spool file: %w", err)
		return s.err
	}
	s.file = file
	size := s.size
	s.size = 0
	for _, chunk := range s.chunks {
		if _, err := s.writeFile((*chunk)[:min(int64(len(*chunk)), size-s.size)]); err != nil {
			return err
		}
	}
	s.freeChunks()
	return nil
}

func (s *Spool) writeFile(p []byte) (int, error) {
	n, err := s.file.WriteAt(p, s.size)
	s.size += int64(n)
	if err != nil {
		s.err = fmt.Errorf("message: write spool file: %w", err)
	}
	return n, s.err
}

func (s *Spool) usable() error {
	if s.closed {
		return os.ErrClosed
	}
	return s.err
}

// Size is the number of octets written.
func (s *Spool) Size() int64 { return s.size }

// Err is the error that ended writing, or nil. Such a spool is not the whole letter.
func (s *Spool) Err() error { return s.err }

// Reader reads the letter from its beginning. Each call gives an independent reader.
func (s *Spool) Reader() *io.SectionReader { return io.NewSectionReader(s, 0, s.size) }

// ReadAt implements io.ReaderAt.
func (s *Spool) ReadAt(p []byte, offset int64) (int, error) {
	switch {
	case s.closed:
		return 0, os.ErrClosed
	case offset < 0:
		return 0, errors.New("message: negative offset")
	case offset >= s.size:
		return 0, io.EOF
	}
	short := int64(len(p)) > s.size-offset
	if short {
		p = p[:s.size-offset]
	}
	n, err := s.readAt(p, offset)
	if err == nil && short {
		err = io.EOF
	}
	return n, err
}

func (s *Spool) readAt(p []byte, offset int64) (int, error) {
	if s.file != nil {
		n, err := s.file.ReadAt(p, offset)
		if err == nil {
			return n, nil
		}
		if err == io.EOF { // the file is shorter than what was written to it
			err = io.ErrUnexpectedEOF
		}
		return n, fmt.Errorf("message: read spool file: %w", err)
	}
	n := 0
	at := int(offset)
	for i, chunk := range s.chunks {
		if at < chunkSizes[i] {
			n += copy(p[n:], (*chunk)[at:])
			if n == len(p) {
				break
			}
			at = chunkSizes[i]
		}
		at -= chunkSizes[i]
	}
	return n, nil
}

// Close frees the memory and the file. It may be called again.
func (s *Spool) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.freeChunks()
	if s.file == nil {
		return nil
	}
	if err := s.file.Close(); err != nil {
		return fmt.Errorf("message: close spool file: %w", err)
	}
	return nil
}

func (s *Spool) freeChunks() {
	for i, chunk := range s.chunks {
		pools[i].Put(chunk)
	}
	s.chunks = nil
}
