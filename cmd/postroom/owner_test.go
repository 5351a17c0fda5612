package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// commandVariable makes this test binary run a postroom command line, so that a test can watch a process give up root.
const commandVariable = "POSTROOM_TEST_COMMAND"

func TestMain(m *testing.M) {
	if args, ok := os.LookupEnv(commandVariable); ok {
		p := &program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, passwords: quickPasswords}
		os.Exit(p.run(context.Background(), strings.Fields(args)))
	}
	os.Exit(m.Run())
}

func TestRootActsAsTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give up root")
	}
	const uid, gid = 65534, 65533
	in := install(t)
	if err := os.Mkdir(in.data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(filepath.Dir(in.data)), 0o755); err != nil { // the test's folder is closed to others
		t.Fatal(err)
	}
	if err := os.Chown(in.data, uid, gid); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"domain add example.org", "account add anna@example.org --generate"} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), commandVariable+"="+args+" --config "+in.config)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
	}
	files := 0
	err := filepath.WalkDir(in.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files++
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != uid || stat.Gid != gid {
			t.Errorf("%s belongs to %+v, want %d:%d", path, info.Sys(), uid, gid)
		}
		return nil
	})
	if err != nil || files < 2 {
		t.Fatalf("%d files, %v", files, err)
	}
}

func TestOwnerOf(t *testing.T) {
	dir := t.TempDir()
	want := owner{os.Geteuid(), os.Getegid()}
	for _, path := range []string{dir, filepath.Join(dir, "to", "be", "made")} {
		if got, err := ownerOf(path); err != nil || got != want {
			t.Errorf("ownerOf(%s) is %+v, %v; want %+v", path, got, err, want)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ownerOf(filepath.Join(file, "below")); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("below a file: %v", err)
	}
}

func TestGroupsOfAUserWithoutAName(t *testing.T) {
	if got := (owner{uid: 2_000_000_000, gid: 7}).groups(); len(got) != 1 || got[0] != 7 {
		t.Errorf("got %v, want only its own", got)
	}
}
