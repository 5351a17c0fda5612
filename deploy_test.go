package postroom_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The files in deploy are programs for other programs: each is tried by its own checker, or skipped by the checker's name.

func deployed(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// checker runs a program on what is in deploy, and fails with what it says.
func checker(t *testing.T, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = "deploy"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// TestAlerts checks the alerts, and lets each come and not come on made-up series.
func TestAlerts(t *testing.T) {
	tested := deployed(t, "rules_test.yml")
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(deployed(t, "rules.yml"), -1) {
		if !strings.Contains(tested, "alertname: "+m[1]) {
			t.Errorf("nothing shows when %s comes", m[1])
		}
	}
	checker(t, "promtool", "check", "rules", "rules.yml")
	checker(t, "promtool", "test", "rules", "rules_test.yml")
}

// dashboard is what the test reads of it.
type dashboard struct {
	Panels []struct {
		ID      int
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr string }
	}
}

func (d dashboard) expressions() (all []string) {
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, target.Expr)
		}
	}
	return all
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal([]byte(deployed(t, "dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDashboard shows that the panels do not lie over each other, and that every question in them can be asked.
func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s shows nothing, or lies outside", p.Title)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other, is := taken[at]; is {
					t.Fatalf("%s lies over %s", p.Title, other)
				}
				taken[at] = p.Title
			}
		}
	}
	var rules strings.Builder
	rules.WriteString("groups:\n- name: panels\n  rules:\n")
	for i, e := range d.expressions() {
		fmt.Fprintf(&rules, "  - record: panel:%d\n    expr: %q\n", i, strings.ReplaceAll(e, "$instance", ".*"))
	}
	file := filepath.Join(t.TempDir(), "panels.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	checker(t, "promtool", "check", "rules", file)
}

var metricName = regexp.MustCompile(`postroom_[a-z_]+`)

// TestMetricNames shows that alerts and panels ask for nothing that the server does not have: an alert on it would never come.
func TestMetricNames(t *testing.T) {
	sources, err := filepath.Glob("web/*.go")
	if err != nil || len(sources) == 0 {
		t.Skipf("the folder web, which has the metrics, is not here: %v", err)
	}
	var have []string
	for _, name := range sources {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "_test.go") {
			have = append(have, metricName.FindAllString(string(text), -1)...)
		}
	}
	for _, text := range append(readDashboard(t).expressions(), deployed(t, "rules.yml")) {
		for _, name := range metricName.FindAllString(text, -1) {
			if base := strings.TrimSuffix(name, "_bucket"); !slices.Contains(have, base) {
				t.Errorf("the server has no %s", name)
			}
		}
	}
}

// TestFirewall lets nft read the example, with a user that is here.
func TestFirewall(t *testing.T) {
	rules := deployed(t, "nftables.conf")
	if _, err := user.Lookup("postroom"); err != nil {
		rules = strings.ReplaceAll(rules, `"postroom"`, "12345")
	}
	file := filepath.Join(t.TempDir(), "nftables.conf")
	if err := os.WriteFile(file, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may ask nft")
	}
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("unshare is not installed")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	if out, err := exec.CommandContext(t.Context(), "unshare", "-n", "true").CombinedOutput(); err != nil {
		t.Skipf("no network namespaces here: %s", out)
	}
	checker(t, "unshare", "-n", "nft", "-c", "-f", file)
	checker(t, "unshare", "-n", "nft", "-f", file) // the kernel takes it, too
}

// TestContainer shows what an image must keep: no root, nothing writable but the volume, the Go version of go.mod.
func TestContainer(t *testing.T) {
	file := deployed(t, "Containerfile")
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(mod))[1]
	last := file[strings.LastIndex(file, "\nFROM "):]
	for _, want := range []string{"\nFROM scratch\n", "\nUSER 65532:65532\n", "\nVOLUME /var/lib/postroom\n", `"/postroom", "health"`} {
		if !strings.Contains(last, want) {
			t.Errorf("the last stage lacks %q", want)
		}
	}
	if strings.Contains(last, "\nRUN ") || !strings.Contains(file, "golang:"+version+"-") {
		t.Errorf("a last stage with a shell, or not Go %s", version)
	}

	var compose struct {
		Services map[string]struct {
			ReadOnly    bool     `yaml:"read_only"`
			Privileged  bool     `yaml:"privileged"`
			CapDrop     []string `yaml:"cap_drop"`
			CapAdd      []string `yaml:"cap_add"`
			SecurityOpt []string `yaml:"security_opt"`
			Volumes     []string `yaml:"volumes"`
			Build       struct {
				Dockerfile string `yaml:"dockerfile"`
			} `yaml:"build"`
		} `yaml:"services"`
		Volumes map[string]any `yaml:"volumes"`
	}
	if err := yaml.Unmarshal([]byte(deployed(t, "compose.yaml")), &compose); err != nil {
		t.Fatal(err)
	}
	s, found := compose.Services["postroom"]
	if !found || !s.ReadOnly || s.Privileged || !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 ||
		!slices.Contains(s.SecurityOpt, "no-new-privileges:true") || len(s.Volumes) != 1 || len(compose.Volumes) != 1 {
		t.Errorf("the service is not closed: %+v", s)
	}
	if _, err := os.Stat(s.Build.Dockerfile); err != nil {
		t.Errorf("compose builds from %q: %v", s.Build.Dockerfile, err)
	}
}
