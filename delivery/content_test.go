package delivery

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/postroom/postroom/queue"
)

func TestBody(t *testing.T) {
	broken := errors.New("broken")
	for _, tc := range []struct {
		name, in string
		announce int64
		bare, ok bool
	}{
		{"lines", "a\r\nb\r\n", 6, false, true},
		{"empty", "", 0, false, true},
		{"no last line end", "a\r\nb", 4, false, true},
		{"empty lines", "\r\n\r\n\r\n", 6, false, true},
		{"short", "a\r\n", 4, false, false},
		{"long", "a\r\n", 2, false, false},
		{"bare LF", "a\nb\r\n", 5, true, false},
		{"LF first", "\na\r\n", 4, true, false},
		{"bare CR", "a\rb\r\n", 5, true, false},
		{"CR last", "a\r\nb\r", 5, true, false},
		{"two CRs", "a\r\r\n", 4, true, false},
		{"LF CR", "a\n\r", 3, true, false},
		{"smuggled end", "a\r\n\n.\r\nMAIL FROM:<>\r\n", 21, true, false},
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "octets": iotest.OneByteReader, "end with the data": iotest.DataErrReader,
		} {
			b := &body{r: wrap(strings.NewReader(tc.in)), left: tc.announce}
			got, err := io.ReadAll(b)
			if (err == nil) != tc.ok || b.bare != tc.bare || tc.ok && string(got) != tc.in {
				t.Errorf("%s, %s: %q, %v, bare %t", tc.name, name, got, err, b.bare)
			}
			if again, err := b.Read(make([]byte, 9)); !tc.ok && (again > 0 || err == nil) {
				t.Errorf("%s, %s: it goes on with %d octets, %v", tc.name, name, again, err)
			}
		}
	}
	b := &body{r: iotest.ErrReader(broken), left: 5}
	if _, err := io.ReadAll(b); !errors.Is(err, broken) {
		t.Errorf("an error of the reader became %v", err)
	}
}

// FuzzBody compares the search for line ends with one that is written for the eye.
func FuzzBody(f *testing.F) {
	f.Add([]byte("a\r\nb\r\n"), uint8(1))
	f.Add([]byte("\r\r\n\n"), uint8(2))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		rest := bytes.ReplaceAll(in, []byte("\r\n"), nil)
		want := bytes.ContainsAny(rest, "\r\n") || len(rest) != len(in)-2*bytes.Count(in, []byte("\r\n"))
		for i, c := range in { // "\r" + "\r\n" + "\n" must not heal
			cr := c == '\r' && (i+1 == len(in) || in[i+1] != '\n')
			lf := c == '\n' && (i == 0 || in[i-1] != '\r')
			want = want || cr || lf
		}
		b := &body{r: bytes.NewReader(in), left: int64(len(in))}
		var err error
		for p := make([]byte, int(size)+1); err == nil; {
			_, err = b.Read(p)
		}
		if b.bare != want || (err == io.EOF) == want {
			t.Fatalf("bare %t, %v; want %t", b.bare, err, want)
		}
	})
}

// TestUnreadable shows that nothing of a letter that cannot be read is taken for a letter.
func TestUnreadable(t *testing.T) {
	big := strings.Repeat("x", 78)
	for _, tc := range []struct {
		name, text string
		size       int64 // 0: that of the text
		open, want string
	}{
		{"cannot be opened", "", 10, "fails", "deferred 4.3.0 local | the letter could not be read here"},
		{"bare LF", "a\nb\r\n", 0, "", "failed 5.6.0 local | the letter has line ends*"},
		{"bare LF far behind", strings.Repeat(big+"\r\n", 5000) + "\n.\r\n", 0, "", "failed 5.6.0 local | the letter has line ends*"},
		{"far too short", strings.Repeat(big+"\r\n", 2000), 200_000, "", "deferred 4.3.0 local | the letter could not be read here"},
	} {
		for _, offer := range []string{"PIPELINING", "CHUNKING"} {
			t.Run(tc.name+"/"+offer, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					k := &chunkSink{sink: sink{offers: []string{offer}}}
					w.serve("192.0.2.1", k.serve)
					d, end := w.deliverer()
					l := letter(t)
					if l.Size = tc.size; l.Size == 0 {
						l.Size = int64(len(tc.text))
					}
					open := opens(tc.text)
					if tc.open != "" {
						open = func(context.Context) (io.ReadCloser, error) { return nil, errors.New("the disk is broken: /var/lib") }
					}
					o := d.Deliver(t.Context(), l, recipients(t, "ben@remote.example"), open)[0]
					end()
					checkMatch(t, "outcome", tc.want, describeOutcome(o))
					if k.whole > 0 {
						t.Errorf("the server got %d whole letters", k.whole)
					}
				})
			})
		}
	}
}

// TestBigLetter shows that a letter larger than all buffers arrives whole, in both ways.
func TestBigLetter(t *testing.T) {
	text := strings.Repeat(".", 70_000) + "\r\n" + strings.Repeat("line\r\n.\r\n", 20_000)
	for _, offer := range []string{"PIPELINING", "CHUNKING"} {
		t.Run(offer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				k := &chunkSink{sink: sink{offers: []string{offer}}}
				w.serve("192.0.2.1", k.serve)
				d, end := w.deliverer()
				l := letter(t)
				l.Size = int64(len(text))
				o := d.Deliver(t.Context(), l, recipients(t, "ben@remote.example"), opens(text))[0]
				end()
				if o.Status != queue.Delivered || k.whole != 1 || k.last != text {
					t.Errorf("%+v, %d letters, %d octets of %d", o, k.whole, len(k.last), len(text))
				}
			})
		})
	}
}
