package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/secret"
	"github.com/postroom/postroom/tlsconf"
)

// The library lets ten orders pass in ten seconds, to spare public authorities. Pebble needs no sparing.
func init() { certmagic.RateLimitEvents, certmagic.RateLimitEventsWindow = 0, 0 }

// freePort is a port that nobody listens on now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// daemon runs a program until the end of the test, and waits until its TCP port is open.
func daemon(t *testing.T, address string, env []string, name string, args ...string) *lockedBuffer {
	t.Helper()
	log := &lockedBuffer{}
	cmd := exec.Command(program(t, name), args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", name, tail(log.String(), 60))
		}
	})
	awaitPort(t, address)
	return log
}

// lockedBuffer is a buffer that a program writes while a test reads.
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

func tail(s string, lines int) string {
	all := strings.Split(s, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// pebble is a certificate authority with its challenge ports.
type pebble struct {
	directory   string
	roots       *x509.CertPool // of its own HTTPS, not of what it issues
	rootsText   string         // the same in PEM
	http, https int            // where it looks for challenges
	management  string
	log         *lockedBuffer
}

// issued is how many certificates it has issued.
func (p *pebble) issued() int { return strings.Count(p.log.String(), "Issued certificate serial") }

// startPebble starts the authority, which asks the DNS server at dns. eab is its external accounts, or nil.
func startPebble(t *testing.T, dns string, eab map[string]string) *pebble {
	t.Helper()
	return startPebbleFor(t, dns, eab, freePort(t), freePort(t))
}

// startPebbleFor is startPebble with the ports where it looks for challenges.
func startPebbleFor(t *testing.T, dns string, eab map[string]string, http, https int) *pebble {
	t.Helper()
	dir := t.TempDir()
	p := &pebble{http: http, https: https}
	roots, cert, key := localhostCertificate(t, dir)
	p.roots = roots
	text, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	p.rootsText = string(text)
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p.management = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p.directory = "https://" + listen + "/dir"
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": p.management, "certificate": cert, "privateKey": key,
		"httpPort": p.http, "tlsPort": p.https, "externalAccountBindingRequired": eab != nil, "externalAccountMACKeys": eab,
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pebble.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	p.log = daemon(t, listen, []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=5"}, "pebble", "-config", file, "-dnsserver", dns)
	return p
}

// localhostCertificate writes a certificate for 127.0.0.1.
func localhostCertificate(t *testing.T, dir string) (roots *x509.CertPool, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pebble"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(leaf)
	return roots, certFile, keyFile
}

// issuedBy is a pool that trusts what pebble issues.
func (p *pebble) issuedBy(t *testing.T) *x509.CertPool {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots}}}
	defer client.CloseIdleConnections()
	response, err := client.Get("https://" + p.management + "/roots/0")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text.Bytes()) {
		t.Fatalf("no root certificate: %s", text.String())
	}
	return pool
}

// startChallengeServer starts pebble's DNS server: every name is 127.0.0.1, but for what is set over its management port.
func startChallengeServer(t *testing.T) (dns netip.AddrPort, management string) {
	t.Helper()
	dns = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(freePort(t)))
	management = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	daemon(t, management, nil, "pebble-challtestsrv", "-dns01", dns.String(), "-management", management, "-defaultIPv4", "127.0.0.1",
		"-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "")
	return dns, management
}

// testKey opens what is sealed in tests.
func testKey(t *testing.T) *secret.Key {
	t.Helper()
	key, err := secret.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newResolver(t *testing.T, server netip.AddrPort) *resolve.Resolver {
	t.Helper()
	r, err := resolve.New(resolve.Options{Servers: []netip.AddrPort{server}, AuthorityPort: server.Port()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// options are those of a node that gets its certificates from pebble.
func (p *pebble) options(t *testing.T, db *database.DB, dns *resolve.Resolver) tlsconf.Options {
	t.Helper()
	return tlsconf.Options{
		Source: "acme", Hostname: hostname, Log: testLog(t),
		ACME: tlsconf.ACME{
			DB: db, Sealer: testKey(t).For("tls"), DNS: dns, CA: p.directory, CARoots: p.roots, Email: "op@example.org",
			HTTP: []string{fmt.Sprintf("127.0.0.1:%d", p.http)}, HTTPS: []string{fmt.Sprintf("127.0.0.1:%d", p.https)}, Ports: [2]uint16{uint16(p.http), uint16(p.https)},
		},
	}
}

// testLog writes to the test's own log, which is shown where it fails.
func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// serveWeb serves the ports that authorities ask, with the certificates of a source.
func serveWeb(t *testing.T, s *tlsconf.Source, httpPort, httpsPort int) {
	t.Helper()
	for _, web := range []struct {
		port int
		tls  *tls.Config
	}{{httpPort, nil}, {httpsPort, s.ForHTTPS()}} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", web.port))
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: s.Challenges(http.NotFoundHandler()), TLSConfig: web.tls, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo), ReadTimeout: 10 * time.Second}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if web.tls != nil {
				_ = server.ServeTLS(l, "", "") // ends with Close
			} else {
				_ = server.Serve(l)
			}
		}()
		t.Cleanup(func() { _ = server.Close(); <-done })
	}
}

// openSource opens a node with its web ports.
func openSource(t *testing.T, o tlsconf.Options, p *pebble) *tlsconf.Source {
	t.Helper()
	s, err := tlsconf.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if p != nil {
		serveWeb(t, s, p.http, p.https)
	}
	return s
}

// TestACMEIssues gets a certificate over each challenge that needs a port of ours, and with an external account.
func TestACMEIssues(t *testing.T) {
	dns, _ := startChallengeServer(t)
	const kid, mac = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	plain, bound := startPebble(t, dns.String(), nil), startPebble(t, dns.String(), map[string]string{kid: mac})
	for _, tc := range []struct {
		name, challenge string
		p               *pebble
		change          func(*tlsconf.ACME)
		refused         string
	}{
		{"http-01", "http-01", plain, func(*tlsconf.ACME) {}, ""},
		{"tls-alpn-01", "tls-alpn-01", plain, func(*tlsconf.ACME) {}, ""},
		{"external account", "auto", bound, func(o *tlsconf.ACME) { o.EABKeyID, o.EABKey = kid, mac }, ""},
		{"external account missing", "auto", bound, func(*tlsconf.ACME) {}, "externalAccountRequired"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			db := databasetest.Open(t)
			o := tc.p.options(t, db, newResolver(t, dns))
			o.ACME.Challenge = tc.challenge
			tc.change(&o.ACME)
			alerts := make(chan string, 10)
			o.ACME.Alert = func(_ context.Context, title, _ string) { alerts <- title }
			s := openSource(t, o, tc.p)
			store := tlsconf.NewStore(db, o.ACME.Sealer)
			if tc.refused != "" {
				got := awaitState(t, store, tlsconf.Failed)
				if !strings.Contains(got.Reason, tc.refused) || got.Next.Before(time.Now()) || got.Failures != 1 {
					t.Errorf("failed with %+v, want %s", got, tc.refused)
				}
				if title := <-alerts; title != "No certificate for "+hostname {
					t.Errorf("told %q", title)
				}
				if s.Ready() {
					t.Error("a login port would begin TLS")
				}
				return
			}
			got := awaitState(t, store, tlsconf.Good)
			await(t, "the certificate is served", s.Ready)
			state, err := dialTLS(fmt.Sprintf("127.0.0.1:%d", tc.p.https), &tls.Config{RootCAs: tc.p.issuedBy(t), ServerName: hostname})
			if err != nil {
				t.Fatal(err)
			}
			if leaf := state.PeerCertificates[0]; !leaf.NotAfter.Equal(got.Expires) || !strings.Contains(got.Issuer, "Pebble") {
				t.Errorf("listed as %+v, served until %s", got, leaf.NotAfter)
			}
		})
	}
}

func dialTLS(address string, c *tls.Config) (tls.ConnectionState, error) {
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: c}
	conn, err := d.Dial("tcp", address)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState(), nil
}

// awaitState waits until the certificate of the host name is in a state.
func awaitState(t *testing.T, store *tlsconf.Store, want tlsconf.State) (got tlsconf.Status) {
	t.Helper()
	await(t, "the certificate is "+string(want), func() bool {
		all, err := store.List(context.WithoutCancel(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			if s.Name == hostname {
				got = s
			}
		}
		if got.State != want && got.State != tlsconf.Waiting {
			t.Fatalf("it is %+v", got)
		}
		return got.State == want
	})
	return got
}
