package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// machine is a systemd of its own, on a copy of this machine's file system.
type machine struct {
	*testing.T
	boot   *exec.Cmd
	leader string // systemd's process
}

// bootMachine boots one, on the network of this test, or skips.
func bootMachine(t *testing.T) *machine {
	t.Helper()
	for _, name := range []string{"unshare", "nsenter", "systemctl", "journalctl", "useradd", "bash"} {
		program(t, name)
	}
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		t.Skip("systemd is not installed")
	}
	dir, err := os.MkdirTemp("", "postroom-machine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	shared := filepath.Join(dir, "shared")
	place := filepath.Join(dir, "place")
	if err := errors.Join(os.Mkdir(shared, 0o755), os.Mkdir(place, 0o755)); err != nil {
		t.Fatal(err)
	}
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(shared, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	if err := told.SetReadDeadline(time.Now().Add(40 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	m := &machine{T: t, boot: exec.Command("unshare", "--fork", "--pid", "--kill-child", "--mount", "--cgroup", "--uts", "--ipc", "bash", "testdata/boot.sh", place, shared, binary)}
	m.boot.Stdout, m.boot.Stderr = &said, &said
	m.boot.WaitDelay = 5 * time.Second
	m.boot.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: ownGroup(t, filepath.Join(dir, "groups"))}
	if err := m.boot.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = m.boot.Wait() // how it ended is not asked
		_ = told.Close()  // nobody will tell any more
	}()
	over := func() {
		_ = m.boot.Process.Kill() // it may have ended
		<-ended
	}
	t.Cleanup(over)
	for octets := make([]byte, 4096); ; {
		n, err := told.Read(octets)
		if err != nil {
			over()
			t.Skipf("systemd does not boot here: %v\n%s", err, said.String())
		}
		if strings.Contains(string(octets[:n]), "READY=1") {
			break
		}
	}
	if m.leader = childOf(m.boot.Process.Pid); m.leader == "" {
		t.Skip("the process of systemd is not known: /proc does not show it")
	}
	return m
}

// ownGroup makes a control group, below which systemd makes its own, and removes them all at the end.
func ownGroup(t *testing.T, at string) (fd int) {
	t.Helper()
	if err := errors.Join(os.Mkdir(at, 0o755), syscall.Mount("cgroup2", at, "cgroup2", 0, "")); err != nil {
		t.Skipf("no control groups here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(at, syscall.MNT_DETACH) })
	group, err := os.MkdirTemp(at, "postroom-test-")
	if err != nil {
		t.Skipf("no control group of its own: %v", err)
	}
	t.Cleanup(func() {
		await(t, "the control groups are empty and go", func() bool {
			var all []string
			_ = filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					all = append(all, path)
				}
				return nil
			})
			for _, path := range slices.Backward(all) {
				_ = os.Remove(path) // until nobody is in it
			}
			_, err := os.Stat(group)
			return errors.Is(err, fs.ErrNotExist)
		})
	})
	f, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

// childOf finds the process that another one has started.
func childOf(parent int) string {
	all, _ := filepath.Glob("/proc/[0-9]*/status") // the pattern is right
	for _, name := range all {
		text, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(text), "\nPPid:\t"+strconv.Itoa(parent)+"\n") {
			return filepath.Base(filepath.Dir(name))
		}
	}
	return ""
}

// command is a line of shell on the machine.
func (m *machine) command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", "-t", m.leader, "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--root", "/bin/sh", "-c", "cd / && "+line)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return cmd
}

// sh runs a line of shell and returns what it prints.
func (m *machine) sh(line string) string {
	m.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := m.command(ctx, line)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		log, _ := m.command(ctx, "journalctl -u postroom --no-pager -n 20 -o cat").CombinedOutput()
		m.Fatalf("%s: %v\n%s%s\n%s", line, err, out, said.String(), log)
	}
	return string(out)
}

// on is the machine for a test of its own.
func (m *machine) on(t *testing.T) *machine { return &machine{T: t, boot: m.boot, leader: m.leader} }

// during runs do while the journal is read, and returns once it has the text.
func (m *machine) during(text string, do func()) {
	m.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	follow := m.command(ctx, "echo begun; exec journalctl -f -n 0 -o cat")
	out, err := follow.StdoutPipe()
	if err != nil {
		m.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		m.Fatal(err)
	}
	defer func() { cancel(); _ = follow.Wait() }()
	readUntilKept(out, "begun")
	do()
	if seen := readUntilKept(out, text); !strings.Contains(seen, text) {
		m.Errorf("the journal never says %q:\n%s", text, seen)
	}
}

// TestUnderSystemd installs the service as an operator does, on a machine that runs systemd, and looks whether it keeps what the unit
// promises: no privilege but one, mail in and out, no refused connection while it is replaced, and an end to one that hangs.
func TestUnderSystemd(t *testing.T) {
	if !ownRoom(t) {
		return
	}
	finish(t, "link set lo up\n", program(t, "ip"), "-batch", "-")
	_, stop, err := outside().Listen(context.WithoutCancel(t.Context()), "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	m := bootMachine(t)

	said := m.sh("postroom setup example.org --service --yes --no-network --tls local --address anna@example.org 2>&1")
	if !strings.Contains(said, "made   the service postroom serves") || strings.Contains(said, "Then `postroom serve") {
		t.Fatalf("setup said\n%s", said)
	}
	password := regexp.MustCompile(`shown once:\n(\S+)\n`).FindStringSubmatch(said)[1]
	t.Run("privileges", func(t *testing.T) { m.on(t).privileges() })
	t.Run("mail", func(t *testing.T) { m.on(t).mail(password) })
	t.Run("reload", func(t *testing.T) {
		m := m.on(t)
		m.during("certificate read again", func() { m.sh("systemctl reload postroom") })
		if status := m.sh("systemctl show -p ActiveState,StatusText postroom"); !strings.Contains(status, "=active") || !strings.Contains(status, "pop3, pop3s, smtp, ") {
			t.Errorf("afterwards: %s", status)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		m := m.on(t)
		m.sh("mkdir /run/systemd/system/postroom.service.d && printf '[Service]\\nWatchdogSec=2s\\nWatchdogSignal=KILL\\n' >/run/systemd/system/postroom.service.d/test.conf && systemctl daemon-reload && systemctl restart postroom")
		before := m.sh("systemctl show -p MainPID --value postroom")
		m.during("event=ready", func() { m.sh("kill -STOP " + strings.TrimSpace(before)) })
		if after := m.sh("systemctl show -p MainPID --value postroom"); after == before || strings.TrimSpace(after) == "0" {
			t.Errorf("process %s before, %s after", before, after)
		}
		if n := m.sh("systemctl show -p NRestarts --value postroom"); strings.TrimSpace(n) != "1" {
			t.Errorf("%s restarts", n)
		}
	})
	t.Run("replaced", func(t *testing.T) { m.on(t).replace() })
	t.Run("undone", func(t *testing.T) {
		m := m.on(t)
		m.sh("systemctl disable --now postroom.socket && rm /etc/systemd/system/postroom.socket")
		if said := m.sh("postroom setup --undo --yes --with-mail 2>&1"); strings.Contains(said, "  left") {
			t.Errorf("undo said\n%s", said)
		}
		if left := m.sh("systemctl list-unit-files --no-legend 'postroom*'; ls -d /etc/postroom /var/lib/postroom 2>/dev/null; getent passwd postroom; true"); strings.TrimSpace(left) != "" {
			t.Errorf("left: %s", left)
		}
	})
}

// privileges reads what the kernel lets the process do.
func (m *machine) privileges() {
	m.Helper()
	status := m.sh("cat /proc/$(systemctl show -p MainPID --value postroom)/status")
	for _, want := range []string{`Uid:\t[1-9]\d*\t`, `CapEff:\t0000000000000400\n`, `CapBnd:\t0000000000000400\n`, `NoNewPrivs:\t1\n`, `Seccomp:\t2\n`} {
		if !regexp.MustCompile(want).MatchString(status) {
			m.Errorf("the process is not %s:\n%s", want, status)
		}
	}
	if owners := m.sh(`find /var/lib/postroom ! -name setup.json ! -user postroom`); owners != "" {
		m.Errorf("not the user's: %s", owners)
	}
}

// mail delivers a letter and fetches it.
func (m *machine) mail(password string) {
	m.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(m.sh("cat /var/lib/postroom/tls/ca.pem"))) {
		m.Fatal("no authority")
	}
	c, err := greet("127.0.0.1:25", nil)
	if err != nil {
		m.Fatal(err)
	}
	defer c.close()
	if reply, err := c.deliver("anna@example.org", []byte("From: ben@client.example\r\nSubject: hello\r\n\r\nIt works.\r\n")); err != nil {
		m.Fatalf("%s, %v", reply, err)
	}
	letters, err := fetchAll("127.0.0.1:995", &tls.Config{RootCAs: roots, ServerName: "mail.example.org"}, "anna@example.org", password)
	if err != nil || len(letters) != 1 || !bytes.Contains(letters[0], []byte("It works.")) {
		m.Fatalf("fetched %q, %v", letters, err)
	}
}

// replace restarts the server behind systemd's sockets while a client knocks: no connection is refused.
func (m *machine) replace() {
	m.Helper()
	socket, err := os.ReadFile("../deploy/postroom.socket")
	if err != nil {
		m.Fatal(err)
	}
	m.sh("systemctl stop postroom && cat >/etc/systemd/system/postroom.socket <<'END'\n" + string(socket) + "END\nsystemctl daemon-reload && systemctl enable --now postroom.socket && systemctl start postroom")
	if left := m.sh("journalctl -u postroom --no-pager -o cat | grep 'no service of the configuration' || true"); left != "" {
		m.Errorf("a socket was not taken: %s", left)
	}
	over := make(chan struct{})
	knocked, refused := make(chan int), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			c, err := net.DialTimeout("tcp", "127.0.0.1:25", 20*time.Second)
			if err == nil {
				err = c.SetDeadline(time.Now().Add(20 * time.Second))
			}
			if err == nil {
				_, err = c.Read(make([]byte, 4))
			}
			if err != nil && (errors.Is(err, syscall.ECONNREFUSED) || os.IsTimeout(err)) {
				select {
				case refused <- err:
				default: // one is enough
				}
			}
			if c != nil {
				_ = c.Close()
			}
			select {
			case <-over:
				knocked <- n
				return
			default:
			}
		}
	}()
	for range 3 {
		m.sh("systemctl restart postroom")
	}
	close(over)
	if n := <-knocked; n < 10 {
		m.Errorf("only %d connections were tried", n)
	}
	select {
	case err := <-refused:
		m.Errorf("a client was turned away: %v", err)
	default:
	}
}
