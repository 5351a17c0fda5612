package message

import "io"

// Segments reads a letter without some of its octets, once.
type Segments struct {
	r     io.ReaderAt
	gaps  []span // what is left out
	spans []span // what is left of the spans to read
	size  int64
}

type span struct{ start, end int64 }

// Without reads the letter of the given size without the fields that drop picks. Nothing else is changed: the empty line,
// the body and malformed lines before the first field stay.
func Without(r io.ReaderAt, size int64, h *Header, drop func(Field) bool) *Segments {
	s := &Segments{r: r}
	from := int64(0)
	for _, f := range h.Fields {
		if drop(f) {
			s.keep(from, f.Start)
			s.gaps = append(s.gaps, span{f.Start, f.End})
			from = f.End
		}
	}
	s.keep(from, size)
	return s
}

func (s *Segments) keep(start, end int64) {
	if start < end {
		s.spans = append(s.spans, span{start, end})
		s.size += end - start
	}
}

// Size is the number of octets of the whole letter, however much has been read of it.
func (s *Segments) Size() int64 { return s.size }

// Dropped is the number of fields that are left out.
func (s *Segments) Dropped() int { return len(s.gaps) }

// Offset is where an octet of the letter is in what Read gives; for one that is left out, where it would be.
func (s *Segments) Offset(at int64) int64 {
	shift := int64(0)
	for _, gap := range s.gaps {
		shift += max(0, min(at, gap.end)-gap.start)
	}
	return at - shift
}

// Read implements io.Reader. A letter that is shorter than its size is io.ErrUnexpectedEOF.
func (s *Segments) Read(p []byte) (int, error) {
	if len(s.spans) == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	next := &s.spans[0]
	n, err := s.r.ReadAt(p[:min(int64(len(p)), next.end-next.start)], next.start)
	next.start += int64(n)
	if next.start == next.end {
		s.spans = s.spans[1:]
		return n, nil // an error of ReadAt that is more than io.EOF comes back with the next read
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
