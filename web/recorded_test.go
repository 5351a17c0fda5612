package web

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
)

var update = flag.Bool("update", false, "write the answers to the recorded requests anew")

// TestRecordedRequests replays requests as mail programs send them, and compares whole answers. The documents are also held to
// the rules of their formats.
func TestRecordedRequests(t *testing.T) {
	files, err := filepath.Glob("testdata/recorded/*/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d recorded requests, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(file, "testdata/recorded/"), ".txt"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { replay(t, file) }) // errors of Autodiscover tell the time
		})
	}
}

func replay(t *testing.T, file string) {
	site := newSite(t)
	handler := site.HTTPS()
	if filepath.Base(filepath.Dir(file)) == "http" {
		handler = site.HTTP()
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, recorded(t, file))
	got := answer{w.Code, w.Header(), w.Body.String()}
	validate(t, got)

	golden := strings.TrimSuffix(file, ".txt") + ".answer"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// recorded reads a request; its lines end with LF in the file, and "Content-Length: *" stands for what it is.
func recorded(t *testing.T, file string) *http.Request {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, body, ok := bytes.Cut(b, []byte("\n\n"))
	if !ok {
		t.Fatalf("%s has no empty line", file)
	}
	head = bytes.ReplaceAll(head, []byte("Content-Length: *"), fmt.Appendf(nil, "Content-Length: %d", len(body)))
	head = append(bytes.ReplaceAll(head, []byte("\n"), []byte("\r\n")), "\r\n\r\n"...)
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(append(head, body...))))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return r
}

// validate holds a document to the rules of its format.
func validate(t *testing.T, a answer) {
	t.Helper()
	kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	switch {
	case a.status != http.StatusOK:
	case kind == "text/xml" && strings.Contains(a.body, "<clientConfig"):
		checkMozilla(t, a.body)
	case kind == "text/xml":
		checkOutlook(t, a.body)
	case kind == "application/x-apple-aspen-config":
		checkProfile(t, a.body)
	case kind == "text/html":
		checkPage(t, a)
	}
}
