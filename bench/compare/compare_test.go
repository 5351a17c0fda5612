package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAlone does some of the works for a moment on Postroom alone: what is written down is there, and nothing is left behind.
func TestAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server")
	}
	t.Chdir("../..")
	dir := t.TempDir()
	out := filepath.Join(dir, "results.md")
	err := run(t.Context(), options{quick: true, alone: true, only: "starttls,large,pop3,idle,memory,start,sending,queued", dir: dir, out: out})
	if err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"letters of 50 MB", "idle SMTP connections, TLS: PSS each", "letters of 25 MB at once", "start with",
		"from the queue to a fast server: Postroom", "letters queued for"} {
		if !strings.Contains(string(written), want) {
			t.Errorf("the figures have no %q", want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "postroom-bench-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestMedian(t *testing.T) {
	for want, of := range map[float64][]float64{0: nil, 2: {3, 1, 2}, 1.5: {2, 1}, 7: {7}} {
		if got := medianOf(of); got != want {
			t.Errorf("of %v: %v", of, got)
		}
	}
}
