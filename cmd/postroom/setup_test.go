package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/config"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/setup"
	"github.com/postroom/postroom/mailbox"
)

// bench is a machine that setup is tried on: what it would do to the system is only noted.
type bench struct {
	p     *program
	root  bool
	low   int
	facts setup.Facts
	users map[string]owner
	tools []string
	fails string // the tool that fails
	empty bool   // the database is always empty, and takes everything: for tests of what comes before it
}

func (b *bench) IsRoot() bool  { return b.root }
func (b *bench) LowPorts() int { return b.low }

func (b *bench) Look(_ context.Context, _ *config.Config, w setup.Wanted) (*setup.Facts, error) {
	f := b.facts
	f.Wanted, f.Root = w, b.root
	for _, s := range w.Listen {
		for _, a := range s.Addrs {
			f.Ports = append(f.Ports, setup.Port{Service: s.Name, Addr: a, Number: 2525})
		}
	}
	return &f, nil
}

func (b *bench) User(name string) (owner, bool) {
	who, found := b.users[name]
	return who, found
}

func (b *bench) GiveTo(path string, who owner) error {
	b.tools = append(b.tools, fmt.Sprintf("chown %d:%d %s", who.uid, who.gid, filepath.Base(path)))
	return nil
}

func (b *bench) HasSystemd() bool            { return false }
func (b *bench) Executable() (string, error) { return "/usr/local/bin/postroom", nil }

func (b *bench) Tool(_ context.Context, name string, args ...string) error {
	b.tools = append(b.tools, name+" "+strings.Join(args, " "))
	switch {
	case b.fails == name:
		return unsuref("%s failed", name)
	case name == "useradd":
		b.users[args[len(args)-1]] = owner{os.Geteuid(), os.Getegid()}
	case name == "userdel":
		delete(b.users, args[0])
	}
	return nil
}

func (b *bench) Postroom(ctx context.Context, args ...string) (string, error) {
	switch {
	case b.empty && slices.Contains(args, "--json"):
		return "[]", nil
	case b.empty:
		return "", nil
	}
	return b.p.inProcess(ctx, args...)
}

// place is a folder that setup is tried in.
type place struct {
	t   *testing.T
	dir string
	on  *bench
}

func newPlace(t *testing.T, root bool) *place {
	t.Helper()
	return &place{t, filepath.Join(t.TempDir(), "mail"), &bench{root: root, low: 1024, users: map[string]owner{}}}
}

func (s *place) try(stdin string, args ...string) result {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	p := &program{stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr, passwords: quickPasswords, machine: s.on}
	s.on.p = p
	status := p.run(s.t.Context(), append([]string{"setup", "--dir", s.dir}, args...))
	for line := range strings.Lines(stderr.String()) {
		if len([]rune(line)) > 200 && !strings.Contains(line, "]: ") { // what is typed at a prompt ends its line
			s.t.Errorf("a line of %d characters: %q", len(line), line)
		}
	}
	return result{status, stdout.String(), stderr.String()}
}

func (s *place) must(stdin string, args ...string) result {
	s.t.Helper()
	r := s.try(stdin, args...)
	if r.status != statusDone {
		s.t.Fatalf("setup %s: status %d\n%s", strings.Join(args, " "), r.status, r.stderr)
	}
	return r
}

func (s *place) config() string { return filepath.Join(s.dir, "postroom.toml") }

// files lists what is in the folder, with what it holds but for the database.
func (s *place) files() (all []string) {
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.Contains(path, ".db") {
			content, err := os.ReadFile(path)
			all = append(all, path+" "+string(content))
			return err
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	return all
}

func TestSetup(t *testing.T) {
	for _, root := range []bool{false, true} {
		t.Run(fmt.Sprintf("root %t", root), func(t *testing.T) {
			s := newPlace(t, root)
			s.on.facts.Addresses = []setup.Address{{IP: netip.MustParseAddr("192.0.2.5")}, {IP: netip.MustParseAddr("2001:db8::5")}}
			r := s.must("anna@example.org\nanna@elsewhere.example\n", "example.org", "--no-network")
			lines := strings.Split(r.stdout, "\n")
			if len(lines) < 8 || len(lines[0]) < 26 || strings.Contains(lines[0], " ") {
				t.Fatalf("no password first:\n%s", r.stdout)
			}
			for _, want := range []string{
				"mail.example.org. 3600 IN A 192.0.2.5\n", "mail.example.org. 3600 IN AAAA 2001:db8::5\n", "example.org. 3600 IN MX 10 mail.example.org.\n",
				"example.org. 3600 IN TXT \"v=spf1 ip4:192.0.2.5 ip6:2001:db8::5 mx ~all\"\n", "_dmarc.example.org. 3600 IN TXT \"v=DMARC1; p=none; rua=mailto:postmaster@example.org\"\n", "._domainkey.example.org. 3600 IN TXT \"v=DKIM1; k=ed25519; p=",
			} {
				if !strings.Contains(r.stdout, want) {
					t.Errorf("lacks %q:\n%s", want, r.stdout)
				}
			}
			if strings.Contains(r.stderr, lines[0]) {
				t.Error("the password is among what was done")
			}
			c, err := config.Load(s.config())
			if err != nil || c.Hostname != "mail.example.org" || c.Alerts.To != "anna@elsewhere.example" || c.DataDir != filepath.Join(s.dir, "data") {
				t.Errorf("%+v, %v", c, err)
			}
			if want := map[bool]string{false: ":2525", true: ":25"}[root]; c.Listen.SMTP[0] != want {
				t.Errorf("listens on %s, want %s", c.Listen.SMTP[0], want)
			}
			if root && !slices.ContainsFunc(s.on.tools, func(tool string) bool { return strings.HasPrefix(tool, "useradd --system ") }) {
				t.Errorf("no user was made: %q", s.on.tools)
			}
			if !root && len(s.on.tools) > 0 {
				t.Errorf("an ordinary user ran %q", s.on.tools)
			}

			t.Run("again", func(t *testing.T) {
				before := s.files()
				tools := len(s.on.tools)
				r := s.must("", "example.org", "--no-network") // and asks nothing: nobody answers
				if strings.Contains(r.stderr, "  made") || !slices.Equal(s.files(), before) || strings.Contains(r.stdout, lines[0]) {
					t.Errorf("it made something:\n%s%s", r.stderr, r.stdout)
				}
				for _, tool := range s.on.tools[tools:] {
					if !strings.HasPrefix(tool, "chown ") {
						t.Errorf("it ran %s", tool)
					}
				}
			})
			t.Run("undo", func(t *testing.T) {
				s.must("y\n", "--undo")
				if _, err := os.Stat(s.dir); !errors.Is(err, fs.ErrNotExist) || len(s.on.users) > 0 {
					t.Errorf("left: %q, users %v, %v", s.files(), s.on.users, err)
				}
				if r := s.try("", "--undo"); r.status != statusNo || !strings.Contains(r.stderr, "nothing to undo") {
					t.Errorf("a second time: status %d, %q", r.status, r.stderr)
				}
			})
		})
	}
}

// TestSetupStops shows that nothing is made, and nothing asked, where something stands in the way.
func TestSetupStops(t *testing.T) {
	s := newPlace(t, true)
	s.on.facts.Ports = []setup.Port{{Service: "smtp", Addr: ":25", Number: 25, Holder: &setup.Holder{PID: 812, Program: "exim4", Unit: "exim4.service"}}}
	s.on.facts.Out = []setup.Reach{{Family: "IPv4", Have: true, Known: 3}}
	s.on.facts.Addresses = []setup.Address{{IP: netip.MustParseAddr("192.0.2.5"), NamesErr: &resolve.Error{Kind: resolve.ErrNotFound}}}
	r := s.try("", "example.org")
	for _, want := range []string{
		"  STOP  port 25 (smtp) is held by exim4 (process 812)\n        `systemctl disable --now exim4.service` stops it for good\n",
		"  STOP  the way out to port 25 over IPv4 is closed", "  mend  192.0.2.5 has no name\n", "to mail.example.org\n", "or give --anyway\n",
	} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("lacks %q:\n%s", want, r.stderr)
		}
	}
	if r.status != statusNo || r.stdout != "" || s.files() != nil || len(s.on.tools) > 0 || strings.Contains(r.stderr, "First address") {
		t.Errorf("status %d, %q, %q\n%s", r.status, r.stdout, s.files(), r.stderr)
	}
	s.must("", "example.org", "--anyway", "--yes", "--address", "anna@example.org")
}

// TestSetupAnswers has a row for each way to be asked, or not.
func TestSetupAnswers(t *testing.T) {
	for _, tc := range []struct {
		name, stdin string
		args        []string
		status      int
		says        string
	}{
		{"all by flags", "", []string{"example.org", "--address", "anna@example.org", "--alerts", "a@b.example", "--hostname", "mx.example.org"}, statusDone, ""},
		{"all by flags but alerts", "\n", []string{"example.org", "--address", "anna@example.org"}, statusDone, ""},
		{"three answers", "example.org\nanna@example.org\na@b.example\n", nil, statusDone, ""},
		{"proposals", "\n\n", []string{"example.org"}, statusDone, ""},
		{"proposals without a question", "", []string{"example.org", "--yes"}, statusDone, ""},
		{"no proposal for the domain", "", []string{"--yes"}, statusUsage, "Domain to receive mail for: "},
		{"nobody answers", "", []string{"example.org"}, statusUsage, "--yes"},
		{"half an answer", "anna@example.org", []string{"example.org", "--alerts", "a@b.example"}, statusDone, ""},
		{"a slip, then right", "anna\nanna@example.net\nanna@example.org\n\n", []string{"example.org"}, statusDone, "anna@example.net is not an address of example.org"},
		{"three slips", "anna\nanna\nanna\n", []string{"example.org"}, statusUsage, "could be used"},
		{"endless", strings.Repeat("x", 5000), []string{"example.org"}, statusUsage, "too long"},
		{"another domain", "", []string{"example.org", "--address", "anna@example.net", "--yes"}, statusUsage, "anna@example.net is not an address of example.org"},
		{"an odd user", "", []string{"example.org", "--user=--x"}, statusUsage, "system user"},
		{"a service without root", "", []string{"example.org", "--service"}, statusUsage, "only root"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newPlace(t, false)
			s.on.empty = true
			r := s.try(tc.stdin, append(tc.args, "--no-network")...)
			if r.status != tc.status || !strings.Contains(r.stderr, tc.says) {
				t.Errorf("status %d, want %d and %q:\n%s", r.status, tc.status, tc.says, r.stderr)
			}
			if tc.status != statusDone && s.files() != nil {
				t.Errorf("made %q", s.files())
			}
			if strings.Count(r.stderr, ": ") > 0 && tc.name == "all by flags" && strings.Contains(r.stderr, "]: ") {
				t.Errorf("it asked:\n%s", r.stderr)
			}
		})
	}
	t.Run("no place of one's own", func(t *testing.T) {
		var stderr bytes.Buffer
		p := &program{stdin: strings.NewReader(""), stdout: new(bytes.Buffer), stderr: &stderr, machine: &bench{}}
		if status := p.run(t.Context(), []string{"setup", "example.org", "--config", filepath.Join(t.TempDir(), "x.toml")}); status != statusUsage || !strings.Contains(stderr.String(), "--dir DIR") {
			t.Errorf("status %d, %s", status, stderr.String())
		}
	})
}

// TestSetupKeeps shows that what an operator wrote is never changed, and not removed.
func TestSetupKeeps(t *testing.T) {
	s := newPlace(t, false)
	s.must("", "example.org", "--no-network", "--yes")
	text, err := os.ReadFile(s.config())
	if err != nil {
		t.Fatal(err)
	}
	edited := string(text) + "\n[log]\nlevel = \"debug\"\n"
	notes := filepath.Join(s.dir, "data", "notes.txt")
	if err := errors.Join(os.WriteFile(s.config(), []byte(edited), 0o644), os.WriteFile(notes, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	r := s.must("", "example.org", "--no-network", "--yes", "--hostname", "mx.example.org", "--alerts", "a@b.example")
	if got, _ := os.ReadFile(s.config()); string(got) != edited || !strings.Contains(r.stderr, "change it by hand") {
		t.Errorf("%s\n%s", got, r.stderr)
	}
	s.must("", "example.net", "--no-network", "--yes") // a second domain
	r = s.must("", "--undo", "--yes")
	for _, want := range []string{"left, since it was changed:  " + s.config(), "left, since there is more in it:  " + filepath.Join(s.dir, "data"), "gone  example.net"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("lacks %q:\n%s", want, r.stderr)
		}
	}
	if want := []string{notes + " ", s.config() + " " + edited}; !slices.Equal(s.files(), want) {
		t.Errorf("left %q, want %q", s.files(), want)
	}
}

// TestUndoRefuses shows that no mail, and no account of somebody else, is lost by accident.
func TestUndoRefuses(t *testing.T) {
	s := newPlace(t, false)
	s.must("", "bücher.example", "--no-network", "--yes", "--address", "Anna@bücher.example")
	in := &installation{t: t, config: s.config(), data: filepath.Join(s.dir, "data")}

	if r := s.try("n\n", "--undo"); r.status != statusNo || !strings.Contains(r.stderr, "nothing was removed") {
		t.Errorf("after a no: status %d, %q", r.status, r.stderr)
	}
	in.must("", "account", "add", "ben@bücher.example", "--generate")
	if r := s.try("", "--undo", "--yes"); r.status != statusNo || !strings.Contains(r.stderr, "1 accounts were added after setup") {
		t.Errorf("with another account: status %d, %q", r.status, r.stderr)
	}
	in.must("", "account", "remove", "ben@bücher.example", "--now")

	withStores(t, in, func(stores *stores) error {
		err := stores.db.LockServer()
		if r := s.try("", "--undo", "--yes"); r.status != statusNo || !strings.Contains(r.stderr, "stop it first") {
			t.Errorf("beside a server: status %d, %q", r.status, r.stderr)
		}
		return err
	})
	withStores(t, in, func(s *stores) error {
		address, err := addr.Parse("anna@bücher.example")
		if err != nil {
			return err
		}
		a, err := s.accounts.Account(t.Context(), address)
		if err != nil {
			return err
		}
		staged, err := s.mailbox.Stage(t.Context(), message.NewID(), 5, strings.NewReader("\r\nhi\n"))
		if err != nil {
			return err
		}
		return s.db.Write(t.Context(), func(tx *database.Tx) error {
			_, err := s.mailbox.Deliver(tx, staged, []mailbox.Delivery{{AccountID: a.ID}})
			return err
		})
	})
	if r := s.try("", "--undo", "--yes"); r.status != statusNo || !strings.Contains(r.stderr, "1 letters are kept here") || !strings.Contains(r.stderr, "--with-mail") {
		t.Errorf("with a letter: status %d, %q", r.status, r.stderr)
	}
	aside := s.config() + ".aside"
	if err := os.Rename(s.config(), aside); err != nil {
		t.Fatal(err)
	}
	if r := s.try("", "--undo", "--yes"); r.status != statusNo || !strings.Contains(r.stderr, "put that back") {
		t.Errorf("without its configuration: status %d, %q", r.status, r.stderr)
	}
	if err := os.Rename(aside, s.config()); err != nil {
		t.Fatal(err)
	}
	s.must("", "--undo", "--yes", "--with-mail")
	if _, err := os.Stat(s.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %q, %v", s.files(), err)
	}
}

func withStores(t *testing.T, in *installation, fn func(*stores) error) {
	t.Helper()
	p := &program{stderr: new(bytes.Buffer), passwords: quickPasswords, configFile: in.config}
	if err := p.withStores(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// TestSetupGoesOn shows that a step that failed is made by the next run, and that nothing is made twice.
func TestSetupGoesOn(t *testing.T) {
	s := newPlace(t, true)
	s.on.fails = "useradd"
	if r := s.try("", "example.org", "--no-network", "--yes"); r.status != statusUnsure || !strings.Contains(r.stderr, "useradd failed") {
		t.Fatalf("status %d, %q", r.status, r.stderr)
	}
	s.on.fails = ""
	r := s.must("", "example.org", "--no-network", "--yes")
	if !strings.Contains(r.stderr, "made   user postroom") {
		t.Errorf("the user was not made:\n%s", r.stderr)
	}
	s.on.fails = "userdel"
	if r := s.try("", "--undo", "--yes"); r.status != statusUnsure || !strings.Contains(r.stderr, "run this again") {
		t.Errorf("status %d, %q", r.status, r.stderr)
	}
	s.on.fails = ""
	s.must("", "--undo", "--yes")
	if _, err := os.Stat(s.dir); !errors.Is(err, fs.ErrNotExist) || len(s.on.users) > 0 {
		t.Errorf("left: %q, %v", s.files(), s.on.users)
	}
}

// TestSetupOnLowPorts shows that an ordinary user gets the usual ports where everybody may open them.
func TestSetupOnLowPorts(t *testing.T) {
	for _, tc := range []struct {
		low  int
		port string
	}{{1024, ":2525"}, {26, ":2525"}, {25, ":25"}, {0, ":25"}} {
		s := newPlace(t, false)
		s.on.low, s.on.empty = tc.low, true
		s.must("", "example.org", "--no-network", "--yes")
		if c, err := config.Load(s.config()); err != nil || c.Listen.SMTP[0] != tc.port {
			t.Errorf("ports from %d on are for everybody: %q, %v; want %s", tc.low, c.Listen.SMTP, err, tc.port)
		}
	}
}

// TestConfigText shows that what setup writes is read back as it was meant, whatever the ports are.
func TestConfigText(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(c *config.Config)
		tables int
	}{
		{"the usual", func(*config.Config) {}, 2},
		{"no web", func(c *config.Config) { c.Listen.HTTP, c.Listen.HTTPS = nil, nil }, 0},
		{"other ports", func(c *config.Config) { c.Listen.SMTP, c.Listen.POP3 = []string{":2525", "[::1]:26"}, []string{} }, 3},
		{"odd names", func(c *config.Config) { c.DataDir = "/srv/a \"b\" \\ c#d" }, 2},
	} {
		want := config.Default()
		want.Hostname, want.Alerts.To = "mail.example.org", "a@b.example"
		tc.change(want)
		text := configText(want)
		got, err := config.Parse("x.toml", text)
		if err != nil {
			t.Errorf("%s: %v\n%s", tc.name, err, text)
			continue
		}
		var a, b bytes.Buffer
		if err := errors.Join(got.Print(&a), want.Print(&b)); err != nil || a.String() != b.String() {
			t.Errorf("%s: %v\n%s\nread back is\n%s", tc.name, err, text, a.String())
		}
		if n := strings.Count(string(text), "\n["); tc.tables > 0 && n != tc.tables {
			t.Errorf("%s: %d tables:\n%s", tc.name, n, text)
		}
	}
}

func TestHighPort(t *testing.T) {
	for _, tc := range []struct{ address, want string }{
		{":25", ":2525"}, {":80", ":8080"}, {":110", ":2110"}, {":443", ":2443"}, {":465", ":2465"}, {":587", ":2587"}, {":995", ":2995"},
		{"127.0.0.1:8025", "127.0.0.1:8025"}, {"[::1]:25", "[::1]:2525"}, {":0", ":0"},
	} {
		if got := highPort(tc.address); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.address, got, tc.want)
		}
	}
}

// TestSetupCertificates shows where setup has certificates come from, and what it says of it.
func TestSetupCertificates(t *testing.T) {
	for _, tc := range []struct {
		name string
		root bool
		low  int
		args []string
		want string // in the configuration
		next string
	}{
		{"root", true, 1024, nil, "source = \"acme\"", "cert list"},
		{"a user who may take low ports", false, 0, nil, "source = \"acme\"", "cert list"},
		{"a user", false, 1024, nil, "source = \"local\"", "ca.pem"},
		{"beside a web server", true, 1024, []string{"--no-web"}, "source = \"local\"", "ca.pem"},
		{"as asked", true, 1024, []string{"--tls", "local"}, "source = \"local\"", "ca.pem"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newPlace(t, tc.root)
			s.on.low = tc.low
			r := s.must("anna@example.org\nanna@elsewhere.example\n", append([]string{"example.org", "--no-network"}, tc.args...)...)
			config, err := os.ReadFile(s.config())
			if err != nil || !strings.Contains(string(config), tc.want) || strings.Contains(string(config), "email = \"anna@elsewhere.example\"") != strings.Contains(tc.want, "acme") {
				t.Errorf("%v\n%s", err, config)
			}
			if !strings.Contains(r.stderr, tc.next) || !strings.Contains(r.stderr, "dns check example.org") {
				t.Errorf("says\n%s", r.stderr)
			}
		})
	}
}
