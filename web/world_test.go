package web

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/mtasts"
	"github.com/postroom/postroom/internal/resolve"
)

func domain(s string) addr.Domain {
	d, err := addr.ParseDomain(s)
	if err != nil {
		panic(err)
	}
	return d
}

func mailbox(s string) addr.Address {
	a, err := addr.Parse(s)
	if err != nil {
		panic(err)
	}
	return a
}

// domains are what is served here.
type domains map[string]mtasts.Mode

func (d domains) Served(_ context.Context, name addr.Domain) (mtasts.Mode, bool, error) {
	if name.ASCII() == "broken.example" {
		return "", false, io.ErrUnexpectedEOF
	}
	mode, ok := d[name.ASCII()]
	return mode, ok, nil
}

// exchangers are MX records: hosts apart by blanks, "null" for the null MX, "?" for a DNS that fails.
type exchangers map[string]string

func (e exchangers) MX(_ context.Context, name string) (all []resolve.MX, err error) {
	switch hosts := e[name]; hosts {
	case "":
		return nil, &resolve.Error{Kind: resolve.ErrNoData, Name: name, Type: "MX"}
	case "?":
		return nil, &resolve.Error{Kind: resolve.ErrTimeout, Name: name, Type: "MX"}
	case "null":
		return []resolve.MX{{}}, nil
	default:
		for i, h := range strings.Fields(hosts) {
			all = append(all, resolve.MX{Preference: uint16(10 * i), Host: h})
		}
		return all, nil
	}
}

const host = "mail.example.org"

func options() Options {
	return Options{
		Hostname: host, Ports: Ports{POP3S: 995, POP3: 110, Submissions: 465, Submission: 587},
		Domains: domains{"example.org": mtasts.Testing, "xn--bcher-kva.example": mtasts.None, "other.example": mtasts.Enforce},
		DNS:     exchangers{"example.org": host, "other.example": "mx.elsewhere.example"},
	}
}

func newSite(t *testing.T, change ...func(*Options)) *Site {
	t.Helper()
	o := options()
	for _, c := range change {
		c(&o)
	}
	s, err := NewSite(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// answer is what a handler says.
type answer struct {
	status int
	header http.Header
	body   string
}

func ask(h http.Handler, method, url string, body io.Reader) answer {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, url, body))
	return answer{w.Code, w.Header(), w.Body.String()}
}

func get(h http.Handler, url string) answer { return ask(h, http.MethodGet, url, nil) }

// String is the answer as it is kept in a file: fields that matter, in order.
func (a answer) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d\n", a.status)
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range a.header {
			if !yield(name) {
				return
			}
		}
	}) {
		if name != "Content-Length" {
			fmt.Fprintf(&b, "%s: %s\n", name, a.header.Get(name))
		}
	}
	return b.String() + "\n" + a.body
}

// logTo is a logger that writes into a buffer.
func logTo(b *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }
