package e2e

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/mailtest"
	"github.com/postroom/postroom/internal/resolve/zone"
)

// The addresses of a world. Those of the other side differ in the TLS that is spoken there.
const (
	ourIP        = "198.51.100.1"
	selfSignedIP = "198.51.100.2"
	trustedIP    = "198.51.100.3"
	clearIP      = "198.51.100.4"
	homeIP       = "203.0.113.7" // of who hands letters in
)

// enterWorld runs the test once more, in namespaces of its own, and tells whether this is that run. All that it starts ends
// with it, since it is the first of its process namespace.
func enterWorld(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inWorld) != "" {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may make namespaces")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	runtime.LockOSThread() // Pdeathsig is sent when the thread ends that was the parent
	defer runtime.UnlockOSThread()
	var seen bytes.Buffer
	cmd := exec.CommandContext(ctx, self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=100s")
	cmd.Env = append(os.Environ(), inWorld+"="+binary)
	cmd.Stdout = io.MultiWriter(&seen, t.Output())
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("namespaces are refused here: %v", err)
	}
	switch err := cmd.Wait(); {
	case err != nil:
		t.Fatalf("in namespaces of its own: %v", err)
	case strings.Contains(seen.String(), "--- SKIP: "+t.Name()+" "):
		t.Skip("see above")
	}
	return false
}

// world is what postroom meets outside: a DNS, the hosts of MTA-STS policies, and a network namespace for another mail server.
type world struct {
	dir      string // that every user may enter
	other    string // the process whose network namespace is the other side's
	zone     *zone.Zone
	resolver netip.AddrPort
	ca       tls.Certificate
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "postroom-world-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{dir: dir, zone: zone.New()}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w.mount(t)
	w.connect(t)
	w.zone.SetSecure(true)
	resolver, stop, err := w.zone.Listen(context.WithoutCancel(t.Context()), ourIP+":53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	w.resolver = resolver
	w.ca, _ = mailtest.Certificate(t, "authority.example")
	t.Setenv("SSL_CERT_FILE", w.file(t, "ca.pem", certificates(w.ca)))
	return w
}

// file writes a file that the programs of the other side may read, and returns its path.
func (w *world) file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// mount shows the namespace its own processes, and the C library the DNS of this world.
func (w *world) mount(t *testing.T) {
	t.Helper()
	resolv := w.file(t, "resolv.conf", []byte("nameserver "+ourIP+"\n"))
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"none", "/", "", syscall.MS_REC | syscall.MS_PRIVATE},
		{"proc", "/proc", "proc", 0},
		{resolv, "/etc/resolv.conf", "", syscall.MS_BIND},
	} {
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			t.Skipf("mounting %s is refused here: %v", m.target, err)
		}
	}
}

// connect makes the network namespace of the other side, and a wire to it.
func (w *world) connect(t *testing.T) {
	t.Helper()
	ip, nsenter := program(t, "ip"), program(t, "nsenter")
	cmd := exec.Command("sleep", "120")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	w.other = strconv.Itoa(cmd.Process.Pid)
	wire := exec.Command(ip, "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", w.other)
	if out, err := wire.CombinedOutput(); err != nil {
		t.Skipf("a wire between network namespaces is refused here: %v\n%s", err, out)
	}
	here := "link set lo up\naddress add " + homeIP + "/32 dev lo\nlink set here up\naddress add " + ourIP + "/24 dev here\n"
	finish(t, here, ip, "-batch", "-")
	there := "link set lo up\nlink set there up\n"
	for _, address := range []string{selfSignedIP, trustedIP, clearIP} {
		there += "address add " + address + "/24 dev there\n"
	}
	finish(t, there, nsenter, "--target", w.other, "--net", ip, "-batch", "-")
}

// start runs a program on the other side until the test ends. Its children end with this namespace.
func (w *world) start(t *testing.T, name string, args ...string) {
	t.Helper()
	said, err := os.Create(filepath.Join(w.dir, filepath.Base(name)+".said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command("nsenter", append([]string{"--target", w.other, "--net", program(t, name)}, args...)...)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = cmd.Process.Kill(), cmd.Wait() // it may have ended
		if text, err := os.ReadFile(said.Name()); t.Failed() && err == nil {
			t.Logf("%s said:\n%s", name, text)
		}
	})
}

// await asks until the answer is yes, for half a minute.
func await(t *testing.T, what string, ask func() bool) {
	t.Helper()
	for range 600 {
		if ask() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("not within 30 s: %s", what)
}

func awaitPort(t *testing.T, address string) {
	t.Helper()
	await(t, address+" takes connections", func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		return err == nil && c.Close() == nil
	})
}

// issue makes a certificate that the authority of this world vouches for.
func (w *world) issue(t *testing.T, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, w.ca.Leaf, key.Public(), w.ca.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// certificates is a chain in PEM.
func certificates(c tls.Certificate) (text []byte) {
	for _, der := range c.Certificate {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return text
}

// keyed is a chain in PEM behind its key.
func keyed(t *testing.T, c tls.Certificate) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), certificates(c)...)
}

// tlsa names the key of a certificate: DANE-EE, RFC 7672 section 3.1.1.
func tlsa(host string, c tls.Certificate) string {
	return fmt.Sprintf("_25._tcp.%s. 60 IN TLSA 3 1 1 %x", host, sha256.Sum256(c.Leaf.RawSubjectPublicKeyInfo))
}

func (w *world) records(t *testing.T, records ...string) {
	t.Helper()
	for _, r := range records {
		if err := w.zone.Add(r); err != nil {
			t.Fatal(err)
		}
	}
}

// servePolicies is the hosts of MTA-STS policies that are enforced: each domain names one exchanger.
func (w *world) servePolicies(t *testing.T, exchangers map[string]string) {
	t.Helper()
	var hosts []string
	pages := http.NewServeMux()
	for domain, mx := range exchangers {
		host := "mta-sts." + domain
		hosts = append(hosts, host)
		w.records(t, host+". 60 IN A "+ourIP, "_mta-sts."+domain+`. 60 IN TXT "v=STSv1; id=1;"`)
		pages.HandleFunc(host+"/.well-known/mta-sts.txt", func(out http.ResponseWriter, _ *http.Request) {
			out.Header().Set("Content-Type", "text/plain")
			_, _ = fmt.Fprintf(out, "version: STSv1\nmode: enforce\nmx: %s\nmax_age: 86400\n", mx) // a client that is gone does not matter
		})
	}
	l, err := tls.Listen("tcp", ourIP+":443", &tls.Config{Certificates: []tls.Certificate{w.issue(t, hosts...)}})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: pages, ReadTimeout: timeout, WriteTimeout: timeout}
	go server.Serve(l)
	t.Cleanup(func() { _ = server.Close() })
}
