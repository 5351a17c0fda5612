package web

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/postroom/postroom/internal/mtasts"
)

const autoconfigPath = "/mail/config-v1.1.xml"

// TestNames has a row for each kind of name in a request and each kind of page.
func TestNames(t *testing.T) {
	const (
		setup  = "/settings"
		policy = "/.well-known/mta-sts.txt"
	)
	for _, tc := range []struct {
		name, host, path string
		want             int
	}{
		{"the server", "mail.example.org", setup, 200},
		{"the server, in capitals, with a port", "MAIL.example.ORG:443", setup, 200},
		{"a domain", "example.org", setup, 200},
		{"autoconfig", "autoconfig.example.org", setup, 200},
		{"autodiscover", "autodiscover.example.org", setup, 200},
		{"a domain in U-labels", "autoconfig.bücher.example", setup, 200},
		{"the policy's name has no settings", "mta-sts.example.org", setup, 404},
		{"policy", "mta-sts.example.org", policy, 200},
		{"policies are under no other name", "example.org", policy, 404},
		{"nor under the server's", "mail.example.org", policy, 404},
		{"nor under autoconfig", "autoconfig.example.org", policy, 404},
		{"policy of nobody", "mta-sts.nobody.example", policy, 404},
		{"nobody", "nobody.example", setup, 404},
		{"autoconfig of nobody", "autoconfig.nobody.example", setup, 404},
		{"below a domain", "www.example.org", setup, 404},
		{"two prefixes", "autoconfig.autoconfig.example.org", setup, 404},
		{"an address", "192.0.2.1", setup, 404},
		{"an IPv6 address", "[2001:db8::1]:443", setup, 404},
		{"no name", "", setup, 404},
		{"no name at all", "<b>", setup, 404},
		{"a final dot", "example.org.", setup, 404},
		{"no such page", "example.org", "/index.html", 404},
		{"no listing", "example.org", "/autodiscover/", 404},
		{"no way up", "example.org", "/settings/../../etc/passwd", 404},
		{"the front page", "example.org", "/", 302},
		{"the style", "example.org", "/settings.css", 200},
		{"a database that fails", "broken.example", setup, 503},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "https://x"+tc.path, nil)
			r.Host = tc.host
			w := httptest.NewRecorder()
			newSite(t).HTTPS().ServeHTTP(w, r)
			if w.Code != tc.want {
				t.Errorf("status %d, want %d\n%s", w.Code, tc.want, w.Body)
			}
			if w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Content-Security-Policy") == "" {
				t.Errorf("header %v", w.Header())
			}
			if known := tc.want < 400; (w.Header().Get("Strict-Transport-Security") != "") != known {
				t.Errorf("HSTS %q", w.Header().Get("Strict-Transport-Security"))
			}
			if (w.Header().Get("Retry-After") != "") != (tc.want == 503) {
				t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
			}
		})
	}
}

// TestWrongRequests has a row for each thing that is wrong with a request. No answer repeats it.
func TestWrongRequests(t *testing.T) {
	const mark = "<xyzzy>"
	huge := strings.Repeat("x", maxBody+1)
	for _, tc := range []struct {
		name, method, url, body string
		want                    int
	}{
		{"not an address", "GET", "https://autoconfig.example.org" + autoconfigPath + "?emailaddress=%3Cxyzzy%3E", "", 400},
		{"an address without a domain", "GET", "https://autoconfig.example.org" + autoconfigPath + "?emailaddress=anna", "", 400},
		{"an address literal", "GET", "https://autoconfig.example.org" + autoconfigPath + "?emailaddress=anna@[192.0.2.1]", "", 400},
		{"a line break", "GET", "https://autoconfig.example.org" + autoconfigPath + "?emailaddress=anna%0D%0AX%3A%20y@example.org", "", 400},
		{"a very long address", "GET", "https://autoconfig.example.org" + autoconfigPath + "?emailaddress=" + strings.Repeat("a", 3000) + "@example.org", "", 400},
		{"another's domain", "GET", "https://autoconfig.example.org" + autoconfigPath + "?emailaddress=xyzzy@nobody.example", "", 404},
		{"a broken query", "GET", "https://autoconfig.example.org" + autoconfigPath + "?emailaddress=%zz;&", "", 200}, // as without
		{"no address for the server", "GET", "https://mail.example.org" + autoconfigPath, "", 400},
		{"a profile for nobody", "GET", "https://example.org/profile.mobileconfig", "", 400},
		{"a profile for another's domain", "GET", "https://example.org/profile.mobileconfig?emailaddress=a@nobody.example", "", 404},
		{"a page for another's domain", "GET", "https://example.org/settings?emailaddress=a@nobody.example", "", 404},
		{"Outlook, another's domain", "POST", "https://autodiscover.example.org/autodiscover/autodiscover.xml", outlookAsks("a@nobody.example"), 404},
		{"Outlook, a huge body", "POST", "https://autodiscover.example.org/autodiscover/autodiscover.xml", "<Autodiscover>" + huge, 413},
		{"Outlook, JSON, another's domain", "GET", "https://autodiscover.example.org/autodiscover/autodiscover.json?Email=a@nobody.example&Protocol=AutodiscoverV1", "", 404},
		{"Outlook, JSON, no address", "GET", "https://autodiscover.example.org/autodiscover/autodiscover.json?Email=%3Cxyzzy%3E&Protocol=AutodiscoverV1", "", 400},
		{"a form posted", "POST", "https://autoconfig.example.org" + autoconfigPath, "a=b", 405},
		{"a file put", "PUT", "https://example.org/settings", mark, 405},
		{"DELETE", "DELETE", "https://example.org/settings", "", 405},
		{"TRACE", "TRACE", "https://example.org/autodiscover/autodiscover.xml", "", 405},
		{"a policy posted", "POST", "https://mta-sts.example.org/.well-known/mta-sts.txt", "", 405},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := ask(newSite(t).HTTPS(), tc.method, tc.url, strings.NewReader(tc.body))
			if a.status != tc.want {
				t.Errorf("got %s", a)
			}
			if (a.header.Get("Allow") != "") != (tc.want == 405) {
				t.Errorf("Allow: %q", a.header.Get("Allow"))
			}
			if a.status >= 400 && (strings.Contains(a.body, "xyzzy") || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain")) {
				t.Errorf("it repeats what was asked, or is no plain text: %s", a)
			}
		})
	}
}

// TestNobodyIsTold shows that all addresses of a domain get one answer: the site knows of domains only.
func TestNobodyIsTold(t *testing.T) {
	h := newSite(t).HTTPS()
	for _, path := range []string{autoconfigPath, "/profile.mobileconfig", "/settings"} {
		answers := map[string]bool{}
		for _, name := range []string{"anna", "nobody", "root"} {
			a := get(h, "https://mail.example.org"+path+"?emailaddress="+name+"@example.org")
			if path == "/profile.mobileconfig" || path == "/settings" { // UUIDs and QR codes differ
				a.body = ""
			}
			answers[strings.ReplaceAll(a.String(), name, "NAME")] = true
		}
		if len(answers) != 1 {
			t.Errorf("%s has %d answers", path, len(answers))
		}
	}
}

// TestPlain shows what is answered without TLS, and that all else leads to the port with it.
func TestPlain(t *testing.T) {
	for _, tc := range []struct {
		name, method, url string
		want              int
		location          string
	}{
		{"autoconfig", "GET", "http://autoconfig.example.org" + autoconfigPath, 200, ""},
		{"well-known", "HEAD", "http://example.org/.well-known/autoconfig/mail/config-v1.1.xml", 200, ""},
		{"settings", "GET", "http://mail.example.org:80/settings?emailaddress=a%40example.org", 302, "https://mail.example.org/settings?emailaddress=a%40example.org"},
		{"policy", "GET", "http://mta-sts.example.org/.well-known/mta-sts.txt", 302, "https://mta-sts.example.org/.well-known/mta-sts.txt"},
		{"Outlook posts", "POST", "http://autodiscover.example.org/Autodiscover/Autodiscover.xml", 308, "https://autodiscover.example.org/Autodiscover/Autodiscover.xml"},
		{"U-labels", "GET", "http://autoconfig.bücher.example/settings", 302, "https://autoconfig.xn--bcher-kva.example/settings"},
		{"nobody", "GET", "http://nobody.example/settings", 404, ""},
		{"nobody, all over", "GET", "http://nobody.example//evil.example/", 404, ""},
		{"no such page", "GET", "http://example.org/x", 404, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := ask(newSite(t).HTTP(), tc.method, tc.url, nil)
			if a.status != tc.want || a.header.Get("Location") != tc.location {
				t.Errorf("got %s, want %d %s", a, tc.want, tc.location)
			}
			if a.header.Get("Strict-Transport-Security") != "" {
				t.Error("HSTS without TLS")
			}
		})
	}
}

// TestChallenges shows that what an authority asks comes first, for names that are not served, too, and only on the plain port.
func TestChallenges(t *testing.T) {
	s := newSite(t, func(o *Options) {
		o.Challenges = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/.well-known/acme-challenge/") {
					write(w, "text/plain", []byte("token"))
					return
				}
				next.ServeHTTP(w, r)
			})
		}
	})
	const path = "nobody.example/.well-known/acme-challenge/x"
	if a := get(s.HTTP(), "http://"+path); a.status != 200 || a.body != "token" {
		t.Errorf("the authority reads %s", a)
	}
	if a := get(s.HTTPS(), "https://"+path); a.status != 404 {
		t.Errorf("on the other port: %s", a)
	}
	if a := get(s.HTTP(), "http://mail.example.org/settings"); a.status != 302 {
		t.Errorf("everybody else reads %s", a)
	}
}

// TestPolicies has a row for each mode and each kind of MX records.
func TestPolicies(t *testing.T) {
	for _, tc := range []struct {
		name string
		mode mtasts.Mode
		mx   string // as exchangers has it
		want int
		log  string
	}{
		{"testing", mtasts.Testing, host, 200, ""},
		{"enforce", mtasts.Enforce, host, 200, ""},
		{"enforce, in capitals", mtasts.Enforce, "MAIL.Example.ORG", 200, ""},
		{"none", mtasts.None, host, 200, ""},
		{"none, elsewhere", mtasts.None, "mx.elsewhere.example", 200, ""},
		{"none, no MX", mtasts.None, "", 200, ""},
		{"none, the DNS fails", mtasts.None, "?", 200, ""},
		{"testing, elsewhere", mtasts.Testing, "mx.elsewhere.example", 404, "mx.elsewhere.example is not mail.example.org"},
		{"enforce, elsewhere", mtasts.Enforce, "mx.elsewhere.example", 404, "mx.elsewhere.example is not mail.example.org"},
		{"a backup elsewhere", mtasts.Enforce, host + " mx.elsewhere.example", 404, "mx.elsewhere.example is not"},
		{"a backup before", mtasts.Testing, "mx.elsewhere.example " + host, 404, "mx.elsewhere.example is not"},
		{"no MX", mtasts.Testing, "", 404, "there are none"},
		{"null MX", mtasts.Enforce, "null", 404, "null MX"},
		{"the DNS fails", mtasts.Testing, "?", 503, "no answer in time"},
		{"the DNS fails, enforce", mtasts.Enforce, "?", 503, "no answer in time"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log bytes.Buffer
			s := newSite(t, func(o *Options) {
				o.Domains, o.DNS, o.Log = domains{"example.org": tc.mode}, exchangers{"example.org": tc.mx}, logTo(&log)
			})
			var a answer
			for range 3 {
				a = get(s.HTTPS(), "https://mta-sts.example.org/.well-known/mta-sts.txt")
			}
			if a.status != tc.want {
				t.Fatalf("got %s", a)
			}
			if n := strings.Count(log.String(), "MTA-STS policy not served"); n > 1 || (n == 1) != (tc.log != "") || !strings.Contains(log.String(), tc.log) {
				t.Errorf("the log says %q", log.String())
			}
			if tc.want != 200 {
				return
			}
			p, err := mtasts.ParsePolicy([]byte(a.body))
			if err != nil || p.Mode != tc.mode || !p.Match(host) || a.header.Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("%+v, %v in %s", p, err, a)
			}
		})
	}
}

// TestPolicyAgain shows that a policy is served once the records are right, and that the log says so.
func TestPolicyAgain(t *testing.T) {
	var log bytes.Buffer
	mx := exchangers{"example.org": "mx.elsewhere.example"}
	s := newSite(t, func(o *Options) { o.DNS, o.Log = mx, logTo(&log) })
	const url = "https://mta-sts.example.org/.well-known/mta-sts.txt"
	if a := get(s.HTTPS(), url); a.status != 404 {
		t.Errorf("got %s", a)
	}
	mx["example.org"] = host
	if a := get(s.HTTPS(), url); a.status != 200 || !strings.Contains(log.String(), "served again") {
		t.Errorf("got %s, the log says %s", a, log.String())
	}
}

func TestMismatchIsTold(t *testing.T) {
	d := domain("example.org")
	_, err := Policy(t.Context(), exchangers{"example.org": "a.example"}, d, mtasts.Enforce, host)
	var m *Mismatch
	if !errors.As(err, &m) || m.Domain != "example.org" || !strings.Contains(err.Error(), "a.example is not mail.example.org") {
		t.Errorf("got %v", err)
	}
	if _, err := Policy(t.Context(), exchangers{"example.org": "?"}, d, mtasts.Enforce, host); err == nil || isMismatch(err) {
		t.Errorf("a DNS that fails: %v", err)
	}
}

func TestPublicPort(t *testing.T) {
	at := func(all ...string) (ports []netip.AddrPort) {
		for _, a := range all {
			ports = append(ports, netip.MustParseAddrPort(a))
		}
		return ports
	}
	for _, tc := range []struct {
		name      string
		listening []netip.AddrPort
		proxied   bool
		want      uint16
	}{
		{"everywhere", at("[::]:995"), false, 995},
		{"everywhere, another port", at("[::]:2995"), false, 2995},
		{"nowhere", nil, false, 0},
		{"nowhere, with a proxy", nil, true, 0},
		{"loopback, for trying out", at("127.0.0.1:2995"), false, 2995},
		{"behind a proxy", at("127.0.0.1:2995"), true, 995},
		{"loopback and one address", at("127.0.0.1:2995", "192.0.2.1:995"), true, 995},
		{"an address, with a proxy", at("192.0.2.1:1995"), true, 1995},
	} {
		if got := PublicPort(tc.listening, tc.proxied, 995); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestNewSite(t *testing.T) {
	for _, change := range []func(*Options){
		func(o *Options) { o.Hostname = "" }, func(o *Options) { o.Hostname = "a_b" },
		func(o *Options) { o.Domains = nil }, func(o *Options) { o.DNS = nil },
	} {
		o := options()
		change(&o)
		if _, err := NewSite(o); err == nil {
			t.Errorf("%+v made a site", o)
		}
	}
}

// FuzzSite shows that no request breaks the site, or gets a part of itself back as markup.
func FuzzSite(f *testing.F) {
	f.Add("autoconfig.example.org", "/mail/config-v1.1.xml", "emailaddress=anna%40example.org", "")
	f.Add("mail.example.org:443", "/Settings", "emailaddress=%22%3Cb%3E%22%40example.org", "")
	f.Add("autodiscover.example.org", "/autodiscover/autodiscover.xml", "", outlookAsks("anna@example.org"))
	f.Add("mta-sts.example.org", "/.well-known/mta-sts.txt", "", "")
	f.Add("example.org", "/autodiscover/autodiscover.json/v1.0/a@example.org", "Protocol=AutodiscoverV1", "")
	site, err := NewSite(options())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, host, path, query, body string) {
		method := http.MethodGet
		if body != "" {
			method = http.MethodPost
		}
		for _, h := range []http.Handler{site.HTTP(), site.HTTPS()} {
			r := httptest.NewRequest(method, "https://x/", strings.NewReader(body))
			r.Host, r.URL.Path, r.URL.RawQuery = host, path, query
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if location := w.Header().Get("Location"); location != "" && !strings.HasPrefix(location, "/settings") {
				to, err := url.Parse(location)
				if err != nil || to.Scheme != "https" || !strings.HasSuffix("."+to.Host, ".example.org") && !strings.HasSuffix(to.Host, ".example") {
					t.Fatalf("sent to %q", location)
				}
			}
			if strings.Contains(strings.ToLower(w.Body.String()), "<script") {
				t.Fatalf("got %s", w.Body)
			}
		}
	})
}
