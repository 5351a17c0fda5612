package message

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/postroom/postroom/internal/mailtest"
)

func TestReadHeader(t *testing.T) {
	long := strings.Repeat("x", 64<<10)
	for _, tc := range []struct {
		name, in  string
		fields    []string // name=value
		body      string
		malformed int
	}{
		{"plain", "From: a@b\r\nTo: c@d\r\n\r\nbody\r\n", []string{"From=a@b", "To=c@d"}, "body\r\n", 0},
		{"LF only", "From: a@b\nTo: c@d\n\nbody\n", []string{"From=a@b", "To=c@d"}, "body\n", 0},
		{"mixed line ends", "From: a@b\r\nTo: c@d\n\r\nbody", []string{"From=a@b", "To=c@d"}, "body", 0},
		{"folded", "Subject: one\r\n two\r\n\tthree\r\n\r\n", []string{"Subject=one two\tthree"}, "", 0},
		{"folded with LF", "Subject: one\n two\n\n", []string{"Subject=one two"}, "", 0},
		{"folded, first line empty", "Subject:\r\n one\r\n\r\n", []string{"Subject=one"}, "", 0},
		{"line of blanks only", "Subject: one\r\n \r\nTo: x\r\n\r\n", []string{"Subject=one", "To=x"}, "", 0},
		{"no body", "From: a@b\r\n\r\n", []string{"From=a@b"}, "", 0},
		{"no empty line", "From: a@b\r\nTo: c@d\r\n", []string{"From=a@b", "To=c@d"}, "", 0},
		{"last line without end", "From: a@b\r\nTo: c@d", []string{"From=a@b", "To=c@d"}, "", 0},
		{"ends with CR", "From: a@b\r", []string{"From=a@b"}, "", 0},
		{"empty letter", "", nil, "", 0},
		{"only an empty line", "\r\n", nil, "", 0},
		{"empty header", "\r\nFrom: a@b\r\n", nil, "From: a@b\r\n", 0},
		{"no header", "Hello there\r\n\r\nFrom: a@b\r\n\r\n", nil, "Hello there\r\n\r\nFrom: a@b\r\n\r\n", 0},
		{"no header, long line", long, nil, long, 0},
		{"starts with a continuation", " x\r\nFrom: a@b\r\n\r\nbody", []string{"From=a@b"}, "body", 1},
		{"mbox line", "From a@b Mon Jan  1 00:00:00 2024\r\nFrom: a@b\r\n\r\nbody", []string{"From=a@b"}, "body", 1},
		{"quoted mbox line", ">From a@b Mon Jan  1 00:00:00 2024\nFrom: a@b\n\nbody", []string{"From=a@b"}, "body", 1},
		{"line without colon", "From: a@b\r\nnonsense\r\n continued\r\nFrom: c@d\r\n\r\nbody", []string{"From=a@b", "From=c@d"}, "body", 2},
		{"blank before the colon", "From : a@b\r\n\r\n", []string{"From=a@b"}, "", 0},
		{"blank in the name", "From: a@b\r\nTo whom: c@d\r\n\r\n", []string{"From=a@b"}, "", 1},
		{"empty name", "From: a@b\r\n: c@d\r\n\r\n", []string{"From=a@b"}, "", 1},
		{"empty value", "Bcc:\r\nTo: \r\n\r\n", []string{"Bcc=", "To="}, "", 0},
		{"colons in the value", "Subject: a:b: c\r\n\r\n", []string{"Subject=a:b: c"}, "", 0},
		{"NUL", "From: a\x00b\r\nX\x00Y: z\r\n\r\n", []string{"From=a\x00b"}, "", 1},
		{"8-bit value", "Subject: \xfcber\r\n\r\n", []string{"Subject=\xfcber"}, "", 0},
		{"8-bit name", "From: a@b\r\n\xfcber: x\r\n\r\n", []string{"From=a@b"}, "", 1},
		{"bare CR in the value", "Subject: a\rFrom: c@d\r\n\r\n", []string{"Subject=a\rFrom: c@d"}, "", 0},
		{"line of CR CR LF", "From: a@b\r\n\r\r\nTo: c@d\r\n\r\n", []string{"From=a@b", "To=c@d"}, "", 1},
		{"line of 64 KiB", "X: " + long + "\r\nFrom: a@b\r\n\r\nbody", []string{"X=" + long, "From=a@b"}, "body", 0},
		{"name that is too long", "From: a@b\r\n" + long + ": x\r\n\r\nbody", []string{"From=a@b"}, "body", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tc.in), iotest.DataErrReader(iotest.HalfReader(strings.NewReader(tc.in)))} {
				h, err := ReadHeader(r, HeaderLimits{})
				if err != nil {
					t.Fatal(err)
				}
				var fields []string
				for _, f := range h.Fields {
					fields = append(fields, f.Name+"="+f.Value())
				}
				if got, want := strings.Join(fields, "|"), strings.Join(tc.fields, "|"); got != want {
					t.Errorf("fields %.200q, want %.200q", got, want)
				}
				if got := tc.in[h.BodyOffset:]; got != tc.body {
					t.Errorf("body %.200q, want %.200q", got, tc.body)
				}
				if h.Malformed != tc.malformed {
					t.Errorf("%d malformed lines, want %d", h.Malformed, tc.malformed)
				}
				checkHeader(t, tc.in, h)
			}
		})
	}
}

// checkHeader checks what holds for every header, however malformed.
func checkHeader(t *testing.T, letter string, h *Header) {
	t.Helper()
	end := int64(0)
	for i, f := range h.Fields {
		if f.Start < end || i > 0 && f.Start != end || f.End <= f.Start || f.End > h.BodyOffset {
			t.Fatalf("field %d is %d to %d, after %d, in a header of %d", i, f.Start, f.End, end, h.BodyOffset)
		}
		end = f.End
		raw := letter[f.Start:f.End]
		name, rest, found := strings.Cut(raw, ":")
		if !found || strings.Trim(name, " \t") != f.Name || !strings.HasPrefix(rest, f.Body) {
			t.Fatalf("field %q: %q is not in %q", f.Name, f.Body, raw)
		}
		if strings.Contains(f.Value(), "\n") {
			t.Fatalf("value %q", f.Value())
		}
	}
	if h.BodyOffset < end || h.BodyOffset > int64(len(letter)) {
		t.Fatalf("body at %d, after %d", h.BodyOffset, end)
	}
}

func TestHeaderGet(t *testing.T) {
	h, err := ReadHeader(strings.NewReader("received: 1\r\nFrom: a@b\r\nReceived: 2\r\nRECEIVED: 3\r\n\r\n"), HeaderLimits{})
	if err != nil {
		t.Fatal(err)
	}
	if n := h.Count("Received"); n != 3 {
		t.Errorf("Count = %d", n)
	}
	if v := h.Get("Received"); v != "1" {
		t.Errorf("Get = %q", v)
	}
	if v, n := h.Get("To"), h.Count("To"); v != "" || n != 0 {
		t.Errorf("absent field: %q, %d", v, n)
	}
}

func TestHeaderLimits(t *testing.T) {
	field := "X: y\r\n"
	for _, tc := range []struct {
		name, in string
		limits   HeaderLimits
		want     error
	}{
		{"octets, just fits", field + "\r\n" + "body", HeaderLimits{Octets: 8}, nil},
		{"octets, one too many", field + "\r\n" + "body", HeaderLimits{Octets: 7}, ErrHeaderTooLarge},
		{"octets, no empty line, just fits", field, HeaderLimits{Octets: 6}, nil},
		{"octets, no empty line, one too many", field, HeaderLimits{Octets: 5}, ErrHeaderTooLarge},
		{"fields, just fit", field + field + "\r\n", HeaderLimits{Fields: 2}, nil},
		{"fields, one too many", field + field + field + "\r\n", HeaderLimits{Fields: 2}, ErrHeaderTooLarge},
		{"default fields", strings.Repeat(field, 2000) + "\r\n", HeaderLimits{}, nil},
		{"default fields, one too many", strings.Repeat(field, 2001) + "\r\n", HeaderLimits{}, ErrHeaderTooLarge},
		{"default octets", "X: " + strings.Repeat("y", 256<<10-7) + "\r\n\r\n", HeaderLimits{}, nil},
		{"default octets, one too many", "X: " + strings.Repeat("y", 256<<10-6) + "\r\n\r\n", HeaderLimits{}, ErrHeaderTooLarge},
		{"no header is never too large", strings.Repeat("no header here\r\n", 1<<16), HeaderLimits{}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := ReadHeader(strings.NewReader(tc.in), tc.limits); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestReadHeaderError(t *testing.T) {
	cause := errors.New("read failed")
	r := io.MultiReader(strings.NewReader("From: a@b\r\n"), iotest.ErrReader(cause))
	if _, err := ReadHeader(r, HeaderLimits{}); !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
}

// TestHeaderVectors reads the header of every public MIME message.
func TestHeaderVectors(t *testing.T) {
	messages, fields := 0, 0
	err := filepath.WalkDir(mailtest.Vectors(t, "mime"), func(name string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".eml" {
			return err
		}
		letter, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		h, err := ReadHeader(strings.NewReader(string(letter)), HeaderLimits{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return nil
		}
		checkHeader(t, string(letter), h)
		messages++
		fields += len(h.Fields)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d messages, %d fields", messages, fields)
	if messages < 53 {
		t.Errorf("only %d messages: the folder is not complete", messages)
	}
}

// TestReadHeaderIsLinear reads hostile headers of the full size: quadratic work would take minutes.
func TestReadHeaderIsLinear(t *testing.T) {
	for name, unit := range map[string]string{
		"continuations":   " x\r\n",
		"malformed lines": "x\r\n",
		"blanks":          " ",
		"CR":              "\r",
	} {
		letter := "X: y\r\n" + strings.Repeat(unit, (255<<10)/len(unit))
		start := time.Now()
		if _, err := ReadHeader(strings.NewReader(letter), HeaderLimits{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > time.Second { // it is some milliseconds
			t.Errorf("%s: took %s", name, took)
		}
	}
}

func TestWithout(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"first", "X: 1\r\nA: 2\r\n\r\nbody", "A: 2\r\n\r\nbody"},
		{"last", "A: 1\r\nx: 2\r\n 3\r\n\r\nbody", "A: 1\r\n\r\nbody"},
		{"several", "X: 1\nX: 2\nA: 3\nX: 4\n\nX: body", "A: 3\n\nX: body"},
		{"all", "X: 1\r\n\r\nbody", "\r\nbody"},
		{"all, no body", "X: 1\r\n", ""},
		{"none", "A: 1\r\n\r\nbody", "A: 1\r\n\r\nbody"},
		{"mbox line stays", "From a@b\r\nX: 1\r\n\r\nbody", "From a@b\r\n\r\nbody"},
		{"malformed line goes with its field", "X: 1\r\nnonsense\r\nA: 2\r\n\r\n", "A: 2\r\n\r\n"},
		{"no header", "X 1\r\n", "X 1\r\n"},
		{"empty", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, err := ReadHeader(strings.NewReader(tc.in), HeaderLimits{})
			if err != nil {
				t.Fatal(err)
			}
			s := Without(strings.NewReader(tc.in), int64(len(tc.in)), h, func(f Field) bool { return f.Is("X") })
			if s.Size() != int64(len(tc.want)) {
				t.Errorf("Size() = %d, want %d", s.Size(), len(tc.want))
			}
			if err := iotest.TestReader(s, []byte(tc.want)); err != nil {
				t.Error(err)
			}
		})
	}
	h := &Header{}
	if _, err := io.ReadAll(Without(strings.NewReader("short"), 100, h, nil)); err != io.ErrUnexpectedEOF {
		t.Errorf("a letter shorter than its size: %v", err)
	}
}

func FuzzReadHeader(f *testing.F) {
	for _, s := range []string{
		"From: a@b\r\nTo: c@d\r\n\r\nbody", "From: a@b\nSubject: x\n y\n\nbody", " x\r\nFrom: a\r\n\r\n", "no header\r\n\r\n", "\r\n",
		"From a\nFrom: b\n\n", "A: b\r\nnonsense\r\n c\r\nD: e", "A:\r\n \r\n\r\n", "A : b\r\r\n\r\n", ":\r\n\r\n", "\x00: x\n\n", "A: b\r",
	} {
		f.Add(s, 100, 3)
		f.Add(s, math.MaxInt, math.MaxInt)
		f.Add(s, math.MinInt, math.MinInt)
	}
	f.Fuzz(func(t *testing.T, letter string, octets, fields int) {
		limits := HeaderLimits{Octets: octets, Fields: fields}
		h, err := ReadHeader(strings.NewReader(letter), limits)
		if err != nil {
			if err != ErrHeaderTooLarge {
				t.Fatal(err)
			}
			return
		}
		checkHeader(t, letter, h)
		again, err := ReadHeader(iotest.OneByteReader(strings.NewReader(letter)), limits)
		if err != nil || len(again.Fields) != len(h.Fields) || again.BodyOffset != h.BodyOffset || again.Malformed != h.Malformed {
			t.Fatalf("octet by octet: %+v, %v, want %+v", again, err, h)
		}
		rest := Without(strings.NewReader(letter), int64(len(letter)), h, func(f Field) bool { return f.Is("from") })
		got, err := io.ReadAll(rest)
		if err != nil || int64(len(got)) != rest.Size() {
			t.Fatalf("Without: %d octets, %v, want %d", len(got), err, rest.Size())
		}
		if rest.Dropped() != h.Count("From") {
			t.Fatalf("Without dropped %d of %d fields", rest.Dropped(), h.Count("From"))
		}
	})
}

func BenchmarkReadHeader(b *testing.B) {
	letter := strings.Repeat("Received: from mail.example.org ([192.0.2.1])\r\n by mx.example.net with ESMTPS; Tue, 24 Nov 2026 11:55:06 +0000\r\n", 4) +
		"From: Anna <anna@example.org>\r\nTo: Bert <bert@example.net>\r\nSubject: Hello\r\nDate: Tue, 24 Nov 2026 11:55:06 +0000\r\n" +
		"Message-ID: <1@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat("body\r\n", 1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadHeader(strings.NewReader(letter), HeaderLimits{}); err != nil {
			b.Fatal(err)
		}
	}
}
