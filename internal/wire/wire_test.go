package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func reader(s string) *bufio.Reader { return bufio.NewReaderSize(strings.NewReader(s), 16) }

func TestReadLine(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		max      int
		want     string
		err      error
		rest     string
	}{
		{"ordinary", "NOOP\r\nQUIT\r\n", 100, "NOOP", nil, "QUIT\r\n"},
		{"empty", "\r\nx", 100, "", nil, "x"},
		{"longer than the buffer", strings.Repeat("a", 50) + "\r\nQUIT", 100, strings.Repeat("a", 50), nil, "QUIT"},
		{"just fits", "12345678\r\n", 10, "12345678", nil, ""},
		{"one too many", "123456789\r\nQUIT", 10, "", ErrLineTooLong, "\nQUIT"},
		{"far too long", strings.Repeat("a", 90) + "\r\nQUIT", 40, "", ErrLineTooLong, ""},
		{"bare LF", "NOOP\nQUIT\r\n", 100, "", ErrBareNewline, "QUIT\r\n"},
		{"bare CR", "NO\rOP\r\nQUIT", 100, "", ErrBadOctet, "QUIT"},
		{"NUL", "NO\x00OP\r\nQUIT", 100, "", ErrBadOctet, "QUIT"},
		{"two CRs", "NOOP\r\r\nQUIT", 100, "", ErrBadOctet, "QUIT"},
		{"cut", "NOO", 100, "", io.EOF, ""},
		{"nothing", "", 100, "", io.EOF, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			br := reader(tc.in)
			got, err := ReadLine(br, tc.max)
			if string(got) != tc.want || !errors.Is(err, tc.err) {
				t.Fatalf("got %q, %v; want %q, %v", got, err, tc.want, tc.err)
			}
			rest, _ := io.ReadAll(br)
			if tc.rest != "" && string(rest) != tc.rest {
				t.Errorf("left %q, want %q", rest, tc.rest)
			}
		})
	}
}

func TestDiscardLine(t *testing.T) {
	br := reader(strings.Repeat("a", 90) + "\r\nQUIT\r\n")
	if _, err := ReadLine(br, 40); !errors.Is(err, ErrLineTooLong) {
		t.Fatal(err)
	}
	if err := DiscardLine(br, 1000); err != nil {
		t.Fatal(err)
	}
	if line, err := ReadLine(br, 40); string(line) != "QUIT" {
		t.Fatalf("got %q, %v: the line was read from its middle", line, err)
	}
	if err := DiscardLine(reader(strings.Repeat("a", 5000)), 1000); !errors.Is(err, ErrLineTooLong) {
		t.Fatalf("got %v for a line without an end", err)
	}
}

// dotCases show where data ends, and where it does not.
var dotCases = []struct {
	name, in, want string
	bare           bool
	err            error
	rest           string
}{
	{"empty", ".\r\nQUIT", "", false, nil, "QUIT"},
	{"ordinary", "a\r\nb\r\n.\r\nQUIT", "a\r\nb\r\n", false, nil, "QUIT"},
	{"stuffed", "..\r\n..x\r\n.y\r\n.\r\n", ".\r\n.x\r\ny\r\n", false, nil, ""},
	{"LF dot LF", "a\n.\nb\r\n.\r\n", "a\n.\nb\r\n", true, nil, ""},
	{"CRLF dot LF", "a\r\n.\nb\r\n.\r\n", "a\r\n\nb\r\n", true, nil, ""},
	{"LF dot CRLF", "a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n", true, nil, ""},
	{"CR dot CR", "a\r.\rb\r\n.\r\n", "a\r.\rb\r\n", true, nil, ""},
	{"CR dot CRLF", "a\r.\r\nb\r\n.\r\n", "a\r.\r\nb\r\n", true, nil, ""},
	{"CRLF dot CR", "a\r\n.\rb\r\n.\r\n", "a\r\n\rb\r\n", true, nil, ""},
	{"CRLF dot CR CRLF", "a\r\n.\r\r\n.\r\n", "a\r\n\r\r\n", true, nil, ""},
	{"CRLF NUL dot CRLF", "\r\n\x00.\r\n.\r\n", "\r\n\x00.\r\n", false, nil, ""},
	{"dot CR dot CRLF", ".\r.\r\n.\r\n", "\r.\r\n", true, nil, ""},
	{"cut in a line", "a\r\nb", "a\r\nb", false, ErrTruncated, ""},
	{"cut after the dot", "a\r\n.", "a\r\n", false, ErrTruncated, ""},
	{"cut before the last LF", "a\r\n.\r", "a\r\n", false, ErrTruncated, ""},
	{"cut at once", "", "", false, ErrTruncated, ""},
}

func TestDotReader(t *testing.T) {
	for _, tc := range dotCases {
		t.Run(tc.name, func(t *testing.T) {
			for _, oneByte := range []bool{false, true} {
				var in io.Reader = strings.NewReader(tc.in)
				if oneByte {
					in = iotest.OneByteReader(in)
				}
				br := bufio.NewReaderSize(in, 16)
				d := NewDotReader(br)
				got, err := io.ReadAll(d)
				if string(got) != tc.want || !errors.Is(err, tc.err) || d.Bare() != tc.bare || d.Ended() != (tc.err == nil) {
					t.Errorf("got %q, %v, bare %t, ended %t; want %q, %v, bare %t", got, err, d.Bare(), d.Ended(), tc.want, tc.err, tc.bare)
				}
				if rest, _ := io.ReadAll(br); string(rest) != tc.rest {
					t.Errorf("left %q, want %q", rest, tc.rest)
				}
			}
		})
	}
}

// slowDots is the dot decoding written for the eye: one octet after the other, the whole input in memory.
func slowDots(in []byte) (content, rest []byte, bare, ended bool) {
	lineBegins := true
	for i := 0; i < len(in); i++ {
		if lineBegins && bytes.HasPrefix(in[i:], []byte(".\r\n")) {
			return content, in[i+3:], bare, true
		}
		if lineBegins && in[i] == '.' {
			lineBegins = false
			continue
		}
		c := in[i]
		crBefore := len(content) > 0 && content[len(content)-1] == '\r' && in[i-1] == '\r'
		if c == '\n' && !crBefore {
			bare = true
		}
		if c != '\n' && crBefore {
			bare = true
		}
		content = append(content, c)
		lineBegins = c == '\n' && crBefore
	}
	return content, nil, bare, false
}

func FuzzDotReader(f *testing.F) {
	for _, tc := range dotCases {
		f.Add([]byte(tc.in), uint8(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		want, rest, bare, end := slowDots(in)
		br := bufio.NewReaderSize(bytes.NewReader(in), 16)
		d := NewDotReader(br)
		var got []byte
		p := make([]byte, int(size)+1)
		var err error
		for err == nil {
			var n int
			n, err = d.Read(p)
			got = append(got, p[:n]...)
		}
		if end != d.Ended() || end != (err == io.EOF) {
			t.Fatalf("ended %t with %v, want %t", d.Ended(), err, end)
		}
		if !end {
			// What a cut leaves undecided (a dot, or a dot and a CR, at the end) is not given out.
			if !bytes.HasPrefix(want, got) || len(want)-len(got) > 1 {
				t.Fatalf("got %q, want %q", got, want)
			}
			return
		}
		left, _ := io.ReadAll(br)
		if !bytes.Equal(got, want) || d.Bare() != bare || !bytes.Equal(left, rest) {
			t.Fatalf("got %q bare %t left %q; want %q bare %t left %q", got, d.Bare(), left, want, bare, rest)
		}
	})
}

func FuzzDotWriter(f *testing.F) {
	for _, tc := range dotCases {
		f.Add([]byte(tc.in), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		var wire bytes.Buffer
		bw := bufio.NewWriter(&wire)
		d := NewDotWriter(bw)
		for rest := in; len(rest) > 0; {
			n := min(int(size)+1, len(rest))
			if _, err := d.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := errors.Join(d.Close(), bw.Flush()); err != nil {
			t.Fatal(err)
		}
		wire.WriteString("NEXT")
		br := bufio.NewReader(&wire)
		got, err := io.ReadAll(NewDotReader(br))
		want := in
		if len(in) > 0 && !bytes.HasSuffix(in, []byte("\r\n")) {
			want = append(bytes.Clone(in), "\r\n"...)
		}
		if left, _ := io.ReadAll(br); err != nil || !bytes.Equal(got, want) || string(left) != "NEXT" {
			t.Fatalf("wrote %q, read %q, %v, left %q", in, got, err, left)
		}
	})
}

func TestReplyAppend(t *testing.T) {
	long := strings.Repeat("ü", 600)
	for _, tc := range []struct {
		name  string
		reply Reply
		want  string
	}{
		{"one line", NewReply(250, 2, 0, "kept"), "250 2.2.0 kept\r\n"},
		{"0.0 is a code", NewReply(250, 0, 0, "ok"), "250 2.0.0 ok\r\n"},
		{"class follows the code", NewReply(450, 7, 1, "later"), "450 4.7.1 later\r\n"},
		{"several lines", NewReply(550, 1, 1, "no", "such user"), "550-5.1.1 no\r\n550 5.1.1 such user\r\n"},
		{"plain", PlainReply(220, "mail.example.org ESMTP"), "220 mail.example.org ESMTP\r\n"},
		{"no code in 354", NewReply(354, 0, 0, "go"), "354 go\r\n"},
		{"nothing to say", PlainReply(250), "250 \r\n"},
		{"no injection", NewReply(550, 1, 1, "x\r\n250 ok\x00\x7f"), "550 5.1.1 x  250 ok  \r\n"},
		{"not UTF-8", PlainReply(550, "\xff"), "550 \ufffd\r\n"},
		{"too long", PlainReply(550, long), "550 " + strings.Repeat("ü", 253) + "\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := string(tc.reply.Append(nil)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestReadReply(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     Reply
		err      error
	}{
		{"enhanced", "250-2.1.5 a\r\n250 2.1.5 b\r\n", NewReply(250, 1, 5, "a", "b"), nil},
		{"different codes", "250-2.1.5 a\r\n250 2.1.6 b\r\n", PlainReply(250, "2.1.5 a", "2.1.6 b"), nil},
		{"wrong class", "450 5.1.5 a\r\n", PlainReply(450, "5.1.5 a"), nil},
		{"no text", "250\r\n", PlainReply(250, ""), nil},
		{"code changes", "250-a\r\n550 b\r\n", Reply{}, ErrBadReply},
		{"no reply", "hello\r\n", Reply{}, ErrBadReply},
		{"code 199", "199 x\r\n", Reply{}, ErrBadReply},
		{"endless", strings.Repeat("250-x\r\n", 200), Reply{}, ErrBadReply},
		{"long line", "250 " + strings.Repeat("x", 3000) + "\r\n", Reply{}, ErrBadReply},
		{"cut", "250-x\r\n", Reply{}, io.EOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ReadReply(bufio.NewReader(strings.NewReader(tc.in)))
			if !reflect.DeepEqual(got, tc.want) || !errors.Is(err, tc.err) {
				t.Errorf("got %+v, %v; want %+v, %v", got, err, tc.want, tc.err)
			}
		})
	}
}

func FuzzReadReply(f *testing.F) {
	f.Add("250-2.1.5 a\r\n250 2.1.5 b\r\n")
	f.Add("354 go\r\n")
	f.Add("250\r\n")
	f.Add("550 5.1.1 \x7f\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		r, err := ReadReply(bufio.NewReader(strings.NewReader(in)))
		if err != nil {
			return
		}
		out := r.Append(nil)
		again, err := ReadReply(bufio.NewReader(bytes.NewReader(out)))
		if err != nil {
			t.Fatalf("%q was written as %q: %v", in, out, err)
		}
		if third := again.Append(nil); !bytes.Equal(third, out) {
			t.Fatalf("%q, then %q", out, third)
		}
	})
}

func FuzzReadLine(f *testing.F) {
	f.Add("NOOP\r\n", 10)
	f.Add(strings.Repeat("a", 100)+"\r\nQUIT\r\n", 20)
	f.Fuzz(func(t *testing.T, in string, max int) {
		if max < 2 || max > 1000 {
			return
		}
		line, err := ReadLine(reader(in), max)
		if err != nil {
			return
		}
		if len(line)+2 > max || !strings.HasPrefix(in, string(line)+"\r\n") || bytes.ContainsAny(line, "\r\n\x00") {
			t.Fatalf("%q gives %q", in, line)
		}
	})
}

func BenchmarkReadLine(b *testing.B) {
	in := []byte(strings.Repeat("RCPT TO:<somebody@example.org>\r\n", 100))
	r := bytes.NewReader(in)
	br := bufio.NewReader(r)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		r.Reset(in)
		br.Reset(r)
		for range 100 {
			if _, err := ReadLine(br, 2048); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkDotReader(b *testing.B) {
	in := append(bytes.Repeat([]byte(strings.Repeat("x", 74)+"\r\n"), 10000), ".\r\n"...)
	r := bytes.NewReader(in)
	br := bufio.NewReaderSize(r, 32<<10)
	p := make([]byte, 32<<10)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		r.Reset(in)
		br.Reset(r)
		d := NewDotReader(br)
		for {
			if _, err := d.Read(p); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkDotWriter(b *testing.B) {
	in := bytes.Repeat([]byte(strings.Repeat("x", 74)+"\r\n"), 10000)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	bw := bufio.NewWriterSize(io.Discard, 32<<10)
	for b.Loop() {
		d := NewDotWriter(bw)
		if _, err := d.Write(in); err != nil {
			b.Fatal(err)
		}
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
