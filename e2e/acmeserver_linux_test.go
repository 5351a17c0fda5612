package e2e

import (
	"crypto/tls"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestACMEServer runs the server in a network of its own, where the name server of its domain has the usual port: it gets a certificate by
// a record there, serves it on every port, and serves the next one without a restart.
func TestACMEServer(t *testing.T) {
	for _, name := range []string{"ip", "knotd", "knsupdate", "pebble"} {
		program(t, name)
	}
	if !enterWorld(t) {
		return
	}
	finish(t, "link set lo up\n", program(t, "ip"), "-batch", "-")
	knot := startKnot(t, 53)
	p := startPebble(t, knot.address.String(), nil)
	s := newServerAsking(t, knot.address)
	dir := t.TempDir()
	for name, text := range map[string]string{"tsig": knot.secret, "roots.pem": p.rootsText} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.setTLS(t, `source = "acme"`, `ca = "`+p.directory+`"`, `ca_roots = "`+dir+`/roots.pem"`, `email = "op@example.net"`, `challenge = "dns-01"`,
		`dns_provider = "rfc2136"`, `dns_server = "127.0.0.1:53"`, `dns_key_name = "hmac-sha256:postroom"`, `dns_key_file = "`+dir+`/tsig"`)
	s.serve(t)
	host := s.certificate(t)
	await(t, "the first certificate", func() bool {
		host = s.certificate(t)
		if host.State == "failed" {
			t.Fatalf("%+v", host)
		}
		return host.State == "good"
	})
	roots := p.issuedBy(t)
	serials := map[string]bool{}
	look := func() {
		t.Helper()
		for _, d := range []door{
			{"smtp", s.ports["smtp"], "EHLO c.example\r\nSTARTTLS\r\n"},
			{"submission", s.ports["submission"], "EHLO c.example\r\nSTARTTLS\r\n"},
			{"submissions", s.ports["submissions"], ""},
			{"pop3", s.ports["pop3"], "STLS\r\n"},
			{"pop3s", s.ports["pop3s"], ""},
		} {
			state, err := d.greet(&tls.Config{RootCAs: roots, ServerName: hostname})
			if err != nil {
				t.Errorf("%s: %v", d.name, err)
				continue
			}
			serials[state.PeerCertificates[0].SerialNumber.String()] = true
		}
	}
	look()
	if out, code := s.try(t, "", "cert", "renew", hostname); code != 0 || !strings.Contains(out, "mail.example.org has a new certificate, until 20") {
		t.Errorf("renew: exit %d, %s", code, out)
	}
	await(t, "the new certificate is served", func() bool { look(); return len(serials) > 1 })
	if again := s.certificate(t); again.Key != host.Key || !strings.Contains(again.Issuer, "Pebble") || again.DaysLeft == nil || *again.DaysLeft < 1 {
		t.Errorf("first %+v, then %+v", host, again)
	}
	if code := s.stop(t); code != 0 {
		t.Errorf("stopped with %d", code)
	}
	s.serve(t)
	look() // at once: it is kept
	if len(serials) != 2 || p.issued() != 2 {
		t.Errorf("%d certificates were served, %d issued, want 2", len(serials), p.issued())
	}
}

// listedCertificate is what cert list --json says of the host name.
type listedCertificate struct {
	Name, State, Issuer, Key, Reason string
	DaysLeft                         *int `json:"days_left"`
}

func (s *server) certificate(t *testing.T) listedCertificate {
	t.Helper()
	var all []listedCertificate
	if err := json.Unmarshal([]byte(s.run(t, "", "cert", "list", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if c.Name == hostname {
			return c
		}
	}
	return listedCertificate{}
}
