package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/resolve/zone"
)

// asks makes the installation ask a DNS of its own, whose records the test changes.
func (in *installation) asks(z *zone.Zone) {
	in.t.Helper()
	server, stop, err := z.Start(in.t.Context())
	if err != nil {
		in.t.Fatal(err)
	}
	in.t.Cleanup(stop)
	in.replace(regexp.MustCompile(`resolvers = \[.*\]`), fmt.Sprintf("resolvers = [%q]", server))
}

// replace changes the configuration file.
func (in *installation) replace(old *regexp.Regexp, with string) {
	in.t.Helper()
	text, err := os.ReadFile(in.config)
	if err != nil {
		in.t.Fatal(err)
	}
	if !old.Match(text) {
		in.t.Fatalf("%s is not in the configuration", old)
	}
	in.configure(old.ReplaceAllString(string(text), with))
}

// withWeb opens the HTTP ports.
func (in *installation) withWeb() *installation {
	in.t.Helper()
	for _, name := range []string{"http", "https", "admin"} {
		in.replace(regexp.MustCompile(`(?m)^`+name+` = \[\]$`), name+` = ["127.0.0.1:0"]`)
	}
	return in
}

// fetch asks the running server for a page under the name of a host.
func (r *running) fetch(service, host, path string) (status int, body string) {
	r.t.Helper()
	trust := r.client()
	client := &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: trust.RootCAs, ServerName: "mail.example.org"},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	scheme := "http"
	if service == "https" {
		scheme = "https"
	}
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, scheme+"://"+r.port(service)+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	request.Host = host
	answer, err := client.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.StatusCode, string(b)
}

// TestPolicyCommand has a row for each mode and each kind of MX records.
func TestPolicyCommand(t *testing.T) {
	in := settled(t)
	z := zone.MustParse(`
		example.org.     60 IN MX 10 mail.example.org.
		away.example.    60 IN MX 10 mx.elsewhere.example.
		null.example.    60 IN MX 0 .
		`)
	z.SetFault("broken.example", zone.ServFail)
	in.asks(z)
	for _, d := range []string{"away.example", "null.example", "none.example", "broken.example"} {
		in.must("", "domain", "add", d)
	}
	for _, tc := range []struct {
		domain, mode string
		status       int
		says         string
	}{
		{"example.org", "enforce", statusDone, `_mta-sts.example.org TXT "v=STSv1; id=`},
		{"example.org", "testing", statusDone, "The policy says testing"},
		{"example.org", "none", statusDone, "The policy says none"},
		{"away.example", "testing", statusDone, "The policy says testing"},
		{"away.example", "none", statusDone, "The policy says none"},
		{"away.example", "enforce", statusNo, "mx.elsewhere.example is not mail.example.org"},
		{"null.example", "enforce", statusNo, "null MX"},
		{"none.example", "enforce", statusNo, "there are none"},
		{"broken.example", "enforce", statusUnsure, "it cannot be told whether the policy fits"},
		{"nobody.example", "enforce", statusNo, "no domain nobody.example"},
		{"example.org", "report", statusUsage, "use none, testing or enforce"},
	} {
		t.Run(tc.domain+" "+tc.mode, func(t *testing.T) {
			before := map[string]any{}
			if tc.domain != "nobody.example" {
				in.read(&before, "domain", "show", tc.domain)
			}
			r := in.try("", "domain", "set", tc.domain, "--mta-sts", tc.mode)
			if r.status != tc.status || !strings.Contains(r.stderr, tc.says) || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("status %d, %q; want %d and %q", r.status, r.stderr, tc.status, tc.says)
			}
			if tc.domain == "nobody.example" {
				return
			}
			after := map[string]any{}
			in.read(&after, "domain", "show", tc.domain)
			want := before["mta_sts"]
			if tc.status == statusDone {
				want = tc.mode
			}
			if after["mta_sts"] != want {
				t.Errorf("the mode is %v, want %v", after["mta_sts"], want)
			}
		})
	}
}

// TestWeb serves everything at once: settings, a policy that follows the command line, metrics that follow the mail.
func TestWeb(t *testing.T) {
	in := settled(t).withWeb()
	in.asks(zone.MustParse(`
		example.org.       60 IN MX 10 mail.example.org.
		elsewhere.example. 60 IN MX 10 elsewhere.example.
		`))
	r := in.serve()
	const autoconfig = "/mail/config-v1.1.xml"
	for _, tc := range []struct {
		service, host, path string
		status              int
		says                string
	}{
		{"https", "mail.example.org", "/healthz", 404, ""},
		{"https", "mail.example.org", "/metrics", 404, ""},
		{"http", "mail.example.org", "/metrics", 404, ""},
		{"http", "mail.example.org", "/settings", 302, ""},
		{"https", "autoconfig.nobody.example", autoconfig, 404, ""},
		{"https", "mta-sts.example.org", "/.well-known/mta-sts.txt", 200, "mode: testing\r\nmx: mail.example.org\r\n"},
		{"admin", "anything", "/healthz", 200, "ok"},
		{"admin", "anything", "/readyz", 200, "database: ok\nsecret.key: ok\ncertificate: ok\ndisk: ok\n"},
		{"admin", "anything", "/settings", 404, ""},
		// No submission port is open here: there is nothing to set a mail program up with.
		{"https", "autoconfig.example.org", autoconfig, 404, "takes no mail programs"},
	} {
		if status, body := r.fetch(tc.service, tc.host, tc.path); status != tc.status || !strings.Contains(body, tc.says) {
			t.Errorf("%s %s%s: %d %q, want %d %q", tc.service, tc.host, tc.path, status, body, tc.status, tc.says)
		}
	}
	r.must("", "domain", "set", "example.org", "--mta-sts", "enforce")
	if _, body := r.fetch("https", "mta-sts.example.org", "/.well-known/mta-sts.txt"); !strings.Contains(body, "mode: enforce") {
		t.Errorf("after the command: %q", body)
	}
	r.rcpt("<nobody@example.org>")
	r.logIn("anna@example.org", "wrong password")
	_, metrics := r.fetch("admin", "127.0.0.1", "/metrics")
	for _, want := range []string{
		`postroom_refusals_total{code="550",service="smtp"} 1`, `postroom_login_failures_total{reason="credentials",service="pop3"} 1`,
		`postroom_queue_recipients{state="waiting"} 0`, `postroom_certificate_days_left{name="mail.example.org"} 8`, `postroom_connections{service="admin"} 1`,
		"postroom_disk_free_bytes ", "postroom_metrics_incomplete 0",
	} {
		if !strings.Contains(metrics, "\n"+want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	if t.Failed() {
		t.Log(metrics)
	}
}

// TestSettingsPorts shows that mail programs are told the ports that are open.
func TestSettingsPorts(t *testing.T) {
	in := settled(t).withWeb()
	in.replace(regexp.MustCompile(`submissions = \[\]`), `submissions = ["127.0.0.1:0"]`)
	r := in.serve()
	_, body := r.fetch("http", "autoconfig.example.org", "/mail/config-v1.1.xml")
	for _, service := range []string{"pop3s", "submissions"} {
		_, port, err := net.SplitHostPort(r.port(service))
		if err != nil || !strings.Contains(body, "<port>"+port+"</port>") {
			t.Errorf("%s on %s is not in %s", service, port, body)
		}
	}
}

// TestNotReady shows that a server without room for mail says so, and lives.
func TestNotReady(t *testing.T) {
	in := settled(t).withWeb()
	text, err := os.ReadFile(in.config)
	if err != nil {
		t.Fatal(err)
	}
	in.configure(string(text) + "[limits]\ndisk_reserve = \"100000000 GiB\"\n")
	r := in.serve()
	if status, body := r.fetch("admin", "127.0.0.1", "/readyz"); status != 503 || !strings.Contains(body, "database: ok\n") || !strings.Contains(body, "left, the reserve is") {
		t.Errorf("%d %q", status, body)
	}
	if status, _ := r.fetch("admin", "127.0.0.1", "/healthz"); status != 200 {
		t.Errorf("it lives with status %d", status)
	}
}

func TestPresent(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name string
		end  time.Time
		says string
	}{
		{"there", now.Add(time.Second), ""},
		{"none", time.Time{}, "there is none"},
		{"at its end", now, "it ended on 2026-11-26T12:00:00Z"},
		{"ended", now.Add(-time.Hour), "it ended on 2026-11-26T11:00:00Z"},
	} {
		err := present(tc.end, now)
		if (err == nil) != (tc.says == "") || err != nil && err.Error() != tc.says {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.says)
		}
	}
}
