package e2e

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// containerUser is the user of the image, who has no name there.
const containerUser = 65532

// staticBinary is set where the program was built for the room.
const staticBinary = "POSTROOM_E2E_STATIC"

// TestContainerRoom builds the program with the command of the Containerfile and runs it as the image does: nothing but the binary, a
// read-only root, one volume, no privilege, any user. No image is pulled and no container engine needed.
func TestContainerRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a room")
	}
	static := os.Getenv(staticBinary)
	if static == "" { // built outside, where it may take its time
		static = filepath.Join(t.TempDir(), "postroom")
		buildAs(t, static)
		t.Setenv(staticBinary, static)
	}
	if !ownRoom(t) {
		return
	}
	root, err := os.MkdirTemp("", "postroom-root-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	image := filepath.Join(root, "image")
	volume := filepath.Join(root, "volume")
	for _, dir := range []string{image, filepath.Join(image, "proc"), filepath.Join(image, "tmp"), filepath.Join(image, "var/lib/postroom"), volume} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(static)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(image, "postroom"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(volume, containerUser, containerUser); err != nil {
		t.Fatal(err)
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{image, image, "", unix.MS_BIND},
		{"", image, "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
		{volume, filepath.Join(image, "var/lib/postroom"), "", unix.MS_BIND},
		{"proc", filepath.Join(image, "proc"), "proc", 0},
		{"tmpfs", filepath.Join(image, "tmp"), "tmpfs", 0},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			t.Skipf("mounting %s is refused here: %v", m.target, err)
		}
		t.Cleanup(func() { _ = unix.Unmount(m.target, unix.MNT_DETACH) })
	}
	// What an engine does for a network of the container, and the host's sysctl for its own.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("25\n"), 0o644); err != nil {
		t.Skipf("low ports stay closed: %v", err)
	}
	finish(t, "", "ip", "link", "set", "lo", "up")
	r := &containerRoom{t, image}

	out, said, code := r.run("setup", "example.org", "--dir", "/var/lib/postroom", "--yes", "--no-network", "--tls", "local")
	if code != 0 || !strings.Contains(said, "ports 25, ") || !strings.Contains(out, "example.org. 3600 IN MX 10 mail.example.org.") {
		t.Fatalf("setup: exit %d\n%s%s", code, said, out)
	}
	if err := os.WriteFile(filepath.Join(image, "x"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("the root can be written: %v", err)
	}
	cmd := r.command(t.Context(), "serve")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	go func() { ready <- readUntil(stderr, "event=ready") }()
	select {
	case text := <-ready:
		if !strings.Contains(text, "event=ready") || !strings.Contains(text, "addr=[::]:25") {
			t.Errorf("it does not serve:\n%s", text)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not say that it serves")
	}
	if out, said, code := r.run("account", "list"); code != 0 || !strings.Contains(out, "postmaster@example.org") {
		t.Errorf("a command beside it: exit %d\n%s%s", code, out, said)
	}
	if out, said, code := r.run("health"); code != 0 || out != "well\n" {
		t.Errorf("its health: exit %d\n%s%s", code, out, said)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("serve ended with %v", err)
	}
}

// buildAs builds with the very command of the Containerfile, and looks whether the binary stands alone.
func buildAs(t *testing.T, to string) {
	t.Helper()
	file, err := os.ReadFile("../deploy/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`CGO_ENABLED=0 go build [^\n\\]*`).FindString(string(file))
	if !strings.Contains(line, " -o /out/postroom ") {
		t.Fatalf("the Containerfile builds with %q", line)
	}
	cmd := exec.Command("/bin/sh", "-c", strings.Replace(line, " -o /out/postroom ", " -o "+to+" ", 1))
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "VERSION=v1.2.3-test")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	f, err := elf.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary needs a loader: it is not static")
		}
	}
	if out, err := exec.Command(to, "version").Output(); err != nil || !strings.HasPrefix(string(out), "postroom v1.2.3-test (commit ") {
		t.Errorf("version: %q, %v", out, err)
	}
}

type containerRoom struct {
	t     *testing.T
	image string
}

func (r *containerRoom) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/postroom", args...)
	cmd.Env = []string{"POSTROOM_CONFIG=/var/lib/postroom/postroom.toml"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.image, Credential: &syscall.Credential{Uid: containerUser, Gid: containerUser}}
	return cmd
}

// run runs one command to its end.
func (r *containerRoom) run(args ...string) (stdout, stderr string, code int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := r.command(ctx, args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return out.String(), said.String(), cmd.ProcessState.ExitCode()
}
