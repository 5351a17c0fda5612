package e2e

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/resolve/zone"
)

// TestACMEWeb runs the server in a network of its own, on the ports where authorities look: it finds out that its names lead to it, proves
// them over both ports, and serves the policy of its domain to whoever trusts the authority.
func TestACMEWeb(t *testing.T) {
	for _, name := range []string{"ip", "pebble"} {
		program(t, name)
	}
	if !enterWorld(t) {
		return
	}
	finish(t, "link set lo up\n", program(t, "ip"), "-batch", "-")
	dns, stop, err := zone.MustParse(`
		example.org.              60 IN MX 10 mail.example.org.
		mail.example.org.         60 IN A 127.0.0.1
		mta-sts.example.org.      60 IN A 127.0.0.1
		autoconfig.example.org.   60 IN A 127.0.0.1
		autodiscover.example.org. 60 IN CNAME mail.example.org.
		`).Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	p := startPebbleFor(t, dns.String(), nil, 80, 443)
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		t.Run(challenge, func(t *testing.T) {
			s := newServerAsking(t, dns)
			roots := filepath.Join(t.TempDir(), "roots.pem")
			if err := os.WriteFile(roots, []byte(p.rootsText), 0o600); err != nil {
				t.Fatal(err)
			}
			s.configure(t, map[string]string{`(?m)^http = \[\]$`: `http = ["127.0.0.1:80"]`, `(?m)^https = \[\]$`: `https = ["127.0.0.1:443"]`})
			s.setTLS(t, `source = "acme"`, `ca = "`+p.directory+`"`, `ca_roots = "`+roots+`"`, `challenge = "`+challenge+`"`)
			s.serve(t)
			await(t, "all names have certificates", func() bool {
				list := s.run(t, "", "cert", "list")
				if strings.Contains(list, "failed") {
					t.Fatal(list)
				}
				return strings.Count(list, " good ") == 4
			})
			client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.issuedBy(t)}, DisableKeepAlives: true,
				Proxy: nil, DialContext: dialLoopback}}
			for _, url := range []string{"https://mta-sts.example.org/.well-known/mta-sts.txt", "https://autoconfig.example.org/mail/config-v1.1.xml"} {
				response, err := client.Get(url)
				if err != nil {
					t.Error(err)
					continue
				}
				body, err := io.ReadAll(response.Body)
				_ = response.Body.Close()
				if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(body), hostname) {
					t.Errorf("%s: %s, %s, %v", url, response.Status, body, err)
				}
			}
			if code := s.stop(t); code != 0 {
				t.Errorf("stopped with %d", code)
			}
		})
	}
}

// dialLoopback connects to this machine, whatever the name.
func dialLoopback(ctx context.Context, network, address string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
}
