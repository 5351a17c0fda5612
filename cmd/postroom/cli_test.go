package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/demo"
)

// result is what a command line did.
type result struct {
	status         int
	stdout, stderr string
}

// postroom runs one command line in this process.
func postroom(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	p := &program{stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr, passwords: quickPasswords}
	status := p.run(t.Context(), args)
	return result{status, stdout.String(), stderr.String()}
}

// quickPasswords are cheap to hash.
var quickPasswords = accounts.Options{Cost: 4, Iterations: 4096}

// installation is a configuration file with a data directory that is still to be made.
type installation struct {
	t       *testing.T
	config  string
	data    string
	outside *demo.Outside
}

func install(t *testing.T) *installation {
	t.Helper()
	dir := t.TempDir()
	outside, err := demo.OpenOutside(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(outside.Close)
	in := &installation{t: t, config: filepath.Join(dir, "postroom.toml"), data: filepath.Join(dir, "data"), outside: outside}
	in.configure(fmt.Sprintf(`hostname = "mail.example.org"
data_dir = %q
[listen]
smtp = ["127.0.0.1:0"]
pop3 = ["127.0.0.1:0"]
pop3s = ["127.0.0.1:0"]
submission = []
submissions = []
http = []
https = []
admin = []
[tls]
source = "local"
[dns]
resolvers = [%q]
`, in.data, outside.DNS))
	return in
}

// configure replaces the configuration file.
func (in *installation) configure(text string) {
	in.t.Helper()
	if err := os.WriteFile(in.config, []byte(text), 0o600); err != nil {
		in.t.Fatal(err)
	}
}

// try runs a command on the installation.
func (in *installation) try(stdin string, args ...string) result {
	in.t.Helper()
	return postroom(in.t, stdin, append(args, "--config", in.config)...)
}

// must runs a command that has to be done, and returns what it prints.
func (in *installation) must(stdin string, args ...string) string {
	in.t.Helper()
	r := in.try(stdin, args...)
	if r.status != statusDone {
		in.t.Fatalf("postroom %s: status %d\n%s", strings.Join(args, " "), r.status, r.stderr)
	}
	return r.stdout
}

// read decodes what a command prints with --json.
func (in *installation) read(into any, args ...string) {
	in.t.Helper()
	if err := json.Unmarshal([]byte(in.must("", append(args, "--json")...)), into); err != nil {
		in.t.Fatalf("postroom %s --json: %v", strings.Join(args, " "), err)
	}
}

// settled is an installation with a domain and two accounts.
func settled(t *testing.T) *installation {
	t.Helper()
	in := install(t)
	in.must("", "domain", "add", "example.org")
	in.must("correct horse\n", "account", "add", "anna@example.org", "--password-stdin", "--name", "Anna")
	in.must("battery staple\n", "account", "add", "ben@example.org", "--password-stdin", "--quota", "5MiB")
	return in
}

func TestWrongUsage(t *testing.T) {
	for _, tc := range []struct {
		args string
		says []string // on standard error
	}{
		{"", []string{`expected one of "serve"`, "postroom --help"}},
		{"sevre", []string{"unexpected argument sevre", `"serve"`}},
		{"dsn check", []string{"unexpected argument dsn"}},
		{"serve --port 25", []string{"unknown flag --port", "`postroom serve --help`"}},
		{"domain", []string{`expected one of "add"`, "`postroom domain --help`"}},
		{"domain add", []string{`<domain>`, "usage: postroom domain add <domain>"}},
		{"domain add under_score.org", []string{`"under_score.org"`, "`postroom domain add --help`"}},
		{"domain set example.org", []string{"--catch-all ADDRESS", "--no-plus"}},
		{"domain set example.org --mta-sts report", []string{`--mta-sts`, "none, testing or enforce"}},
		{"domain set example.org --plus + --no-plus", []string{"--plus", "--no-plus"}},
		{"account add anna", []string{`"anna"`, "no domain"}},
		{"account add anna@example.org", []string{"--password-stdin", "--generate"}}, // no terminal to ask at
		{"account add anna@example.org --generate --password-stdin", []string{"--generate", "--password-stdin"}},
		{"account add anna@example.org --generate --quota plenty", []string{"plenty", "5GiB"}},
		{"account device add anna@example.org phone --send-only --receive-only", []string{"--send-only"}},
		{"alias add info@example.org", []string{"<target>"}},
		{"resolve", []string{"<address>"}},
		{"version extra", []string{"unexpected argument extra"}},
		{"config check --config", []string{"--config"}},
	} {
		t.Run(tc.args, func(t *testing.T) {
			r := postroom(t, "", strings.Fields(tc.args)...)
			if r.status != statusUsage || r.stdout != "" {
				t.Errorf("status %d, standard output %q; want %d and nothing", r.status, r.stdout, statusUsage)
			}
			for _, want := range tc.says {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("%q lacks %q", r.stderr, want)
				}
			}
			if strings.Count(r.stderr, "\n") != 1 || !strings.HasPrefix(r.stderr, "postroom: ") {
				t.Errorf("not one sentence: %q", r.stderr)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, tc := range []struct{ args, says string }{
		{"--help", "Receive mail, hand it out and send it"},
		{"account --help", "Give an account a new password."},
		{"account device add --help", "--receive-only"},
		{"resolve --help", "Exit status 0"},
		{"version", "postroom "},
	} {
		r := postroom(t, "", strings.Fields(tc.args)...)
		if r.status != statusDone || !strings.Contains(r.stdout, tc.says) || r.stderr != "" {
			t.Errorf("postroom %s: status %d, %q, %q; want %q", tc.args, r.status, r.stdout, r.stderr, tc.says)
		}
	}
}
