package e2e

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// tolerated are calls that the unit refuses and that nothing needs: Go asks for its limit of open files, and systemd has set it.
var tolerated = map[string]bool{"prlimit64": true}

// TestUnitAllowsWhatIsCalled watches the whole path, in and out, and compares every call to the kernel with the unit: one that it refuses
// would be found by an operator, at night.
func TestUnitAllowsWhatIsCalled(t *testing.T) {
	strace, analyze, setpriv := program(t, "strace"), program(t, "systemd-analyze"), program(t, "setpriv")
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user, as the unit does")
	}
	unit, err := os.ReadFile("../deploy/postroom.service")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "postroom-calls-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	anybody(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	trace := filepath.Join(dir, "trace")
	cmd := exec.CommandContext(t.Context(), setpriv, "--reuid=54321", "--regid=54321", "--clear-groups", strace, "-f", "-qq", "-o", trace, binary, "demo", "--once")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "ptrace") {
			t.Skipf("nobody may be watched here: %s", out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	allowed := allowedCalls(t, analyze, string(unit))
	called := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\d+ +([a-z0-9_]+)\(`).FindAllStringSubmatch(string(text), -1) {
		called[m[1]] = true
	}
	if len(called) < 30 || !called["accept4"] || allowed["reboot"] || !allowed["accept4"] {
		t.Fatalf("%d calls seen, %d allowed: the comparison is broken", len(called), len(allowed))
	}
	for _, name := range slices.Sorted(maps.Keys(called)) {
		if !allowed[name] && !tolerated[name] {
			t.Errorf("%s is called, and the unit refuses it", name)
		}
	}
	if m := regexp.MustCompile(`(?m)^.*(mmap|mprotect)\(.*PROT_WRITE\|PROT_EXEC.*$`).FindString(string(text)); m != "" {
		t.Errorf("MemoryDenyWriteExecute refuses %s", m)
	}
	families := regexp.MustCompile(`(?m)^RestrictAddressFamilies=(.*)$`).FindStringSubmatch(string(unit))[1]
	for _, m := range regexp.MustCompile(`socket\((AF_[A-Z0-9]+)`).FindAllStringSubmatch(string(text), -1) {
		if !slices.Contains(strings.Fields(families), m[1]) {
			t.Errorf("a socket of %s is opened, and the unit refuses it", m[1])
		}
	}
}

// allowedCalls adds and takes away what the lines of the unit say.
func allowedCalls(t *testing.T, analyze, unit string) map[string]bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), analyze, "syscall-filter", "--no-pager").Output()
	if err != nil {
		t.Skipf("systemd-analyze does not tell its sets: %v", err)
	}
	sets, name := map[string][]string{}, ""
	for line := range strings.Lines(string(out)) {
		word := strings.TrimSpace(line)
		switch {
		case word == "" || strings.HasPrefix(word, "#"):
		case strings.HasPrefix(line, "@"):
			name = word
		default:
			sets[name] = append(sets[name], word)
		}
	}
	var members func(set string) []string
	members = func(set string) (all []string) {
		if !strings.HasPrefix(set, "@") {
			return []string{set}
		}
		for _, m := range sets[set] {
			all = append(all, members(m)...)
		}
		return all
	}
	allowed := map[string]bool{}
	for _, m := range members("@default") {
		allowed[m] = true
	}
	for _, m := range regexp.MustCompile(`(?m)^SystemCallFilter=(~?)(.*)$`).FindAllStringSubmatch(unit, -1) {
		for _, set := range strings.Fields(m[2]) {
			for _, call := range members(set) {
				if m[1] == "~" {
					delete(allowed, call)
				} else {
					allowed[call] = true
				}
			}
		}
	}
	return allowed
}
