package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/resolve/zone"
)

const (
	domain   = "example.org"
	hostname = "mail.example.org"
	anna     = "anna@example.org"
	password = "correct horse battery"
)

// binary is the built postroom, made once for all tests.
var binary string

// inWorld is set, to the built postroom, where a test runs in namespaces of its own.
const inWorld = "POSTROOM_E2E_WORLD"

func TestMain(m *testing.M) {
	if binary = os.Getenv(inWorld); binary != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "postroom-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "postroom")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/postroom").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// program skips the test, naming the program, where it is not installed.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// setting reads a number from the environment.
func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is not a number above 0", name, v)
	}
	return n
}

// server is one data directory, and the postroom that serves it while it runs.
type server struct {
	config string
	data   string

	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has ended and its log was read to the end
	log   *logTail
	ports map[string]string // service name to host:port
}

// outside is the DNS of the rest of the world: the domains that the tests' letters come from.
func outside() *zone.Zone {
	return zone.MustParse(`
		client.example. 60 IN MX 10 client.example.
		client.example. 60 IN A 127.0.0.1
		client.example. 60 IN TXT "v=spf1 ip4:127.0.0.0/8 -all"
		_dmarc.client.example. 60 IN TXT "v=DMARC1; p=reject"
		1.0.0.127.in-addr.arpa. 60 IN PTR client.example.
		sink.example. 60 IN A 127.0.0.1
	`)
}

// newServer makes a data directory with one domain and anna's account; it does not serve yet.
func newServer(t *testing.T, more ...string) *server {
	t.Helper()
	resolver, stop, err := outside().Start(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop) // after the server, whose own cleanup comes first
	return newServerAsking(t, resolver, more...)
}

// newServerAsking is newServer with a resolver.
func newServerAsking(t *testing.T, resolver netip.AddrPort, more ...string) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{config: filepath.Join(dir, "postroom.toml"), data: filepath.Join(dir, "data")}
	text := fmt.Sprintf("hostname = %q\ndata_dir = %q\ndns.resolvers = [%q]\n", hostname, s.data, resolver) + strings.Join(more, "\n") + `
[listen]
smtp = ["127.0.0.1:0"]
pop3 = ["127.0.0.1:0"]
pop3s = ["127.0.0.1:0"]
submission = ["127.0.0.1:0"]
submissions = ["127.0.0.1:0"]
http = []
https = []
admin = []
[tls]
source = "local"
[log]
format = "json"
`
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(t, "", "domain", "add", domain)
	s.run(t, password+"\n", "account", "add", anna, "--password-stdin")
	t.Cleanup(func() { s.kill() })
	return s
}

// run runs one postroom command on the server's configuration and returns what it prints.
func (s *server) run(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, code := s.try(t, stdin, args...)
	if code != 0 {
		t.Fatalf("postroom %s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// try is run for a command that may say no.
func (s *server) try(t *testing.T, stdin string, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append(args, "--config", s.config)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("postroom %s did not end", strings.Join(args, " "))
	}
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// serve starts `postroom serve` and returns once it says that it is ready.
func (s *server) serve(t testing.TB) {
	t.Helper()
	cmd := exec.Command(binary, "serve", "--config", s.config)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.cmd, s.ended, s.log, s.ports = cmd, make(chan struct{}), new(logTail), map[string]string{}
	ready := make(chan struct{})
	go s.follow(stderr, ready)
	select {
	case <-ready:
	case <-s.ended:
		t.Fatalf("serve ended at once:\n%s", s.log)
	case <-time.After(30 * time.Second):
		t.Fatalf("serve is not ready after 30 s:\n%s", s.log)
	}
}

// follow reads the log to its end, and takes the ports from it.
func (s *server) follow(stderr io.Reader, ready chan<- struct{}) {
	defer close(s.ended)
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		s.log.add(lines.Bytes())
		var line struct{ Event, Svc, Addr string }
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		switch line.Event {
		case "listening":
			s.ports[line.Svc] = line.Addr
		case "ready":
			close(ready)
		}
	}
	_ = s.cmd.Wait() // how it ended is asked through ProcessState
}

// kill ends the server as a power cut would, and waits until it is gone.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // an error means that it has ended already
	<-s.ended
	s.cmd = nil
}

// stop ends the server politely and returns its exit status.
func (s *server) stop(t *testing.T) int {
	t.Helper()
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.ended:
	case <-time.After(40 * time.Second):
		t.Fatal("serve did not end within 40 s")
	}
	code := s.cmd.ProcessState.ExitCode()
	s.cmd = nil
	return code
}

// ca is the file with the certificate authority that the server made for itself.
func (s *server) ca() string { return filepath.Join(s.data, "tls", "ca.pem") }

// tls is a client's configuration that trusts that authority.
func (s *server) tls(t testing.TB) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(s.ca())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("%s holds no certificate", s.ca())
	}
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

// memory is the server's resident set in octets, now and at its highest.
func (s *server) memory(t testing.TB) (now, peak int64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Skipf("memory cannot be read here: %v", err)
	}
	for line := range bytes.Lines(status) {
		f := strings.Fields(string(line))
		if len(f) != 3 {
			continue
		}
		kib, _ := strconv.ParseInt(f[1], 10, 64) // other lines of three fields hold no number
		switch f[0] {
		case "VmRSS:":
			now = kib << 10
		case "VmHWM:":
			peak = kib << 10
		}
	}
	return now, peak
}

// logTail keeps the end of a log, for the message of a failing test.
type logTail struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (l *logTail) add(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(line))
	if len(l.lines) > 200 {
		l.lines = l.lines[100:]
	}
}

func (l *logTail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}
