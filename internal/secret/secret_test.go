package secret

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestSeal(t *testing.T) {
	k, err := New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	s := k.For("dkim")
	for _, plain := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("key "), 1000)} {
		sealed, err := s.Seal(plain)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Open(sealed); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d octets: got %d, %v", len(plain), len(got), err)
		}
		if len(plain) > 8 && bytes.Contains(sealed, plain) { // a single octet is there by chance
			t.Error("it is not sealed")
		}
		if _, err := k.For("tls").Open(sealed); !errors.Is(err, ErrSealed) {
			t.Errorf("for another purpose: %v", err)
		}
		for i := range sealed {
			changed := bytes.Clone(sealed)
			changed[i] ^= 1
			if _, err := s.Open(changed); !errors.Is(err, ErrSealed) {
				t.Fatalf("octet %d changed: %v", i, err)
			}
		}
		if _, err := s.Open(sealed[:len(sealed)-1]); !errors.Is(err, ErrSealed) {
			t.Errorf("cut: %v", err)
		}
	}
}

// TestLoad shows that everybody gets the same key, however many come first, and that only its owner can read it.
func TestLoad(t *testing.T) {
	dir := t.TempDir()
	var wait sync.WaitGroup
	sealed := make(chan []byte, 20)
	for range 20 {
		wait.Go(func() {
			k, err := Load(dir)
			if err != nil {
				t.Error(err)
				return
			}
			b, err := k.For("x").Seal([]byte("word"))
			if err != nil {
				t.Error(err)
			}
			sealed <- b
		})
	}
	wait.Wait()
	close(sealed)
	k, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for b := range sealed {
		if plain, err := k.For("x").Open(b); err != nil || string(plain) != "word" {
			t.Errorf("%q, %v", plain, err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a key of five octets")
	}
	if _, err := Load(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a key where there is no folder")
	}
}
