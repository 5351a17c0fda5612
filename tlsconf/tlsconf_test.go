package tlsconf

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/mailtest"
)

// handshake connects a client to a server over loopback (a pipe without buffers would lock up where both end with an
// alert) and returns what the client sees.
func handshake(server, client *tls.Config) (tls.ConnectionState, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			defer conn.Close()
			_, err = io.WriteString(tls.Server(conn, server), "x") // after the tickets, if there are any
		}
		done <- err
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	c := tls.Client(conn, client)
	_, err = c.Read(make([]byte, 1))
	state := c.ConnectionState()
	_ = conn.Close() // so that the server ends, too
	return state, errors.Join(err, <-done)
}

func openLocal(t *testing.T, dir string) *Source {
	t.Helper()
	s, err := Open(t.Context(), Options{Source: "local", DataDir: dir, Hostname: "mail.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func trust(t *testing.T, s *Source, name string) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: pool, ServerName: name}
}

func TestLocal(t *testing.T) {
	dir := t.TempDir()
	s := openLocal(t, dir)
	for _, name := range []string{"mail.example.org", "localhost", "127.0.0.1", "::1"} {
		state, err := handshake(s.ForLogins(), trust(t, s, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if b, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32); err != nil || len(b) != 32 {
			t.Errorf("no channel binding: %v", err)
		}
	}
	if _, err := handshake(s.ForLogins(), trust(t, s, "other.example")); err == nil {
		t.Error("a name that is not in the certificate was accepted")
	}
	for name, want := range map[string]os.FileMode{"": 0o700, caKeyFile: 0o600, keyFile: 0o600} {
		info, err := os.Stat(filepath.Join(dir, "tls", name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	first := s.current.Load()
	again := openLocal(t, dir).current.Load()
	if !bytes.Equal(first.Certificate[0], again.Certificate[0]) {
		t.Error("a second start made another certificate")
	}
}

// TestLocalRenews shows that the certificate is renewed in time, by the watch, with the same key and authority.
func TestLocalRenews(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := Open(ctx, Options{Source: "local", DataDir: dir, Hostname: "mail.example.org"})
		if err != nil {
			t.Fatal(err)
		}
		first := s.current.Load()
		time.Sleep(55 * 24 * time.Hour)
		if s.current.Load() != first {
			t.Error("renewed too early")
		}
		time.Sleep(10 * 24 * time.Hour)
		synctest.Wait()
		now := s.current.Load()
		if now == first || !now.Leaf.NotAfter.After(first.Leaf.NotAfter) {
			t.Fatal("not renewed")
		}
		if !bytes.Equal(now.Leaf.RawSubjectPublicKeyInfo, first.Leaf.RawSubjectPublicKeyInfo) {
			t.Error("the key changed")
		}
		if !bytes.Equal(now.Leaf.AuthorityKeyId, first.Leaf.AuthorityKeyId) {
			t.Error("the authority changed")
		}
		cancel()
		s.Close()
	})
}

func TestVersionsAndSuites(t *testing.T) {
	s := openLocal(t, t.TempDir())
	mx, logins := s.ForMX(), s.ForLogins()
	for _, tc := range []struct {
		name   string
		server *tls.Config
		client *tls.Config
		want   bool
	}{
		{"TLS 1.1 at 25", mx, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		{"TLS 1.1 at a login", logins, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		{"TLS 1.2 at 25", mx, &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"TLS 1.2 at a login", logins, &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"TLS 1.3 at a login", logins, &tls.Config{MinVersion: tls.VersionTLS13}, true},
		{"CBC at 25", mx, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, true},
		{"CBC at a login", logins, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, false},
		{"RSA key exchange at 25", mx, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client := tc.client.Clone()
			known := trust(t, s, "localhost")
			client.RootCAs, client.ServerName = known.RootCAs, known.ServerName
			if _, err := handshake(tc.server, client); (err == nil) != tc.want {
				t.Errorf("%v, want success %t", err, tc.want)
			}
		})
	}
}

func TestTickets(t *testing.T) {
	s := openLocal(t, t.TempDir())
	for _, tc := range []struct {
		name   string
		server *tls.Config
		want   bool
	}{{"25", s.ForMX(), false}, {"logins", s.ForLogins(), true}} {
		client := trust(t, s, "localhost")
		client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		var resumed bool
		for range 2 {
			state, err := handshake(tc.server, client)
			if err != nil {
				t.Fatal(err)
			}
			resumed = state.DidResume
		}
		if resumed != tc.want {
			t.Errorf("%s: second session resumed %t, want %t", tc.name, resumed, tc.want)
		}
	}
}

// putFiles writes a certificate and its key as an operator's tool does: each in its place by a rename.
func putFiles(t *testing.T, dir string, from *local) {
	t.Helper()
	if _, err := from.load(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{certFile, keyFile} {
		b, err := os.ReadFile(from.path(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "new"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFiles swaps certificates, good and broken, while clients connect.
func TestFiles(t *testing.T) {
	one, two := &local{dir: t.TempDir(), hostname: "one.example"}, &local{dir: t.TempDir(), hostname: "two.example"}
	dir := t.TempDir()
	putFiles(t, dir, one)
	var out lockedBuffer
	s, err := Open(t.Context(), Options{Source: "files", CertFile: filepath.Join(dir, certFile), KeyFile: filepath.Join(dir, keyFile),
		Log: slog.New(slog.NewTextHandler(&out, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var clients sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := handshake(s.ForLogins(), &tls.Config{InsecureSkipVerify: true}); err != nil { // only that it works
					t.Errorf("handshake while files are swapped: %v", err)
					return
				}
			}
		})
	}
	if s.look(); s.current.Load().Leaf.DNSNames[0] != "one.example" || out.String() != "" {
		t.Errorf("nothing changed, and %s", out.String())
	}
	putFiles(t, dir, two)
	if s.look(); s.current.Load().Leaf.DNSNames[0] != "two.example" {
		t.Error("the new certificate is not served")
	}
	for name, broken := range map[string]string{"torn": "-----BEGIN CERTIFICATE-----\n", "empty": ""} {
		out.Reset()
		if err := os.WriteFile(filepath.Join(dir, certFile), []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		s.look()
		s.look() // a second look at the same file says nothing
		if s.current.Load().Leaf.DNSNames[0] != "two.example" || strings.Count(out.String(), "refused") != 1 {
			t.Errorf("%s: %s", name, out.String())
		}
	}
	out.Reset()
	if err := os.Remove(filepath.Join(dir, certFile)); err != nil {
		t.Fatal(err)
	}
	if s.look(); !strings.Contains(out.String(), "there is no file") {
		t.Errorf("missing file: %s", out.String())
	}
	cert, _ := os.ReadFile(one.path(certFile)) // a certificate that does not fit the key
	if err := os.WriteFile(filepath.Join(dir, certFile), cert, 0o600); err != nil {
		t.Fatal(err)
	}
	if s.look(); s.current.Load().Leaf.DNSNames[0] != "two.example" {
		t.Error("a certificate without its key is served")
	}
	putFiles(t, dir, one)
	if s.look(); s.current.Load().Leaf.DNSNames[0] != "one.example" {
		t.Error("the mended certificate is not served")
	}
	close(stop)
	clients.Wait()
}

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		name string
		o    Options
		want string
	}{
		{"no such source", Options{Source: "x"}, "no certificate source"},
		{"no challenge", Options{Source: "acme", Hostname: "mail.example.org"}, "no way to prove names"},
		{"no such file", Options{Source: "files", CertFile: dir + "/c", KeyFile: dir + "/k"}, "there is no file " + dir + "/c"},
	} {
		if _, err := Open(t.Context(), tc.o); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	l := &local{dir: dir, hostname: "x.example"}
	if _, err := l.load(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.path(caCertFile), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Source: "local", DataDir: dir, Hostname: "x.example"}); err == nil || !strings.Contains(err.Error(), "remove both") {
		t.Errorf("torn authority: %v", err)
	}
	// An expired certificate is none.
	c, _ := mailtest.Certificate(t, "x.example")
	c.Leaf.NotAfter = time.Now().Add(-time.Hour)
	s := &Source{provider: fixed{&c}}
	if err := s.Reload(); err == nil || !strings.Contains(err.Error(), "ended on") {
		t.Errorf("expired: %v", err)
	}
}

type fixed struct{ c *tls.Certificate }

func (f fixed) changed() bool                   { return true }
func (f fixed) interval() time.Duration         { return time.Hour }
func (f fixed) load() (*tls.Certificate, error) { return f.c, nil }

// lockedBuffer is a buffer for a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedBuffer) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}
