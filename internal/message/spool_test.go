package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
)

const memoryLimit = 256 << 10

func pattern(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestChunkSizes(t *testing.T) {
	sum := 0
	for _, n := range chunkSizes {
		sum += n
	}
	if sum != memoryLimit {
		t.Errorf("the chunks have %d octets, want %d", sum, memoryLimit)
	}
}

func TestSpool(t *testing.T) {
	fillers := map[string]func(*Spool, []byte) error{
		"one write": func(s *Spool, b []byte) error { _, err := s.Write(b); return err },
		"small writes": func(s *Spool, b []byte) error {
			_, err := io.CopyBuffer(struct{ io.Writer }{s}, struct{ io.Reader }{bytes.NewReader(b)}, make([]byte, 777))
			return err
		},
		"read from": func(s *Spool, b []byte) error {
			_, err := io.Copy(s, struct{ io.Reader }{bytes.NewReader(b)})
			return err
		},
		"read from, with EOF": func(s *Spool, b []byte) error {
			_, err := s.ReadFrom(iotest.DataErrReader(bytes.NewReader(b)))
			return err
		},
		"read from, half reads": func(s *Spool, b []byte) error {
			_, err := s.ReadFrom(iotest.HalfReader(bytes.NewReader(b)))
			return err
		},
		"write, then read from": func(s *Spool, b []byte) error {
			if _, err := s.Write(b[:len(b)/3]); err != nil {
				return err
			}
			_, err := s.ReadFrom(bytes.NewReader(b[len(b)/3:]))
			return err
		},
	}
	for name, fill := range fillers {
		for _, size := range []int{0, 1, 4095, 4096, 4097, 100_000, memoryLimit - 1, memoryLimit, memoryLimit + 1, 1 << 20} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				want := pattern(size)
				s := NewSpool(t.TempDir())
				defer s.Close()
				if err := fill(s, want); err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(s.Reader()); err != nil || !bytes.Equal(got, want) {
					t.Errorf("read back %d octets, %v, want %d", len(got), err, size)
				}
				if got := make([]byte, size/2); size > 0 {
					if _, err := s.ReadAt(got, int64(size/3)); err != nil || !bytes.Equal(got, want[size/3:][:size/2]) {
						t.Errorf("read from the middle: %v", err)
					}
				}
				if s.Size() != int64(size) || s.Err() != nil {
					t.Errorf("Size() = %d, Err() = %v, want %d", s.Size(), s.Err(), size)
				}
				if inFile := s.file != nil; inFile != (size > memoryLimit) && size != memoryLimit {
					t.Errorf("in a file: %t", inFile)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestSpoolReader reads in all the ways that a reader can be read.
func TestSpoolReader(t *testing.T) {
	want := pattern(9000)
	s := NewSpool(t.TempDir())
	defer s.Close()
	if _, err := s.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(s.Reader(), want); err != nil {
		t.Errorf("from memory: %v", err)
	}
	if err := s.spill(); err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(s.Reader(), want); err != nil {
		t.Errorf("from the file: %v", err)
	}
}

func TestSpoolLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := NewSpool(dir)
	if _, err := s.Write(pattern(1 << 20)); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("the folder holds %v, %v", names, err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	if _, err := s.ReadFrom(bytes.NewReader([]byte("x"))); !errors.Is(err, os.ErrClosed) {
		t.Errorf("ReadFrom after Close: %v", err)
	}
	if _, err := s.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("ReadAt after Close: %v", err)
	}
}

func TestSpoolReadAtBounds(t *testing.T) {
	s := NewSpool(t.TempDir())
	defer s.Close()
	if _, err := s.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 8)
	if n, err := s.ReadAt(p, 1); n != 2 || err != io.EOF {
		t.Errorf("ReadAt(8, 1) = %d, %v", n, err)
	}
	if n, err := s.ReadAt(p, 3); n != 0 || err != io.EOF {
		t.Errorf("ReadAt(8, 3) = %d, %v", n, err)
	}
	if _, err := s.ReadAt(p, -1); err == nil || err == io.EOF {
		t.Errorf("ReadAt(8, -1): %v", err)
	}
}

func TestSpoolReaderError(t *testing.T) {
	for _, size := range []int{10, 1 << 20} {
		s := NewSpool(t.TempDir())
		cause := errors.New("cut")
		n, err := s.ReadFrom(io.MultiReader(bytes.NewReader(pattern(size)), iotest.ErrReader(cause)))
		if err != cause || n != int64(size) || s.Size() != n {
			t.Errorf("ReadFrom = %d, %v, want %d, %v", n, err, size, cause)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSpoolDiskFull writes to a device that is always full, and to a folder that is not there.
func TestSpoolDiskFull(t *testing.T) {
	full := func(string) (*os.File, error) { return os.OpenFile("/dev/full", os.O_RDWR, 0) }
	if f, err := full(""); err != nil {
		t.Skip("there is no /dev/full")
	} else if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for name, fill := range map[string]func(*Spool) error{
		"write":     func(s *Spool) error { _, err := s.Write(pattern(1 << 20)); return err },
		"read from": func(s *Spool) error { _, err := s.ReadFrom(bytes.NewReader(pattern(1 << 20))); return err },
	} {
		t.Run(name, func(t *testing.T) {
			s := NewSpool("")
			s.create = full
			for range 2 { // the error stays
				if err := fill(s); !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("got %v, want ENOSPC", err)
				}
			}
			if !errors.Is(s.Err(), syscall.ENOSPC) {
				t.Errorf("Err() = %v", s.Err())
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	s := NewSpool("/nonexistent/folder")
	if _, err := s.Write(pattern(1 << 20)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestSpoolsShareMemory checks that a spool reads back its own octets while others take and free the same chunks.
func TestSpoolsShareMemory(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 20 {
				want := bytes.Repeat([]byte{byte(g*20 + i)}, 1+(g*7919+i*104729)%(2*memoryLimit))
				s := NewSpool(dir)
				_, err := s.Write(want)
				got, errRead := io.ReadAll(s.Reader())
				if err := errors.Join(err, errRead, s.Close()); err != nil || !bytes.Equal(got, want) {
					t.Errorf("spool %d.%d of %d octets: %v", g, i, len(want), err)
				}
			}
		})
	}
	wg.Wait()
}

// TestSpoolMemory grows 200 letters of 25 MB side by side, so that all fill their memory before the first goes to a file.
// What goes to a file is written to the null device: only the memory counts here.
func TestSpoolMemory(t *testing.T) {
	const letters, piece, bound = 200, 250 << 10, 60 << 20
	const size = 103 * piece
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	spools := make([]*Spool, letters)
	for i := range spools {
		spools[i] = NewSpool("")
		spools[i].create = func(string) (*os.File, error) { return os.OpenFile(os.DevNull, os.O_RDWR, 0) }
	}
	data := pattern(piece)
	for range size / piece {
		for _, s := range spools {
			if _, err := s.Write(data); err != nil {
				t.Fatal(err)
			}
		}
	}
	runtime.ReadMemStats(&after)
	for _, s := range spools {
		if s.Size() != size {
			t.Errorf("Size() = %d", s.Size())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	grown := after.Sys - before.Sys
	t.Logf("%d spools of %d MB took %d MB from the system", letters, size>>20, grown>>20)
	if grown > bound {
		t.Errorf("that is more than %d MB", bound>>20)
	}
}

func BenchmarkSpool(b *testing.B) {
	for _, size := range []int{2 << 10, 50 << 10, 200 << 10, 2 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			data, dir := pattern(size), b.TempDir()
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				s := NewSpool(dir)
				if _, err := s.ReadFrom(bytes.NewReader(data)); err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, s.Reader()); err != nil {
					b.Fatal(err)
				}
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
