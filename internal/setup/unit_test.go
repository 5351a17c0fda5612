package setup

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/internal/config"
)

// usual is the unit of a usual installation.
var usual = Unit{Binary: Binary, Config: ConfigFile, DataDir: DataDir, User: User}

func TestUnit(t *testing.T) {
	for _, tc := range []struct {
		name string
		unit Unit
		has  []string
		err  string
	}{
		{"the usual", usual, []string{"ExecStart=/usr/local/bin/postroom serve --config /etc/postroom/postroom.toml\n", "User=postroom\nGroup=postroom\n", "\nStateDirectory=postroom\n", "\nProtectHome=yes\n"}, ""},
		{"elsewhere", Unit{Binary, "/srv/mail/postroom.toml", "/srv/mail/data", "mail"}, []string{"User=mail\n", "\nReadWritePaths=/srv/mail/data\n", "\nProtectHome=yes\n"}, ""},
		{"in a home", Unit{Binary, "/home/anna/postroom.toml", "/home/anna/data", "anna"}, []string{"\nReadWritePaths=/home/anna/data\n", "\nProtectHome=read-only\n"}, ""},
		{"a blank", Unit{Binary, "/srv/my mail/postroom.toml", DataDir, User}, nil, `"/srv/my mail/postroom.toml" cannot be in a unit file`},
		{"a specifier", Unit{Binary, "/srv/%h", DataDir, User}, nil, `"/srv/%h" cannot be in a unit file`},
		{"a line", Unit{Binary, ConfigFile, "/srv\nExecStartPre=x", User}, nil, "cannot be in a unit file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text, err := tc.unit.Text()
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("got %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || strings.Contains(text, "@BINARY@") || strings.Count(text, "@") != strings.Count(text, "~@")+strings.Count(text, "=@")+strings.Count(text, " @") {
				t.Errorf("%v\n%s", err, text)
			}
			for _, want := range tc.has {
				if !strings.Contains(text, want) {
					t.Errorf("lacks %q:\n%s", want, text)
				}
			}
		})
	}
}

// TestDeployedUnits shows that the files in deploy are what setup installs.
func TestDeployedUnits(t *testing.T) {
	service, err := usual.Text()
	if err != nil {
		t.Fatal(err)
	}
	var listen []Service
	for _, s := range config.Default().Listen.Services() {
		if s.Name != "admin" { // on the loopback only, and above 1023
			listen = append(listen, Service(s))
		}
	}
	for name, want := range map[string]string{"postroom.service": service, "postroom.socket": SocketUnit(listen)} {
		path := filepath.Join("../../deploy", name)
		if os.Getenv("POSTROOM_WRITE_DEPLOY") != "" {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("deploy/%s is not what setup installs (POSTROOM_WRITE_DEPLOY=1 writes it), %v; want\n%s", name, err, want)
		}
	}
}

// maxExposure is ten times the level of `systemd-analyze security` that the unit may have.
const maxExposure = "20"

// TestExposure asks systemd how much the unit leaves open, and whether it understands both units.
func TestExposure(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	dir := t.TempDir()
	text, err := Unit{Binary: "/bin/sh", Config: ConfigFile, DataDir: DataDir, User: User}.Text() // a binary that is there
	if err != nil {
		t.Fatal(err)
	}
	service, socket := filepath.Join(dir, "postroom.service"), filepath.Join(dir, "postroom.socket")
	for path, text := range map[string]string{service: text, socket: SocketUnit([]Service{{"smtp", []string{":25", "[::1]:2525"}}})} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--no-pager", "--threshold="+maxExposure, service).CombinedOutput()
	if strings.Contains(string(out), "unrecognized option") || strings.Contains(string(out), "Failed to connect to bus") {
		t.Skipf("systemd-analyze cannot judge a file here: %s", out)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	t.Log(lines[len(lines)-1])
	if out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", service, socket).CombinedOutput(); err != nil || strings.Contains(string(out), dir) {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// TestExposureCanFail shows that the threshold is judged at all.
func TestExposureCanFail(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	open := filepath.Join(t.TempDir(), "open.service")
	if err := os.WriteFile(open, []byte("[Service]\nExecStart=/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--no-pager", "--threshold="+maxExposure, open).CombinedOutput(); err == nil {
		t.Errorf("a unit without any protection passes:\n%s", out)
	}
}
