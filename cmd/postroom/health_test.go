package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/internal/config"
)

// TestHealth has a row for each answer of the admin port.
func TestHealth(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc // nil: nobody listens
		status int
		says   string
	}{
		{"well", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }, statusDone, "well\n"},
		{"not well", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "the writer does not answer\x1b[2J\nmore", http.StatusServiceUnavailable)
		}, statusNo, "not well (503): the writer does not answer?[2J\n"},
		{"another program", http.NotFound, statusNo, "(404)"},
		{"sent elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) }, statusNo, "(302)"},
		{"endless", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 1<<20)) }, statusDone, "well\n"},
		{"nobody", nil, statusUnsure, "no answer from 127.0.0.1:"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/healthz" {
					fmt.Fprintln(w, "ok")
					return
				}
				tc.answer(w, r)
			}))
			defer s.Close()
			if tc.answer == nil {
				s.Close()
			}
			in := install(t)
			text, err := os.ReadFile(in.config)
			if err != nil {
				t.Fatal(err)
			}
			in.configure(strings.Replace(string(text), "admin = []", fmt.Sprintf("admin = [%q]", strings.TrimPrefix(s.URL, "http://")), 1))
			r := in.try("", "health")
			if said := r.stdout + r.stderr; r.status != tc.status || !strings.Contains(said, tc.says) || strings.Count(said, "\n") != 1 {
				t.Errorf("status %d, %q; want %d, %q", r.status, said, tc.status, tc.says)
			}
		})
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			http.Error(w, "database: busy", http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	in := install(t)
	text, err := os.ReadFile(in.config)
	if err != nil {
		t.Fatal(err)
	}
	in.configure(strings.Replace(string(text), "admin = []", fmt.Sprintf("admin = [%q]", strings.TrimPrefix(s.URL, "http://")), 1))
	in.must("", "health")
	oneSentence(t, in.try("", "health", "--ready"), statusNo, "(503): database: busy")
	oneSentence(t, install(t).try("", "health"), statusNo, "no admin port")
}

func TestAdminAddress(t *testing.T) {
	for _, tc := range []struct {
		listen []string
		want   string
	}{
		{nil, ""},
		{[]string{"127.0.0.1:8025"}, "127.0.0.1:8025"},
		{[]string{":8025"}, "127.0.0.1:8025"},
		{[]string{"0.0.0.0:8025"}, "127.0.0.1:8025"},
		{[]string{"[::]:8025"}, "[::1]:8025"},
		{[]string{"192.0.2.1:8025", "127.0.0.1:1"}, "192.0.2.1:8025"},
	} {
		c := config.Default()
		c.Listen.Admin = tc.listen
		if got, ok := adminAddress(c); got != tc.want || ok != (tc.want != "") {
			t.Errorf("%q: %q, %t", tc.listen, got, ok)
		}
	}
}

// TestBackup restores what the command wrote, and shows that it writes over nothing.
func TestBackup(t *testing.T) {
	in := settled(t)
	to := t.TempDir()
	file := filepath.Join(to, "copy.db")
	in.must("", "backup", file)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want a file that nobody else reads", info, err)
	}
	oneSentence(t, in.try("", "backup", file), statusNo, "is there already")
	oneSentence(t, in.try("", "backup", filepath.Join(to, "none", "copy.db")), statusUnsure, "no such file or directory")
	streamed := in.must("", "backup", "-")

	for name, content := range map[string]func() []byte{
		"file":            func() []byte { b, _ := os.ReadFile(file); return b },
		"standard output": func() []byte { return []byte(streamed) },
	} {
		other := install(t)
		if err := os.Mkdir(other.data, 0o700); err != nil {
			t.Fatal(err)
		}
		key, err := os.ReadFile(filepath.Join(in.data, "secret.key"))
		if err != nil {
			t.Fatal(err)
		}
		for name, octets := range map[string][]byte{"postroom.db": content(), "secret.key": key} {
			if err := os.WriteFile(filepath.Join(other.data, name), octets, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := other.must("", "account", "list"), in.must("", "account", "list"); got != want {
			t.Errorf("%s: restored\n%s\nwant\n%s", name, got, want)
		}
		if got, want := other.must("", "dkim", "export", "example.org"), in.must("", "dkim", "export", "example.org"); got != want || got == "" {
			t.Errorf("%s: other keys", name)
		}
	}
}
