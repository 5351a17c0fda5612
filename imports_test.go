package postroom_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/postroom/postroom"

// rules is the table "the house" of the design: for each folder, the other top-level folders that it may import
// besides internal/. A folder that is not listed here may not exist.
var rules = map[string][]string{
	"cmd":        {"*"},
	"smtpd":      {},
	"inbound":    {"smtpd", "auth", "accounts", "mailbox", "queue"},
	"retrieval":  {"pop3d", "accounts", "mailbox"},
	"auth":       {},
	"accounts":   {},
	"mailbox":    {},
	"pop3d":      {},
	"tlsconf":    {},
	"queue":      {},
	"submission": {"smtpd", "auth", "accounts", "mailbox", "queue"},
	"delivery":   {"queue", "tlsconf"},
	"dnscheck":   {"accounts", "auth", "tlsconf"},
	"web":        {"accounts", "queue", "mailbox", "dnscheck", "tlsconf"},
	"e2e":        {"*"},
	"bench":      {"*"},
	"internal":   {}, // see internalRules
	".":          {},
}

// engines may use these internal packages only, so that another program can use the engines.
var engines = map[string][]string{
	"smtpd": {"addr", "wire", "message", "limit"},
	"pop3d": {"addr", "wire", "message", "limit"},
}

// internalRules lists the internal packages that may import more than other internal packages.
var internalRules = map[string][]string{
	"demo": {"*"},
}

// dnsDoors are the only folders that may import the DNS library.
var dnsDoors = []string{"internal/resolve", "internal/resolve/zone", "tlsconf"}

// TestImports parses every Go file in this process (a test that runs `go list` would be cached and stay green) and
// compares its imports with the tables above. Test files may import internal/mailtest and their own fakes' packages
// of internal/ as well, and follow the same table for everything else.
func TestImports(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		files++
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			if why := verdict(filepath.ToSlash(name), strings.Trim(spec.Path.Value, `"`)); why != "" {
				t.Errorf("%s imports %s: %s", name, spec.Path.Value, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 2 {
		t.Fatalf("looked at %d Go files: the walk is broken", files)
	}
}

// verdict says why the file may not import the package, or "" when it may.
func verdict(file, imported string) string {
	folder := path.Dir(file)
	top, below, _ := strings.Cut(folder, "/")
	may, known := rules[top]
	if !known {
		return "folder " + top + " is not in the table of folders"
	}
	if strings.HasPrefix(imported, "github.com/miekg/dns") && !slices.Contains(dnsDoors, folder) {
		return "DNS goes through internal/resolve only"
	}
	local, ok := strings.CutPrefix(imported, module+"/")
	if !ok {
		return ""
	}
	target, part, _ := strings.Cut(local, "/")
	isTest := strings.HasSuffix(file, "_test.go")
	switch {
	case target == top && target != "internal":
		return ""
	case target == "internal":
		return internalVerdict(top, part, isTest)
	case top == "internal":
		may = internalRules[below]
	}
	if slices.Contains(may, "*") || slices.Contains(may, target) {
		return ""
	}
	return "not allowed by the table of folders"
}

// internalVerdict judges an import of internal/part from the given top-level folder.
func internalVerdict(top, part string, isTest bool) string {
	allowed, isEngine := engines[top]
	part, _, _ = strings.Cut(part, "/")
	switch {
	case isEngine && isTest && part == "mailtest":
		return ""
	case isEngine && !slices.Contains(allowed, part):
		return "an engine imports only " + strings.Join(allowed, ", ")
	case part == "mailtest" && !isTest && top != "internal" && top != "e2e" && top != "bench":
		return "internal/mailtest is for tests"
	case part == "demo" && top != "cmd":
		return "internal/demo belongs to cmd/postroom"
	}
	return ""
}

// TestVerdict shows that the rule can fail, and where it must not.
func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		file, imports string
		allowed       bool
	}{
		{"smtpd/server.go", "net", true},
		{"smtpd/server.go", module + "/internal/wire", true},
		{"smtpd/server.go", module + "/internal/database", false},
		{"smtpd/server.go", module + "/accounts", false},
		{"smtpd/server_test.go", module + "/internal/mailtest", true},
		{"smtpd/server.go", module + "/internal/mailtest", false},
		{"inbound/inbound.go", module + "/accounts", true},
		{"inbound/inbound.go", module + "/pop3d", false},
		{"inbound/inbound.go", module + "/internal/demo", false},
		{"mailbox/mailboxtest/suite.go", module + "/mailbox", true},
		{"accounts/accounts.go", "github.com/miekg/dns", false},
		{"internal/resolve/resolve.go", "github.com/miekg/dns", true},
		{"internal/addr/addr.go", module + "/accounts", false},
		{"internal/demo/demo.go", module + "/smtpd", true},
		{"cmd/postroom/main.go", module + "/retrieval", true},
		{"util/util.go", "net", false},
	} {
		if why := verdict(tc.file, tc.imports); (why == "") != tc.allowed {
			t.Errorf("%s importing %s: %q, want allowed %t", tc.file, tc.imports, why, tc.allowed)
		}
	}
}
