package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postroom/postroom/internal/resolve/zone"
)

// ownRoom runs the test in namespaces of its own, without a way out, and with /etc, /var/lib and /usr/local/bin that it may spoil. It
// tells whether this is that run.
func ownRoom(t *testing.T) bool {
	t.Helper()
	if !enterWorld(t) {
		return false
	}
	copied, err := os.MkdirTemp("", "postroom-room-")
	if err != nil {
		t.Fatal(err)
	}
	must := func(what string, err error) {
		if err != nil {
			t.Skipf("%s is refused here: %v", what, err)
		}
	}
	must("making mounts private", unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must("mounting /proc", unix.Mount("proc", "/proc", "proc", 0, ""))
	must("a file system in memory", unix.Mount("tmpfs", copied, "tmpfs", 0, "mode=755"))
	t.Cleanup(func() { _, _ = unix.Unmount(copied, unix.MNT_DETACH), os.Remove(copied) })
	for i, dir := range []string{"/etc", "/var/lib", "/usr/local/bin"} {
		up, work := filepath.Join(copied, fmt.Sprint("up", i)), filepath.Join(copied, fmt.Sprint("work", i))
		must("making folders", errors.Join(os.Mkdir(up, 0o755), os.Mkdir(work, 0o755)))
		must("an overlay on "+dir, unix.Mount("overlay", dir, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, up, work)))
	}
	return true
}

// setup runs `postroom setup`.
func setup(t *testing.T, as []string, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	words := slices.Concat(as, []string{binary, "setup", "--tls", "local"}, args)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Dir = "/"
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), said.String(), cmd.ProcessState.ExitCode()
}

func mustSetup(t *testing.T, as []string, stdin string, args ...string) (stdout, stderr string) {
	t.Helper()
	out, said, code := setup(t, as, stdin, args...)
	if code != 0 {
		t.Fatalf("setup %s: exit %d\n%s", strings.Join(args, " "), code, said)
	}
	return out, said
}

// anybody makes the built program, which lies in a folder of this user's, readable for all.
func anybody(t *testing.T) {
	t.Helper()
	if err := os.Chmod(filepath.Dir(binary), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestSetupAsRoot goes the whole way on an empty machine without a way out: user, folders, configuration, account, service; twice, and undone.
func TestSetupAsRoot(t *testing.T) {
	program(t, "useradd")
	if !ownRoom(t) {
		return
	}
	if _, err := os.Stat("/etc/postroom"); err == nil {
		t.Skip("Postroom is set up on this machine")
	}
	begun := time.Now()
	out, said := mustSetup(t, nil, "anna@example.org\n\n", "example.org", "--service")
	if took := time.Since(begun); took > 60*time.Second {
		t.Errorf("it took %s", took)
	}
	for _, want := range []string{
		"  mend  no IPv4 address", "  made   user postroom", "  made   /var/lib/postroom\n", "  made   /etc/postroom/postroom.toml\n",
		"  made   account anna@example.org", "  made   /usr/local/bin/postroom", "  made   /etc/systemd/system/postroom.service\n",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("lacks %q:\n%s", want, said)
		}
	}
	if !strings.Contains(out, "example.org. 3600 IN MX 10 mail.example.org.\n") {
		t.Errorf("no records:\n%s", out)
	}
	unit, err := os.ReadFile("/etc/systemd/system/postroom.service")
	if want, _ := os.ReadFile("../deploy/postroom.service"); err != nil || string(unit) != string(want) {
		t.Errorf("the unit is not that of deploy: %v\n%s", err, unit)
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil || !strings.Contains(string(passwd), "\npostroom:x:") {
		t.Errorf("no user: %v", err)
	}
	owners := map[uint32]bool{}
	err = filepath.WalkDir("/var/lib/postroom", func(path string, d fs.DirEntry, err error) error {
		var stat unix.Stat_t
		if err == nil && d.Name() != "setup.json" {
			err = unix.Lstat(path, &stat)
			owners[stat.Uid] = true
			if stat.Mode&0o077 != 0 {
				t.Errorf("others can read %s", path)
			}
		}
		return err
	})
	if err != nil || len(owners) != 1 || owners[0] {
		t.Errorf("the data belong to %v, %v", owners, err)
	}

	out2, said := mustSetup(t, nil, "", "example.org", "--service") // nobody answers: nothing may be asked
	if strings.Contains(said, "  made") || out2 != out[strings.IndexByte(out, '\n')+1:] {
		t.Errorf("the second time\n%s%s", said, out2)
	}
	serveAsPostroom(t)

	if _, said := mustSetup(t, nil, "y\n", "--undo"); strings.Contains(said, "  left") {
		t.Errorf("undo:\n%s", said)
	}
	for _, path := range []string{"/etc/postroom", "/var/lib/postroom", "/etc/systemd/system/postroom.service", "/usr/local/bin/postroom"} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if passwd, err = os.ReadFile("/etc/passwd"); err != nil || strings.Contains(string(passwd), "\npostroom:") {
		t.Errorf("the user is still there: %v", err)
	}
}

// serveAsPostroom serves on the usual ports as the unit does: as the user, with the one privilege to open them, and no other.
func serveAsPostroom(t *testing.T) {
	t.Helper()
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Log("skipped: setpriv is not installed")
		return
	}
	cmd := exec.Command(setpriv, "--reuid=postroom", "--regid=postroom", "--clear-groups", "--inh-caps=-all,+net_bind_service", "--ambient-caps=-all,+net_bind_service",
		"--bounding-set=-all,+net_bind_service", "--no-new-privs", "/usr/local/bin/postroom", "serve")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	go func() { said <- readUntil(stderr, "event=ready") }()
	select {
	case text := <-said:
		if !strings.Contains(text, "event=ready") || !strings.Contains(text, "[::]:25") {
			t.Errorf("it does not serve:\n%s", text)
		}
	case <-time.After(30 * time.Second):
		t.Error("it does not say that it serves")
	}
	// A second setup sees that the ports are held by Postroom, and does not stop.
	if _, said := mustSetup(t, nil, "", "example.org", "--no-network"); !strings.Contains(said, "held by Postroom, which runs already") || strings.Contains(said, "Then `postroom serve") {
		t.Errorf("beside a server:\n%s", said)
	}
	if _, said, code := setup(t, nil, "", "--undo", "--yes"); code != 1 || !strings.Contains(said, "stop it first") {
		t.Errorf("undo beside a server: exit %d\n%s", code, said)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("serve ended with %v", err)
	}
}

// TestSetupAsAnybody does the same as an ordinary user in a folder of its own.
func TestSetupAsAnybody(t *testing.T) {
	setpriv := program(t, "setpriv")
	if !ownRoom(t) {
		return
	}
	anybody(t)
	home, err := os.MkdirTemp("/var/lib", "postroom-home-")
	if err != nil {
		t.Fatal(err)
	}
	const uid = 54321
	if err := errors.Join(os.Chown(home, uid, uid), os.Chmod(home, 0o700)); err != nil {
		t.Fatal(err)
	}
	as := []string{setpriv, fmt.Sprintf("--reuid=%d", uid), fmt.Sprintf("--regid=%d", uid), "--clear-groups"}
	dir := filepath.Join(home, "mail")
	if _, said, code := setup(t, as, "", "example.org"); code != 64 || !strings.Contains(said, "--dir DIR") {
		t.Errorf("without a folder: exit %d\n%s", code, said)
	}
	if _, said, code := setup(t, as, "", "example.org", "--dir", "/var/lib/elsewhere", "--yes", "--no-network"); code != 2 {
		t.Errorf("where it may not write: exit %d\n%s", code, said)
	}
	_, said := mustSetup(t, as, "", "example.org", "--dir", dir, "--yes", "--no-network")
	if !strings.Contains(said, "ports 2525, 2587, 2465, 2110, 2995") {
		t.Errorf("said\n%s", said)
	}
	if _, said := mustSetup(t, as, "", "example.org", "--dir", dir, "--no-network"); strings.Contains(said, "  made") {
		t.Errorf("the second time\n%s", said)
	}
	mustSetup(t, as, "y\n", "--dir", dir, "--undo")
	if left, err := os.ReadDir(home); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestSetupFindsHolders shows which program has a port, to root by name, and that nothing is made then.
func TestSetupFindsHolders(t *testing.T) {
	if !ownRoom(t) {
		return
	}
	anybody(t)
	dir := filepath.Join("/var/lib", "postroom-holders")
	args := []string{"example.org", "--dir", dir, "--yes", "--no-network"}
	l, err := net.Listen("tcp", ":25") // in this network
	if err != nil {
		t.Fatal(err)
	}
	_, said, code := setup(t, nil, "", args...)
	want := fmt.Sprintf("STOP  port 25 (smtp) is held by %s (process %d)", comm(t), os.Getpid())
	if code != 1 || !strings.Contains(said, want) {
		t.Errorf("exit %d; want %q:\n%s", code, want, said)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was made: %v", err)
	}
	if setpriv, err := exec.LookPath("setpriv"); err == nil {
		other, err := net.Listen("tcp", ":2525")
		if err != nil {
			t.Fatal(err)
		}
		as := []string{setpriv, "--reuid=54321", "--regid=54321", "--clear-groups"}
		if _, said, code := setup(t, as, "", args...); code != 1 || !strings.Contains(said, "port 2525 (smtp) is held by another program\n        run this as root") {
			t.Errorf("as anybody: exit %d\n%s", code, said)
		}
		other.Close()
	}
	l.Close()
	if _, said, code := setup(t, nil, "", append(args, "--user", "nobody")...); code != 0 || !strings.Contains(said, "ports 25, 587, 465, 110, 995") {
		t.Errorf("after it is closed: exit %d\n%s", code, said)
	}
}

// TestSetupLooksOut calls mail servers on the loopback of a network of its own, which plays the world: the way out is open, refused, and
// dropped by a firewall.
func TestSetupLooksOut(t *testing.T) {
	if !ownRoom(t) {
		return
	}
	anybody(t)
	const own, provider = "192.0.2.9", "192.0.2.77"
	finish(t, "link set lo up\naddress add "+own+"/24 dev lo\n", program(t, "ip"), "-batch", "-") // with its whole network
	resolver, stop, err := zone.MustParse(`
		gmail.com. 60 IN MX 10 mx.gmail.com.
		mx.gmail.com. 60 IN A ` + provider + `
		9.2.0.192.in-addr.arpa. 60 IN PTR mail.example.org.
		mail.example.org. 60 IN A ` + own + `
		9.2.0.192.zen.spamhaus.org. 60 IN A 127.255.255.254
		9.2.0.192.bl.spamcop.net. 60 IN A 127.0.0.2
	`).Start(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	dir := "/var/lib/postroom-looks-out"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("hostname = \"mail.example.org\"\ndata_dir = %q\ndns.resolvers = [%q]\n[listen]\nsmtp = [\"127.0.0.1:2525\"]\nsubmission = []\nsubmissions = []\npop3 = []\npop3s = []\n",
		filepath.Join(dir, "data"), resolver)
	if err := os.WriteFile(filepath.Join(dir, "postroom.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"example.org", "--dir", dir, "--yes", "--user", "nobody"}

	for _, tc := range []struct {
		name   string
		world  func(t *testing.T)
		status int
		says   []string
	}{
		{"refused", func(*testing.T) {}, 1, []string{"STOP  the way out to port 25 over IPv4 is closed: 1 large providers were called, and something on the way refused"}},
		{"dropped", drop25, 1, []string{"STOP  the way out to port 25 over IPv4 is closed: 1 large providers were called, and none answered"}},
		{"open", func(t *testing.T) { playProvider(t, provider+":25") }, 0, []string{
			"ok    the way out to port 25 over IPv4 is open", "ok    192.0.2.9 is called mail.example.org, which leads back",
			"mend  192.0.2.9 is on the block list bl.spamcop.net", "not told by zen.spamhaus.org"}},
	} {
		if tc.name == "dropped" {
			if _, err := exec.LookPath("nft"); err != nil {
				t.Log("skipped: nft is not installed")
				continue
			}
		}
		tc.world(t)
		begun := time.Now()
		_, said, code := setup(t, nil, "", args...)
		if code != tc.status || time.Since(begun) > 15*time.Second {
			t.Errorf("%s: exit %d after %s", tc.name, code, time.Since(begun))
		}
		for _, want := range tc.says {
			if !strings.Contains(said, want) {
				t.Errorf("%s: lacks %q:\n%s", tc.name, want, said)
			}
		}
	}
}

// drop25 drops calls to port 25 in this network until the next one, as many providers do.
func drop25(t *testing.T) {
	t.Helper()
	rules := exec.Command("nft", "-f", "-")
	rules.Stdin = strings.NewReader("table inet t { chain out { type filter hook output priority 0; tcp dport 25 drop; }; }\n")
	if out, err := rules.CombinedOutput(); err != nil {
		t.Skipf("nft: %v: %s", err, out)
	}
}

// playProvider is a mail server that says hello, and opens what drop25 has closed.
func playProvider(t *testing.T, address string) {
	t.Helper()
	_ = exec.Command("nft", "flush", "ruleset").Run() // there may be no rules, and no nft
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "220 mx.gmail.com ESMTP\r\n") // the other side looks
			_ = c.Close()
		}
	}()
}

// comm is the name that the kernel has for this program.
func comm(t *testing.T) string {
	t.Helper()
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Skipf("no proc file system: %v", err)
	}
	return strings.TrimSpace(string(name))
}

// readUntil reads lines until one has the text, and then lets the rest go.
func readUntil(r io.Reader, text string) string {
	seen := readUntilKept(r, text)
	go func() { _, _ = io.Copy(io.Discard, r) }() // until the process ends
	return seen
}

// readUntilKept reads no further than the line with the text.
func readUntilKept(r io.Reader, text string) string {
	var all strings.Builder
	for octet, line := make([]byte, 1), ""; ; {
		if _, err := r.Read(octet); err != nil {
			return all.String() + line
		}
		if line += string(octet); octet[0] != '\n' {
			continue
		}
		all.WriteString(line)
		if strings.Contains(line, text) {
			return all.String()
		}
		line = ""
	}
}
