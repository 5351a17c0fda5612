package spf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/mailtest"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/resolve/zone"
)

// document is one YAML document of a suite: a zone and the tests in it.
type document struct {
	Description string               `yaml:"description"`
	Tests       map[string]suiteCase `yaml:"tests"`
	Zonedata    map[string][]any     `yaml:"zonedata"`
}

type suiteCase struct {
	Helo     string `yaml:"helo"`
	Host     string `yaml:"host"`
	MailFrom string `yaml:"mailfrom"`
	Result   any    `yaml:"result"` // one, or a list of acceptable ones
}

func (c suiteCase) accepts(s Status) bool {
	list, ok := c.Result.([]any)
	if !ok {
		list = []any{c.Result}
	}
	return slices.Contains(list, any(string(s)))
}

// suiteZone is the zone of a document as a resolver.
type suiteZone struct {
	records map[string][]any
	delay   time.Duration
}

func newSuiteZone(data map[string][]any) *suiteZone {
	z := &suiteZone{records: map[string][]any{}}
	for name, records := range data {
		z.records[strings.ToLower(strings.TrimSuffix(name, "."))] = records
	}
	return z
}

// find returns the values of a type at a name, as the runners of the suite do it.
func (z *suiteZone) find(ctx context.Context, name, kind string, depth int) ([]any, error) {
	select {
	case <-ctx.Done():
		return nil, resolve.ErrTimeout
	case <-time.After(z.delay):
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if strings.HasPrefix(name, "_dns_error.") { // as mail-auth writes it
		return nil, resolve.ErrServer
	}
	records, ok := z.records[name]
	if !ok || len(name) > 253 || slices.ContainsFunc(strings.Split(name, "."), func(l string) bool { return l == "" || len(l) > 63 }) {
		return nil, resolve.ErrNotFound
	}
	var found, spf []any
	hasTXT, fails := false, false
	for _, record := range records {
		entry, ok := record.(map[string]any)
		if !ok {
			fails = fails || record == "TIMEOUT"
			continue
		}
		for k, value := range entry {
			switch {
			case k == "RCODE", k == "SERVFAIL":
				return nil, resolve.ErrServer
			case k == "CNAME" && kind != "CNAME" && depth < 10:
				return z.find(ctx, fmt.Sprint(value), kind, depth+1)
			case k == "TXT":
				hasTXT = true
				if kind == "TXT" && value != "NONE" {
					found = append(found, value)
				}
			case k == kind:
				found = append(found, value)
			case k == "SPF":
				spf = append(spf, value)
			}
		}
	}
	if kind == "TXT" && !hasTXT {
		found = spf
	}
	switch {
	case len(found) > 0:
		return found, nil
	case fails:
		return nil, resolve.ErrTimeout
	}
	return nil, resolve.ErrNoData
}

func (z *suiteZone) TXT(ctx context.Context, name string) ([]string, error) {
	values, err := z.find(ctx, name, "TXT", 0)
	var all []string
	for _, value := range values {
		if parts, ok := value.([]any); ok {
			joined := ""
			for _, part := range parts {
				joined += fmt.Sprint(part)
			}
			value = joined
		}
		all = append(all, fmt.Sprint(value))
	}
	return all, err
}

func (z *suiteZone) ips(ctx context.Context, name, kind string) ([]netip.Addr, error) {
	values, err := z.find(ctx, name, kind, 0)
	var all []netip.Addr
	for _, value := range values {
		ip, err := netip.ParseAddr(fmt.Sprint(value))
		if err != nil {
			return nil, err
		}
		all = append(all, ip)
	}
	return all, err
}

func (z *suiteZone) A(ctx context.Context, name string) ([]netip.Addr, error) {
	return z.ips(ctx, name, "A")
}

func (z *suiteZone) AAAA(ctx context.Context, name string) ([]netip.Addr, error) {
	return z.ips(ctx, name, "AAAA")
}

func (z *suiteZone) MX(ctx context.Context, name string) ([]resolve.MX, error) {
	values, err := z.find(ctx, name, "MX", 0)
	var all []resolve.MX
	for _, value := range values {
		if pair, ok := value.([]any); ok {
			all = append(all, resolve.MX{Host: strings.TrimSuffix(fmt.Sprint(pair[1]), ".")})
		}
	}
	return all, err
}

// reverse is the name under which PTR records of an address are.
func reverse(ip netip.Addr) string {
	name := "in-addr.arpa"
	if ip.Is4() {
		for _, b := range ip.As4() {
			name = fmt.Sprintf("%d.%s", b, name)
		}
		return name
	}
	name = "ip6.arpa"
	for _, b := range ip.As16() {
		name = fmt.Sprintf("%x.%x.%s", b&15, b>>4, name)
	}
	return name
}

func (z *suiteZone) PTR(ctx context.Context, ip netip.Addr) ([]string, error) {
	values, err := z.find(ctx, reverse(ip), "PTR", 0)
	var all []string
	for _, value := range values {
		all = append(all, strings.TrimSuffix(fmt.Sprint(value), "."))
	}
	return all, err
}

// readSuite reads a file of several documents.
func readSuite(t *testing.T, path string) (all []document) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var d document
		switch err := decoder.Decode(&d); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, d)
	}
}

// run checks one case as the suite wants it: the reverse-path as it is, even where SMTP would not let it in.
func run(ctx context.Context, z *suiteZone, c suiteCase) Result {
	ip, _ := netip.ParseAddr(c.Host) // what is none is a case, too
	at := strings.LastIndexByte(c.MailFrom, '@')
	local, domain := c.MailFrom[:max(at, 0)], c.MailFrom[at+1:]
	if c.MailFrom == "" {
		return Helo(ctx, z, ip, c.Helo)
	}
	if local == "" {
		local = "postmaster"
	}
	d, err := addr.ParseDomain(domain)
	if err != nil && !strings.ContainsAny(domain, "_") {
		return Result{Status: None}
	}
	if err != nil {
		return checkName(ctx, z, ip, c.Helo, local, domain)
	}
	return check(ctx, z, ip, c.Helo, local, d)
}

// unlike are the cases in which the library differs from the suites, and why; docs/deviations.md says so, too.
var unlike = map[string]string{
	"p-macro-multiple": noP, "exp-only-macro-char": noExp, "exp-twice": noExp, "exp-empty-domain": noExp, "exp-syntax-error": noExp,
	"redirect-empty-domain": syntax, "redirect-syntax-error": syntax, "redirect-is-modifier": syntax, "unknown-modifier-syntax": syntax,
	"detect-errors-anywhere": syntax, "invalid-domain": syntax, "non-ascii-policy": syntax, "control-char-policy": syntax, "cidr4-032": syntax, "bare-ip6": syntax,
	"a-null": syntax, "a-numeric": syntax, "a-bad-toplabel": syntax, "a-only-toplabel": syntax, "a-only-toplabel-trailing-dot": syntax,
	"a-numeric-toplabel": syntax, "a-bad-domain": syntax, "a-colon-domain": syntax, "a-colon-domain-ip4mapped": syntax,
	"mx-null": syntax, "mx-bad-domain": syntax, "mx-bad-toplab": syntax, "mx-numeric-top-label": syntax, "mx-colon-domain": syntax,
	"mx-colon-domain-ip4mapped": syntax,
}

const (
	noP    = "the p macro is not expanded"
	noExp  = "exp= is not read"
	syntax = "an error in the record that the library does not see, or sees only when it gets there"
)

// TestSuites runs the public suites.
func TestSuites(t *testing.T) {
	for file, atLeast := range map[string]int{"rfc7208-tests.yml": 203, "rfc4408-tests.yml": 191, "blitirispf-tests.yml": 20} {
		t.Run(file, func(t *testing.T) {
			ran, passed := 0, 0
			var different []string
			for _, d := range readSuite(t, mailtest.Vectors(t, "spf", file)) {
				z := newSuiteZone(d.Zonedata)
				for name, c := range d.Tests {
					ran++
					got := run(t.Context(), z, c)
					switch {
					case c.accepts(got.Status):
						passed++
					case unlike[name] != "":
						different = append(different, name)
					default:
						t.Errorf("%s/%s: %s (%s), want %v", d.Description, name, got.Status, got.Reason, c.Result)
					}
				}
			}
			slices.Sort(different)
			t.Logf("%d cases: %d passed, different %v", ran, passed, different)
			if ran < atLeast {
				t.Errorf("%d cases, there should be %d", ran, atLeast)
			}
		})
	}
}

// TestMailAuthSuite runs the cases of mail-auth, which have a form of their own. Those that check another domain than the
// sender's are left out: SMTP has no such case.
func TestMailAuthSuite(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(mailtest.Vectors(t, "spf", "mail-auth"), "*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	ran, left := 0, 0
	for _, file := range files {
		if strings.HasSuffix(file, "examples.yml") {
			continue // nests its cases in another way
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for part := range strings.SplitSeq(string(text), "\n---") {
			z, cases := readMailAuth(part)
			for i, c := range cases {
				if c["sender"] != "" && !strings.HasSuffix(c["sender"], "@"+c["domain"]) {
					left++
					continue
				}
				ran++
				from := c["sender"]
				if from == "" {
					from = "postmaster@" + c["domain"]
				}
				c["expect"], _, _ = strings.Cut(c["expect"], " ") // the explanation
				got := run(t.Context(), z, suiteCase{Helo: c["domain"], Host: c["ip"], MailFrom: from})
				if string(got.Status) != c["expect"] && unlikeMailAuth[c["domain"]+" "+c["ip"]] == "" {
					t.Errorf("%s %d: %s %s: %s (%s), want %s", filepath.Base(file), i, c["domain"], c["ip"], got.Status, got.Reason, c["expect"])
				}
			}
		}
	}
	t.Logf("%d files: %d cases ran, %d are of another domain than the sender's", len(files), ran, left)
}

// unlikeMailAuth are cases, by domain and address, in which mail-auth expects something else than RFC 7208.
var unlikeMailAuth = map[string]string{
	"ok.test.org 172.168.0.1": "section 4.6.4: more than two void look-ups",
	"mx.test.org 10.0.0.8":    "section 4.6.4: more than 10 MX hosts are an error even when an early one matches",
	"ip6.test.org 167.1.2.3":  "section 5.7: exists asks for A records",
	"nolabels 172.168.0.1":    "a domain without a dot has no MX that could send here; left to the caller",
}

// readMailAuth reads one group of cases: records "type: name value, value", and a list of tests.
func readMailAuth(text string) (*suiteZone, []map[string]string) {
	data := map[string][]any{}
	add := func(name, kind string, value any) {
		name = strings.ToLower(name)
		data[name] = append(data[name], map[string]any{kind: value})
	}
	var cases []map[string]string
	inTests := false
	for line := range strings.SplitSeq(text, "\n") {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		inTests = inTests || strings.HasPrefix(line, "tests:")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if inTests {
			if strings.HasPrefix(key, "- ") {
				cases = append(cases, map[string]string{})
			}
			cases[len(cases)-1][strings.TrimPrefix(key, "- ")] = strings.Trim(value, `"`)
			continue
		}
		name, rest, _ := strings.Cut(value, " ")
		switch key {
		case "spf", "exp":
			add(name, "TXT", rest)
			continue
		}
		for i, v := range strings.FieldsFunc(rest, func(r rune) bool { return r == ',' || r == ' ' }) {
			switch key {
			case "a", "aaaa":
				add(name, strings.ToUpper(key), v)
			case "mx":
				host := fmt.Sprintf("mx%d.%s", i, name)
				add(name, "MX", []any{10, host})
				add(host, "A", v)
			case "ptr":
				if ip, err := netip.ParseAddr(name); err == nil {
					add(reverse(ip), "PTR", v)
				}
			}
		}
	}
	return newSuiteZone(data), cases
}

// TestSlowSuite runs the suite with look-ups that take three seconds each: the deadline ends what takes too long, as a
// temporary error, and changes no other result.
func TestSlowSuite(t *testing.T) {
	path := mailtest.Vectors(t, "spf", "rfc7208-tests.yml")
	ran, late := 0, 0
	for _, d := range readSuite(t, path) {
		for name, c := range d.Tests {
			synctest.Test(t, func(t *testing.T) {
				z := newSuiteZone(d.Zonedata)
				quick := run(t.Context(), z, c)
				z.delay = 3 * time.Second
				start := time.Now()
				slow := run(t.Context(), z, c)
				took := time.Since(start)
				ran++
				if slow.Status == TempError && quick.Status != TempError {
					late++
				} else if slow.Status != quick.Status {
					t.Errorf("%s: %s, and %s when slow", name, quick.Status, slow.Status)
				}
				if took > budget+3*time.Second {
					t.Errorf("%s took %v", name, took)
				}
			})
		}
	}
	t.Logf("%d cases, %d of them ended by the deadline", ran, late)
}

// FuzzMailFrom makes up records: no panic, a bounded number of queries, and a pass only for a sender with a domain.
func FuzzMailFrom(f *testing.F) {
	for _, seed := range []string{"v=spf1 ip4:192.0.2.0/24 -all", "v=spf1 include:other.example mx a:%{d}/24//64 ptr exists:%{ir}.x.example ?all",
		"v=spf1 redirect=other.example", "v=spf1 include:fuzz.example", "v=spf1 %{l1r-}.%{o} -all exp=x.example"} {
		f.Add(seed, "v=spf1 a mx -all", "mail.example", "a")
	}
	f.Fuzz(func(t *testing.T, record, other, helo, local string) {
		z := zone.New()
		z.AddTXT("fuzz.example", record)
		z.AddTXT("other.example", other)
		for _, line := range []string{"fuzz.example. 60 IN MX 10 mail.example.", "mail.example. 60 IN A 192.0.2.1", "1.2.0.192.in-addr.arpa. 60 IN PTR mail.example."} {
			if err := z.Add(line); err != nil {
				t.Fatal(err)
			}
		}
		r, err := resolve.New(resolve.Options{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}, Exchange: z})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		domain, err := addr.ParseDomain("fuzz.example")
		if err != nil {
			t.Fatal(err)
		}
		got := MailFrom(t.Context(), r, netip.MustParseAddr("192.0.2.1"), helo, addr.Path{Address: addr.Address{Local: local, Domain: domain}})
		if !slices.Contains([]Status{None, Neutral, Pass, Fail, SoftFail, TempError, PermError}, got.Status) || got.Domain != "fuzz.example" {
			t.Errorf("%+v", got)
		}
		if z.Queries() > 150 { // 10 terms, each with up to 10 hosts: RFC 7208 section 4.6.4
			t.Errorf("%d queries", z.Queries())
		}
	})
}
