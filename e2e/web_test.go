package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/resolve/zone"
)

// configure changes the configuration of a server that does not run: what the expressions match becomes their text.
func (s *server) configure(t *testing.T, changes map[string]string) {
	t.Helper()
	b, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	for old, text := range changes {
		re := regexp.MustCompile(old)
		if !re.Match(b) {
			t.Fatalf("%s is not in the configuration", old)
		}
		b = re.ReplaceAll(b, []byte(text))
	}
	if err := os.WriteFile(s.config, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// withWeb is a server with its HTTP ports open, in a DNS that knows its domain.
func withWeb(t *testing.T) *server {
	t.Helper()
	s := newServer(t)
	resolver, stop, err := zone.MustParse(`
		example.org.       60 IN MX 10 mail.example.org.
		client.example.    60 IN MX 10 client.example.
		`).Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	s.configure(t, map[string]string{
		`resolvers = \[.*\]`:              `resolvers = ["` + resolver.String() + `"]`,
		`(?m)^(http|https|admin) = \[\]$`: `$1 = ["127.0.0.1:0"]`,
	})
	return s
}

// curl returns the status of a page and what is on it.
func (s *server) curl(t *testing.T, service, host, path string, more ...string) (status int, body string) {
	t.Helper()
	scheme := "http"
	if service == "https" {
		scheme = "https"
	}
	_, port, _ := strings.Cut(s.ports[service], ":")
	args := append([]string{
		"--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--cacert", s.ca(), "--header", "Host: " + host,
		"--write-out", "\n%{http_code}", scheme + "://localhost:" + port + path,
	}, more...)
	cmd := exec.CommandContext(t.Context(), program(t, "curl"), args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("curl %s%s: %v", host, path, err)
	}
	i := strings.LastIndexByte(string(out), '\n')
	if status, err = strconv.Atoi(string(out[i+1:])); err != nil {
		t.Fatalf("curl says %q", out)
	}
	return status, string(out[:i])
}

// TestWeb asks the real server with curl what mail programs, other mail servers and Prometheus ask it.
func TestWeb(t *testing.T) {
	program(t, "curl")
	s := withWeb(t)
	s.serve(t)

	port := func(service string) string {
		_, p, _ := strings.Cut(s.ports[service], ":")
		return "<port>" + p + "</port>"
	}
	for _, service := range []string{"http", "https"} {
		status, body := s.curl(t, service, "autoconfig.example.org", "/mail/config-v1.1.xml?emailaddress=anna%40example.org")
		if status != 200 || !strings.Contains(body, "<username>anna@example.org</username>") || !strings.Contains(body, port("pop3s")) || !strings.Contains(body, port("submissions")) {
			t.Errorf("autoconfig over %s: %d %s", service, status, body)
		}
	}
	request := `<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006"><Request><EMailAddress>anna@example.org</EMailAddress><AcceptableResponseSchema>http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a</AcceptableResponseSchema></Request></Autodiscover>`
	if status, body := s.curl(t, "https", "autodiscover.example.org", "/Autodiscover/Autodiscover.xml", "--header", "Content-Type: text/xml", "--data", request); status != 200 ||
		!strings.Contains(body, "<Type>POP3</Type>") {
		t.Errorf("autodiscover: %d %s", status, body)
	}
	huge := filepath.Join(t.TempDir(), "huge.xml")
	if err := os.WriteFile(huge, []byte("<Autodiscover>"+strings.Repeat("x", 150_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, body := s.curl(t, "https", "autodiscover.example.org", "/autodiscover/autodiscover.xml", "--http1.1", "--data-binary", "@"+huge); status != 413 {
		t.Errorf("a huge request: %d %s", status, body)
	}
	if status, _ := s.curl(t, "http", "mail.example.org", "/settings"); status != 302 {
		t.Errorf("settings without TLS: %d", status)
	}
	if status, body := s.curl(t, "https", "mail.example.org", "/settings?emailaddress=anna%40example.org"); status != 200 || !strings.Contains(body, "<svg") {
		t.Errorf("settings: %d %s", status, body)
	}
	if status, _ := s.curl(t, "https", "autoconfig.elsewhere.example", "/mail/config-v1.1.xml"); status != 404 {
		t.Errorf("another's domain: %d", status)
	}
	for _, mode := range []string{"testing", "enforce", "none"} {
		s.run(t, "", "domain", "set", domain, "--mta-sts", mode)
		if status, body := s.curl(t, "https", "mta-sts.example.org", "/.well-known/mta-sts.txt"); status != 200 || !strings.Contains(body, "\r\nmode: "+mode+"\r\n") {
			t.Errorf("policy %s: %d %q", mode, status, body)
		}
	}

	c, err := greet(s.ports["smtp"], nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if _, err := c.deliver(anna, []byte("From: <ben@client.example>\r\nSubject: x\r\n\r\nHello.\r\n")); err != nil {
		t.Fatal(err)
	}
	if status, body := s.curl(t, "admin", "localhost", "/readyz"); status != 200 {
		t.Errorf("not ready: %s", body)
	}
	_, metrics := s.curl(t, "admin", "localhost", "/metrics")
	for _, want := range []string{
		`postroom_letters_received_total{service="smtp"} 1`, `postroom_letter_seconds_count{service="smtp"} 1`, `postroom_connections{service="smtp"} 1`,
		`postroom_queue_overdue_seconds 0`, `postroom_metrics_incomplete 0`,
	} {
		if !strings.Contains(metrics, "\n"+want+"\n") {
			t.Errorf("the metrics have no %s", want)
		}
	}
	if strings.Contains(metrics, "@") {
		t.Error("there is an address in the metrics")
	}
	if code := s.stop(t); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}
