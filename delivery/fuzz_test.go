package delivery

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/wire"
	"github.com/postroom/postroom/queue"
)

// puppet is a connection whose other end says what it was told, a piece for each read, and remembers what it heard. At its end
// it closes, or falls silent.
type puppet struct {
	pieces [][]byte
	silent bool
	heard  bytes.Buffer
	after  bytes.Buffer // what was read since the end of the content was written
	ended  bool
	reads  int
}

func (p *puppet) Read(b []byte) (int, error) {
	p.reads++
	for len(p.pieces) > 0 && len(p.pieces[0]) == 0 {
		p.pieces = p.pieces[1:]
	}
	switch {
	case len(p.pieces) > 0:
	case p.silent:
		return 0, os.ErrDeadlineExceeded
	default:
		return 0, io.EOF
	}
	n := copy(b, p.pieces[0])
	p.pieces[0] = p.pieces[0][n:]
	if p.ended {
		p.after.Write(b[:n])
	}
	return n, nil
}

func (p *puppet) Write(b []byte) (int, error) {
	p.heard.Write(b)
	p.ended = p.ended || endsLetter(p.heard.Bytes())
	return len(b), nil
}

// endsLetter tells whether the whole letter went out, in either way.
func endsLetter(heard []byte) bool {
	stuffed := strings.ReplaceAll(letterText, "\r\n.", "\r\n..")
	return bytes.Contains(heard, []byte(stuffed+".\r\n")) || bytes.Contains(heard, []byte(" LAST\r\n"+letterText))
}

func (p *puppet) Close() error                     { return nil }
func (p *puppet) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (p *puppet) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (p *puppet) SetDeadline(time.Time) error      { return nil }
func (p *puppet) SetReadDeadline(time.Time) error  { return nil }
func (p *puppet) SetWriteDeadline(time.Time) error { return nil }

// fixed is a Resolver that knows one host.
type fixed struct{}

func (fixed) Exchangers(context.Context, string) (resolve.Exchangers, error) {
	return resolve.Exchangers{MX: []resolve.MX{{Preference: 10, Host: "mx.remote.example"}}}, nil
}

func (fixed) Addresses(context.Context, string) (resolve.Addresses, error) {
	return resolve.Addresses{IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Name: "mx.remote.example"}, nil
}

func (fixed) TLSA(context.Context, string) ([]resolve.TLSA, bool, error) { return nil, false, nil }
func (fixed) TXT(context.Context, string) ([]string, error) {
	return nil, &resolve.Error{Kind: resolve.ErrNoData}
}

// scriptSeeds are what the servers of all conversations say.
func scriptSeeds(f *testing.F) (seeds [][]byte) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var seed []byte
		for line := range strings.SplitSeq(string(content)+"\n=== ", "\n") {
			switch mark, text, _ := strings.Cut(line, " "); {
			case mark == "===" && len(seed) > 0:
				seeds, seed = append(seeds, seed), nil
			case mark == "S:" && text != "" && text[0] != '<':
				seed = append(seed, text+"\r\n"...)
			case mark == "S!":
				seed = append(seed, unquote(text)...)
			case mark == "C:":
				seed = append(seed, 0xff)
			}
		}
	}
	return seeds
}

// FuzzClient gives the client whatever a server may say. It must end, in bounded time and memory, with an outcome for each
// recipient, and may say Delivered only when the first reply after the whole letter was 2yz.
func FuzzClient(f *testing.F) {
	f.Add([]byte("220 x\r\n\xff250-x\r\n250 PIPELINING\r\n\xff250 a\r\n250 b\r\n250 c\r\n354 go\r\n\xff250 kept\r\n\xff221 bye\r\n"), false)
	f.Add([]byte("220 x\r\n\xff250-x\r\n250 CHUNKING\r\n\xff250 a\r\n\xff550 b\r\n\xff250 c\r\n\xff250 kept\r\n"), true)
	f.Add([]byte("220 x\r\n\xff250 x\r\n\xff250 a\r\n\xff250 b\r\n\xff452 c\r\n\xff354 go\r\n250 kept\r\n\xff250 again\r\n"), true)
	f.Add([]byte("220 x\r\n\xff250-x\r\n250-STARTTLS\r\n250 LIMITS RCPTMAX=1\r\n\xff220 go\r\n\x16\x03\x03\x00\x02\x00"), false)
	f.Add([]byte("220-\r\n220-\r\n220-\r\n"), true)
	f.Add([]byte("220 x\r\n\xff250-x\r\n250 MAILMAX\r\n\xff250 a\r\n\xff421 bye\r\n"), false)
	for _, seed := range scriptSeeds(f) {
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, said []byte, silent bool) {
		var puppets []*puppet
		d := New(Options{Hostname: hostname, Resolver: fixed{}, Dial: func(context.Context, netip.Addr, netip.AddrPort) (net.Conn, error) {
			p := &puppet{pieces: bytes.Split(bytes.Clone(said), []byte{0xff}), silent: silent}
			puppets = append(puppets, p)
			return p, nil
		}})
		outcomes := d.Deliver(t.Context(), letter(t), recipients(t, "a@remote.example", "b@remote.example"), opens(letterText))
		d.Close()
		reads, believed := 0, false
		for _, p := range puppets {
			reads += p.reads
			r, err := wire.ReadReply(bufio.NewReader(&p.after))
			believed = believed || err == nil && r.Code/100 == 2
		}
		if len(puppets) > maxTries+3 || reads > 1000+len(said)*len(puppets) {
			t.Fatalf("%d connections, %d reads", len(puppets), reads)
		}
		for _, o := range outcomes {
			switch {
			case o.Status == queue.Delivered && !believed:
				t.Fatalf("delivered without a word of the server: %+v", o)
			case len(o.Enhanced) < 5 || o.Reply == "" || len(o.Reply) > 4096:
				t.Fatalf("outcome %+v", o)
			case o.Status == queue.Failed && !o.Remote && o.Enhanced[0] != '5':
				t.Fatalf("outcome %+v", o)
			}
		}
	})
}

func FuzzExtensions(f *testing.F) {
	f.Add("250-x\r\n250-SIZE 100\r\n250-AUTH PLAIN LOGIN\r\n250 LIMITS RCPTMAX=5 MAILMAX=7 RCPTDOMAINMAX=1\r\n")
	f.Add("250-x\r\n250-SIZE -1\r\n250-AUTH=LOGIN\r\n250 LIMITS RCPTMAX=+5 MAILMAX=99999999999999999999 RCPTDOMAINMAX=0\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		r, err := wire.ReadReply(bufio.NewReader(strings.NewReader(in)))
		if err != nil {
			return
		}
		e := parseExtensions(r)
		if e.size < 0 || e.rcptMax < 1 || e.rcptMax > maxRecipients || e.mailMax < 0 || e.domains < 0 {
			t.Fatalf("%q offers %+v", in, e)
		}
	})
}
