package dnscheck

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/mtasts"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/resolve/zone"
)

// newPair makes the keys of a domain.
func newPair(base string, state accounts.KeyState) []accounts.DKIMKey {
	private := must(rsa.GenerateKey(rand.Reader, 2048))
	der := must(x509.MarshalPKIXPublicKey(&private.PublicKey))
	public, _, _ := ed25519.GenerateKey(rand.Reader) // the random numbers of the system do not fail
	return []accounts.DKIMKey{
		{Selector: base + "r", Algorithm: "rsa-sha256", Public: base64.StdEncoding.EncodeToString(der), State: state},
		{Selector: base + "e", Algorithm: "ed25519-sha256", Public: base64.StdEncoding.EncodeToString(public), State: state},
	}
}

// pair is made once for all zones.
var pair = sync.OnceValue(func() []accounts.DKIMKey { return newPair("p1", accounts.KeyActive) })

// stranger are the keys of somebody else.
var stranger = sync.OnceValue(func() []accounts.DKIMKey { return newPair("x1", accounts.KeyActive) })

// profile is the server that the zones are held against, with some changes.
func profile(with []string) Profile {
	p := Profile{
		Domain: must(addr.ParseDomain("example.org")), Hostname: "mail.example.org", Keys: pair(),
		IPs:  []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		TLSA: []string{"3 1 1 " + strings.Repeat("ab", 32)}, CAs: []string{"letsencrypt.org"}, STS: mtasts.Testing, STSID: "20261126",
		KeepKeys: true, Reports: "postmaster@example.org", Web: true,
	}
	for _, word := range with {
		switch word {
		case "no-ipv6":
			p.IPs = p.IPs[:1]
		case "nat":
			p.IPs = nil
		case "nat4":
			p.IPs, p.Behind4 = p.IPs[1:], true
		case "only-ipv6":
			p.IPs = p.IPs[1:]
		case "second":
			p.Also = []netip.Addr{netip.MustParseAddr("192.0.2.2")}
		case "no-sts":
			p.STS = mtasts.None
		case "relayed":
			p.Relayed = true
		case "new-keys":
			k := pair()[1]
			k.Selector, k.State = "p2e", accounts.KeyNew
			p.Keys = append(slices.Clone(p.Keys), k)
		}
	}
	return p
}

// surroundings are the records of others.
const surroundings = `
	example.org. 60 IN NS ns1.example.net.
	example.org. 60 IN NS ns2.example.net.
	example.org. 60 IN SOA ns1.example.net. hostmaster.example.org. 2 2 3 4 5
	example.net. 60 IN NS ns1.example.net.
	ns1.example.net. 60 IN A 192.0.2.51
	ns2.example.net. 60 IN A 192.0.2.52
	in-addr.arpa. 60 IN NS ns1.example.net.
	ip6.arpa. 60 IN NS ns1.example.net.
	1.2.0.192.in-addr.arpa. 60 IN PTR mail.example.org.
	1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 60 IN PTR mail.example.org.
	provider.example. 60 IN NS ns1.example.net.
	mx.provider.example. 60 IN A 203.0.113.25
	zen.spamhaus.org. 60 IN A 203.0.113.1
	bl.spamcop.net. 60 IN A 203.0.113.1
	psbl.surriel.com. 60 IN A 203.0.113.1
`

// golden is one zone of testdata/zones.txt.
type golden struct {
	name   string
	with   []string
	lines  []string // changes
	expect []string
}

func readZones(t *testing.T) (all []golden) {
	t.Helper()
	text := string(must(os.ReadFile("testdata/zones.txt")))
	var g *golden
	for line := range strings.SplitSeq(text, "\n") {
		switch title, is := strings.CutPrefix(line, "== "); {
		case is:
			all = append(all, golden{name: title})
			g = &all[len(all)-1]
		case g == nil || line == "":
		case strings.HasPrefix(line, "with "):
			g.with = strings.Fields(line)[1:]
		case strings.ContainsAny(line[:1], "-+!@"):
			g.lines = append(g.lines, line)
		default:
			g.expect = append(g.expect, line)
		}
	}
	return all
}

// world is what the servers know: the first and the second name server, and the resolver.
type world struct {
	records [3][]string
	faults  [3][][2]string
}

// change applies one line.
func (w *world) change(t *testing.T, line string) {
	t.Helper()
	which := []int{0, 1, 2}
	if at, rest, ok := strings.Cut(line, " "); ok && at[0] == '@' {
		which, line = []int{strings.Index("12r", at[1:])}, rest
	}
	f := strings.Fields(line)
	for _, i := range which {
		switch f[0] {
		case "+":
			w.records[i] = append(w.records[i], strings.TrimPrefix(line, "+ "))
		case "!":
			w.faults[i] = append(w.faults[i], [2]string{f[1], f[2]})
		case "-":
			before := len(w.records[i])
			w.records[i] = slices.DeleteFunc(w.records[i], func(r string) bool {
				have := strings.Fields(r)
				return have[0] == f[1]+"." && have[3] == f[2]
			})
			if len(w.records[i]) == before {
				t.Fatalf("%q removes nothing", line)
			}
		}
	}
}

// rightZone is what others have published, and what Records asks for.
func rightZone(t *testing.T) *world {
	t.Helper()
	w := &world{}
	for line := range strings.SplitSeq(strings.TrimSpace(surroundings), "\n") {
		w.change(t, "+ "+strings.TrimSpace(line))
	}
	for _, r := range Records(profile(nil)) {
		w.change(t, "+ "+r.ZoneLine())
	}
	return w
}

// serve starts the servers.
func (w *world) serve(t *testing.T, secure bool) *resolve.Resolver {
	t.Helper()
	servers := zone.Servers{}
	for i, ip := range []string{"192.0.2.51", "192.0.2.52", "192.0.2.50"} {
		z := zone.New()
		for _, r := range w.records[i] {
			if err := z.Add(r); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range w.faults[i] {
			z.SetQuestionFault(f[0], f[1], zone.ServFail)
		}
		z.SetSecure(secure)
		servers[netip.MustParseAddr(ip)] = z
	}
	r := must(resolve.New(resolve.Options{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.50:53")}, TrustAD: true, Exchange: servers}))
	t.Cleanup(r.Close)
	return r
}

// fill puts the records of keys into a line.
func fill(line string) string {
	r, e := KeyRecord(pair()[0]), KeyRecord(pair()[1])
	other := strings.Replace(r, pair()[0].Public, stranger()[0].Public, 1)
	for name, record := range map[string]string{
		"{cut}": r[:255], "{other}": other, "{testing}": e + "; t=y", "{kind}": strings.Replace(e, "k=ed25519", "k=rsa", 1),
	} {
		if strings.Contains(line, name) {
			var parts []string
			for _, s := range (Record{Value: record}).Strings() {
				parts = append(parts, `"`+s+`"`)
			}
			line = strings.Replace(line, `"`+name+`"`, strings.Join(parts, " "), 1)
		}
	}
	return line
}

// TestZones holds each zone against the server, and wants what the file says to be found, and nothing else.
func TestZones(t *testing.T) {
	broken := 0
	for _, g := range readZones(t) {
		t.Run(g.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, p := rightZone(t), profile(g.with)
				for _, line := range g.lines {
					w.change(t, fill(line))
				}
				dns := w.serve(t, !slices.Contains(g.with, "no-dnssec"))
				report := Run(t.Context(), Options{Profile: p, DNS: dns})
				compare(t, report, g.expect)
				dns.Close()
			})
		})
		if len(g.expect) > 0 {
			broken++
		}
	}
	t.Logf("%d broken zones", broken)
}

// compare wants exactly the findings.
func compare(t *testing.T, r Report, expect []string) {
	t.Helper()
	var found []string
	for _, c := range r.Checks {
		if c.Status == OK {
			if c.Fix != "" {
				t.Errorf("%s is ok, and to be mended: %s", c.ID, c.Fix)
			}
			continue
		}
		weight := map[bool]string{true: "required", false: "advice"}[c.Required]
		found = append(found, fmt.Sprintf("%s %s %s: %s", c.ID, c.Status, weight, c.Fix))
		if c.Fix == "" && c.Status != Optional || strings.Contains(c.Fix, "\n") {
			t.Errorf("%s: the line that mends it is %q", c.ID, c.Fix)
		}
	}
	for i, line := range found {
		if i >= len(expect) || !matches(line, expect[i]) {
			t.Errorf("found %s", line)
		}
	}
	for _, line := range expect[min(len(found), len(expect)):] {
		t.Errorf("not found: %s", line)
	}
}

// matches compares the words before the colon, and wants the rest to be a part.
func matches(line, expect string) bool {
	head, part, _ := strings.Cut(expect, ": ")
	if part == "" {
		head = strings.TrimSuffix(head, ":")
	}
	got, fix, _ := strings.Cut(line, ": ")
	return got == head && strings.Contains(fix, part)
}
