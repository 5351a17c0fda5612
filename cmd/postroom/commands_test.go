package main

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/postroom/postroom/internal/database"
)

// TestCommandsSayNo has a row for each refusal: exit status 1, and one sentence that names what was asked for.
func TestCommandsSayNo(t *testing.T) {
	in := settled(t)
	in.must("", "alias", "add", "info@example.org", "anna@example.org")
	in.must("", "account", "device", "add", "anna@example.org", "phone")
	for _, tc := range []struct {
		args, stdin string
		says        string
	}{
		{"domain add example.org", "", "example.org is here already"},
		{"domain add EXAMPLE.org", "", "example.org is here already"},
		{"domain show example.net", "", "no domain example.net"},
		{"domain remove example.org", "", "2 accounts and 1 aliases"},
		{"domain set example.net --no-plus", "", "no domain example.net"},
		{"domain set example.org --catch-all carl@example.org", "", "carl@example.org leads to no account"},
		{"domain set example.org --catch-all carl@example.net", "", "carl@example.net is not an address of this server"},
		{"domain set example.org --plus x", "", `"x" cannot separate a tag`},
		{"account add anna@example.org --password-stdin", "long enough\n", "anna@example.org is taken"},
		{"account add info@example.org --password-stdin", "long enough\n", "info@example.org is taken"},
		{"account add carl@example.net --password-stdin", "long enough\n", "`postroom domain add example.net`"},
		{"account show carl@example.org", "", "no account carl@example.org"},
		{"account password carl@example.org --generate", "", "no account carl@example.org"},
		{"account disable carl@example.org", "", "no account carl@example.org"},
		{"account remove carl@example.org", "", "no account carl@example.org"},
		{"account remove anna@example.org", "", "`postroom alias remove info@example.org`"},
		{"account device add anna@example.org phone", "", `has a device "phone" already`},
		{"account device revoke anna@example.org tablet", "", `no device "tablet"`},
		{"alias add anna@example.org ben@example.org", "", "anna@example.org is taken"},
		{"alias add team@example.org team@example.org", "", "in a circle: team@example.org -> team@example.org"},
		{"alias add team@example.org ben@example.net", "", "ben@example.net is not an address of this server"},
		{"alias add team@example.org nobody@example.org", "", "nobody@example.org leads to no account"},
		{"alias remove team@example.org", "", "no alias team@example.org"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			r := in.try(tc.stdin, strings.Fields(tc.args)...)
			if r.status != statusNo || !strings.Contains(r.stderr, tc.says) || r.stdout != "" {
				t.Errorf("status %d, %q, %q; want %d and %q", r.status, r.stdout, r.stderr, statusNo, tc.says)
			}
			if strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("not one sentence: %q", r.stderr)
			}
		})
	}
}

func TestPasswordsThatAreRefused(t *testing.T) {
	in := settled(t)
	for name, stdin := range map[string]string{
		"none": "", "empty": "\n", "over 72 octets": strings.Repeat("x", 73) + "\n", "NUL": "a\x00b\n", "endless": strings.Repeat("x", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			r := in.try(stdin, "account", "add", "carl@example.org", "--password-stdin")
			if r.status == statusDone || !strings.Contains(r.stderr, "password") || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("status %d, %q", r.status, r.stderr)
			}
			if r := in.try("", "account", "show", "carl@example.org"); r.status != statusNo {
				t.Error("the account was made all the same")
			}
		})
	}
}

func TestGeneratedPassword(t *testing.T) {
	in := settled(t)
	first := in.must("", "account", "add", "carl@example.org", "--generate")
	second := in.must("", "account", "password", "carl@example.org", "--generate")
	device := in.must("", "account", "device", "add", "carl@example.org", "phone", "--receive-only")
	for _, out := range []string{first, second, device} {
		if !regexp.MustCompile(`^[a-z0-9-]{26,}\n$`).MatchString(out) {
			t.Errorf("standard output is %q, want a password and nothing else", out)
		}
	}
	if first == second {
		t.Error("two generated passwords are the same")
	}
}

func TestDomainsInJSON(t *testing.T) {
	in := install(t)
	if out := in.must("", "domain", "list", "--json"); out != "[]\n" {
		t.Errorf("no domain is printed as %q", out)
	}
	in.must("", "domain", "add", "bücher.example")
	in.must("", "account", "add", "anna@bücher.example", "--generate")
	in.must("", "domain", "set", "bücher.example", "--catch-all", "anna@bücher.example", "--plus", "-")

	var all []shownDomain
	in.read(&all, "domain", "list")
	want := shownDomain{"bücher.example", "xn--bcher-kva.example", "anna@xn--bcher-kva.example", "-", "testing", 1, all[0].Created}
	if len(all) != 1 || all[0] != want || all[0].Created.IsZero() {
		t.Errorf("got %+v, want %+v", all, want)
	}
	var one shownDomain
	in.must("", "domain", "set", "xn--bcher-kva.example", "--no-catch-all", "--no-plus")
	in.read(&one, "domain", "show", "bücher.example")
	if one.CatchAll != "" || one.Separator != "" {
		t.Errorf("after --no-catch-all --no-plus: %+v", one)
	}
}

func TestAccountsInJSON(t *testing.T) {
	in := settled(t)
	in.must("", "account", "disable", "ben@example.org")
	in.must("", "account", "quota", "anna@example.org", "1GiB")
	var all []shownAccount
	in.read(&all, "account", "list")
	if len(all) != 2 || all[0].Address != "anna@example.org" || all[0].Name != "Anna" || all[0].Quota != 1<<30 || all[0].Disabled ||
		all[1].Quota != 5<<20 || !all[1].Disabled {
		t.Errorf("got %+v", all)
	}
	in.must("", "account", "enable", "ben@example.org")
	in.must("", "account", "quota", "anna@example.org", "0")
	var anna, ben shownAccount
	in.read(&anna, "account", "show", "ANNA@example.org")
	in.read(&ben, "account", "show", "ben@example.org")
	if anna.Quota != 0 || anna.ID != all[0].ID || ben.Disabled {
		t.Errorf("got %+v, %+v", anna, ben)
	}
}

func TestDevicesAndAliasesInJSON(t *testing.T) {
	in := settled(t)
	in.must("", "account", "device", "add", "anna@example.org", "phone", "--receive-only")
	in.must("", "account", "device", "add", "anna@example.org", "laptop")
	in.must("", "account", "device", "add", "anna@example.org", "printer", "--send-only")
	var devices []shownDevice
	in.read(&devices, "account", "device", "list", "anna@example.org")
	var uses []string
	for _, d := range devices {
		uses = append(uses, fmt.Sprintf("%s %t %t %t", d.Name, d.Receive, d.Send, d.Used != nil))
	}
	if want := []string{"laptop true true false", "phone true false false", "printer false true false"}; !slices.Equal(uses, want) {
		t.Errorf("got %q, want %q", uses, want)
	}
	in.must("", "account", "device", "revoke", "anna@example.org", "laptop")
	if in.read(&devices, "account", "device", "list", "anna@example.org"); len(devices) != 2 {
		t.Errorf("after revoke: %+v", devices)
	}

	in.must("", "alias", "add", "team@example.org", "anna@example.org", "ben@example.org")
	var aliases []shownAlias
	in.read(&aliases, "alias", "list")
	if len(aliases) != 1 || aliases[0].Address != "team@example.org" || len(aliases[0].Targets) != 2 {
		t.Errorf("got %+v", aliases)
	}
	in.must("", "alias", "remove", "team@example.org")
	if in.read(&aliases, "alias", "list"); len(aliases) != 0 {
		t.Errorf("after remove: %+v", aliases)
	}
}

func TestTables(t *testing.T) {
	in := settled(t)
	in.must("", "alias", "add", "info@example.org", "anna@example.org")
	for _, tc := range []struct{ args, says string }{
		{"domain list", "DOMAIN       ACCOUNTS  CATCH-ALL  PLUS\nexample.org  2         -          +\n"},
		{"account list", "ben@example.org   active  0        0 B   5 MiB\n"},
		{"account show anna@example.org", "quota    none\n"},
		{"account device list anna@example.org", "anna@example.org has no device passwords\n"},
		{"alias list", "info@example.org  anna@example.org\n"},
		{"domain show example.org", "plus-addressing  on: name+tag is name\n"},
	} {
		if out := in.must("", strings.Fields(tc.args)...); !strings.Contains(out, tc.says) {
			t.Errorf("postroom %s prints\n%s\nwhich lacks\n%s", tc.args, out, tc.says)
		}
	}
}

func TestRemoveAccount(t *testing.T) {
	in := settled(t)
	in.must("", "account", "remove", "anna@example.org")
	in.must("", "account", "remove", "ben@example.org", "--now")
	var all []shownAccount
	if in.read(&all, "account", "list"); len(all) != 0 {
		t.Errorf("still there: %+v", all)
	}
	in.must("", "account", "add", "ben@example.org", "--generate")
	if in.read(&all, "account", "list"); len(all) != 1 || all[0].ID <= 2 {
		t.Errorf("an id was used again: %+v", all)
	}
}

func TestWrongConfiguration(t *testing.T) {
	for _, tc := range []struct{ name, text, says string }{
		{"unknown key", "hostname = \"mail.example.org\"\n\n[listen]\nsmtps = []\n", ":4: listen.smtps: "},
		{"wrong kind", "hostname = 7\n", ":1: hostname: "},
		{"bad host name", "hostname = \"a b\"\n", ":1: hostname: "},
		{"no host name", "", ": hostname: missing"},
		{"not TOML", "hostname\n", ":1: "},
		{"bad address", "hostname = \"mail.example.org\"\n[listen]\nsmtp = [\"25\"]\n", ":3: listen.smtp: "},
		{"no such authority", "hostname = \"mail.example.org\"\n[tls]\nsource = \"acme\"\nca = \"x\"\n", ":4: tls.ca: "},
		{"two at once", "hostname = \"x\"\ndata_dir = \"y\"\n", ":2: data_dir: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := install(t)
			in.configure(tc.text)
			for _, args := range [][]string{{"config", "check"}, {"config", "print"}, {"serve"}, {"account", "list"}} {
				r := in.try("", args...)
				if r.status != statusConfig || !strings.Contains(r.stderr, in.config+tc.says) || r.stdout != "" {
					t.Errorf("%q: status %d, %q, %q; want %d and %q", args, r.status, r.stdout, r.stderr, statusConfig, tc.says)
				}
			}
			if _, err := os.Stat(in.data); !errors.Is(err, fs.ErrNotExist) {
				t.Error("a data directory was made")
			}
		})
	}
}

func TestConfigPrintIsAConfiguration(t *testing.T) {
	in := install(t)
	if r := in.try("", "config", "check"); r.status != statusDone || r.stdout != "" {
		t.Errorf("check: status %d, %q", r.status, r.stdout)
	}
	first := in.must("", "config", "print")
	in.configure(first)
	if second := in.must("", "config", "print"); second != first {
		t.Errorf("printed again it is\n%s\nand not\n%s", second, first)
	}
	r := postroom(t, "", "config", "check", "--config", filepath.Join(t.TempDir(), "none.toml"))
	if r.status != statusConfig || !strings.Contains(r.stderr, "there is no such file") {
		t.Errorf("without a file: status %d, %q", r.status, r.stderr)
	}
}

// TestCouldNotTell has the failures that are nobody's decision: exit status 2, and one sentence that names the file.
func TestCouldNotTell(t *testing.T) {
	in := settled(t)
	file := filepath.Join(in.data, "postroom.db")
	t.Run("a newer database", func(t *testing.T) {
		db, err := sql.Open("sqlite", file)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)"); err != nil {
			t.Fatal(err)
		}
		oneSentence(t, in.try("", "domain", "list"), statusUnsure, "newer version of Postroom")
		oneSentence(t, in.try("", "serve"), statusUnsure, "newer version of Postroom")
		if _, err := db.Exec("DELETE FROM goose_db_version WHERE version_id = 9999"); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("not a database", func(t *testing.T) {
		other := install(t)
		if err := os.MkdirAll(other.data, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(other.data, "postroom.db"), []byte(strings.Repeat("no database\n", 1000)), 0o600); err != nil {
			t.Fatal(err)
		}
		oneSentence(t, other.try("", "domain", "list"), statusUnsure, "not an SQLite database")
	})
	t.Run("not a directory", func(t *testing.T) {
		other := install(t)
		if err := os.WriteFile(other.data, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		oneSentence(t, other.try("", "domain", "list"), statusUnsure, other.data)
	})
}

func oneSentence(t *testing.T, r result, status int, says string) {
	t.Helper()
	if r.status != status || !strings.Contains(r.stderr, says) || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("status %d, %q; want %d and one sentence with %q", r.status, r.stderr, status, says)
	}
}

// TestReasons has a row for each cause that is put in plain words.
func TestReasons(t *testing.T) {
	for _, tc := range []struct {
		err  error
		says string
	}{
		{fmt.Errorf("accounts: list: %w", database.ErrNewer), "install that version"},
		{fmt.Errorf("write: %w", database.ErrDiskFull), "make room"},
		{&fs.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC}, "make room"},
		{&fs.PathError{Op: "open", Path: "/x/y", Err: syscall.EACCES}, "/x/y: not allowed"},
		{&fs.PathError{Op: "open", Path: "/x/y", Err: syscall.ENOENT}, "/x/y: there is no such file"},
		{errors.New("something else"), "something else"},
	} {
		if status, got := explain(tc.err); status != statusUnsure || !strings.Contains(got, tc.says) || strings.Contains(got, "\n") {
			t.Errorf("%v: status %d, %q; want %q", tc.err, status, got, tc.says)
		}
	}
}
