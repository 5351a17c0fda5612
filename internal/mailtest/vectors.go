package mailtest

import (
	"os"
	"path/filepath"
	"testing"
)

// Vectors returns the path of a file or folder of the public test vectors, which stand beside the project in
// ../shared/testdata or where $POSTROOM_VECTORS says. Where they are absent the test is skipped, naming them.
func Vectors(t testing.TB, sub ...string) string {
	t.Helper()
	root := os.Getenv("POSTROOM_VECTORS")
	if root == "" {
		root = filepath.Join(filepath.Dir(moduleRoot(t)), "shared", "testdata")
	}
	path := filepath.Join(append([]string{root}, sub...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("test vectors %s are not here (see $POSTROOM_VECTORS)", filepath.Join(sub...))
	}
	return path
}

// moduleRoot finds the folder with go.mod above the test's own.
func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test's folder")
		}
	}
}
