package tlsconf

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/resolve"
)

var (
	here  = netip.MustParseAddr("192.0.2.1") // of this machine
	here6 = netip.MustParseAddr("2001:db8::1")
	there = netip.MustParseAddr("198.51.100.7")
)

// TestJudge has a row for each thing that can be wrong before an order, alone and beside others.
func TestJudge(t *testing.T) {
	ok, closed, silent := reach{here: true}, reach{err: "connection refused"}, reach{err: "no answer in time"}
	nginx := reach{other: "404 nginx"}
	both := func(r reach) map[method]reach { return map[method]reach{byHTTP: r, byALPN: r} }
	split := func(http, alpn reach) map[method]reach { return map[method]reach{byHTTP: http, byALPN: alpn} }
	missing := &resolve.Error{Kind: resolve.ErrNotFound, Name: "mail.example.org", Type: "A"}
	broken := &resolve.Error{Kind: resolve.ErrServer, Name: "mail.example.org", Type: "A"}
	for _, tc := range []struct {
		name    string
		change  func(*facts)
		want    action
		methods []method
		why     string
	}{
		{"all is well", func(*facts) {}, goAhead, []method{byHTTP, byALPN}, ""},
		{"not in the DNS", func(f *facts) { f.noAddress = missing }, refuse, nil, "has no address in the DNS: publish"},
		{"not in the DNS, and need not be", func(f *facts) { f.noAddress, f.optional = missing, true }, leave, nil, "is not in the DNS"},
		{"resolver broken", func(f *facts) { f.noAddress = broken }, refuse, nil, "see that the resolver works"},
		{"resolver broken, optional", func(f *facts) { f.noAddress, f.optional = broken, true }, refuse, nil, "see that the resolver works"},
		{"authority not reached", func(f *facts) { f.noCA = errors.New("ca: down") }, refuse, nil, "ca: down"},
		{"CAA not known", func(f *facts) { f.noCAA = broken }, refuse, nil, "the CAA records of mail.example.org could not be looked up"},
		{"only port 80", func(f *facts) { f.probes[here] = split(ok, closed) }, goAhead, []method{byHTTP}, ""},
		{"only port 443", func(f *facts) { f.probes[here] = split(closed, ok) }, goAhead, []method{byALPN}, ""},
		{"another server on 80, ours on 443", func(f *facts) { f.probes[here] = split(nginx, ok) }, goAhead, []method{byALPN}, ""},
		{"closed here", func(f *facts) { f.probes[here] = both(closed) }, refuse, nil, "port 80 of 192.0.2.1, an address of mail.example.org, does not lead to this server (connection refused): open it in the firewall, and see that listen.http has it"},
		{"another server", func(f *facts) { f.probes[here] = both(nginx) }, refuse, nil, "is answered by another server (404 nginx)"},
		{"another server, optional", func(f *facts) { f.probes[here], f.optional = both(nginx), true }, leave, nil, "is answered by another server"},
		{"one family leads elsewhere", func(f *facts) { f.add(there, both(nginx)) }, refuse, nil, "port 80 of 198.51.100.7"},
		{"the other family closed", func(f *facts) { f.own, f.probes = append(f.own, here6), f.and(here6, both(closed)) }, refuse, nil, "2001:db8::1"},
		{"no way back to ourselves", func(f *facts) { f.only(there, both(silent)) }, tryOut, []method{byHTTP, byALPN}, "cannot be reached from here (no answer in time)"},
		{"no way back, and nowhere to try", func(f *facts) { f.only(there, both(silent)); f.staging = false }, refuse, nil, "open it, remove the address from the DNS, or take challenge"},
		{"no way back, optional", func(f *facts) { f.only(there, both(silent)); f.optional, f.host = true, []netip.Addr{there} }, tryOut, []method{byHTTP, byALPN}, "cannot be reached from here"},
		{"elsewhere and silent, optional", func(f *facts) { f.only(there, both(silent)); f.optional = true }, leave, nil, "which is no address of this server"},
		{"no port", func(f *facts) { f.methods = nil }, refuse, nil, "no port is open for challenges"},
		{"by the DNS, elsewhere", func(f *facts) { f.methods, f.proven = []method{byDNS}, true; f.only(there, nil) }, goAhead, []method{byDNS}, ""},
		{"by the DNS, for the first time", func(f *facts) { f.methods = []method{byDNS} }, tryOut, []method{byDNS}, "was not seen yet"},
		{"by the DNS, nowhere to try", func(f *facts) { f.methods, f.staging = []method{byDNS}, false }, goAhead, []method{byDNS}, ""},
		{"CAA forbids", func(f *facts) { f.issue("other.example") }, refuse, nil, `the CAA records of example.org (issue "other.example") do not let letsencrypt.org issue: add one with issue "letsencrypt.org"`},
		{"CAA forbids the DNS way, too", func(f *facts) { f.issue(";"); f.methods = []method{byDNS} }, refuse, nil, "do not let letsencrypt.org issue"},
		{"CAA lets one of two", func(f *facts) { f.issue("other.example", "LetsEncrypt.org; x=y") }, goAhead, []method{byHTTP, byALPN}, ""},
		{"CAA names a method", func(f *facts) { f.issue("letsencrypt.org; validationmethods=dns-01,tls-alpn-01") }, goAhead, []method{byALPN}, ""},
		{"CAA names another method", func(f *facts) { f.issue("letsencrypt.org;validationmethods=dns-01") }, refuse, nil, "do not let"},
		{"CAA about other things", func(f *facts) {
			f.caa = []resolve.CAA{{Tag: "iodef", Value: "mailto:a@b.example"}, {Tag: "issuewild", Value: ";"}, {Tag: "x"}}
		}, goAhead, []method{byHTTP, byALPN}, ""},
		{"CAA that must be understood", func(f *facts) {
			f.issue("letsencrypt.org")
			f.caa = append(f.caa, resolve.CAA{Critical: true, Tag: "x"})
		}, refuse, nil, "do not let"},
		{"authority of unknown name", func(f *facts) { f.issue("other.example"); f.identities = nil }, goAhead, []method{byHTTP, byALPN}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := facts{
				name: "mail.example.org", methods: []method{byHTTP, byALPN}, addresses: []netip.Addr{here}, own: []netip.Addr{here},
				probes: map[netip.Addr]map[method]reach{here: both(ok)}, identities: []string{"letsencrypt.org"}, staging: true,
			}
			tc.change(&f)
			got := judge(f)
			if got.action != tc.want || !reflect.DeepEqual(got.methods, tc.methods) || !strings.Contains(got.why, tc.why) || (got.why == "") != (tc.want == goAhead) {
				t.Errorf("got %+v, want %d %v %q", got, tc.want, tc.methods, tc.why)
			}
		})
	}
}

func (f *facts) add(ip netip.Addr, r map[method]reach) { f.probes = f.and(ip, r) }

func (f *facts) and(ip netip.Addr, r map[method]reach) map[netip.Addr]map[method]reach {
	f.addresses = append(f.addresses, ip)
	f.probes[ip] = r
	return f.probes
}

func (f *facts) only(ip netip.Addr, r map[method]reach) {
	f.addresses, f.probes = []netip.Addr{ip}, map[netip.Addr]map[method]reach{ip: r}
}

func (f *facts) issue(values ...string) {
	f.caaAt = "example.org"
	for _, v := range values {
		f.caa = append(f.caa, resolve.CAA{Tag: "issue", Value: v})
	}
}

// TestTells has a row for each moment at which the operator is told of a failure, or is not.
func TestTells(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name   string
		before int
		since  time.Duration // since the last failure
		left   time.Duration
		want   bool
	}{
		{"the first", 0, 0, 30 * day, true},
		{"the second", 1, 6 * time.Hour, 29 * day, false},
		{"14 days", 9, 6 * time.Hour, 14*day - time.Hour, true},
		{"after 14 days", 9, 6 * time.Hour, 14*day - 7*time.Hour, false},
		{"7 days", 9, 6 * time.Hour, 7 * day, true},
		{"3 days", 9, 6 * time.Hour, 3*day - time.Minute, true},
		{"1 day", 9, 6 * time.Hour, day, true},
		{"over", 9, 6 * time.Hour, -time.Hour, true},
		{"long over", 9, 6 * time.Hour, -day, false},
	} {
		if got := tells(tc.before, now.Add(-tc.since), now, now.Add(tc.left)); got != tc.want {
			t.Errorf("%s: told %t", tc.name, got)
		}
	}
	if !tells(0, time.Time{}, now, time.Time{}) || tells(1, now.Add(-day), now, time.Time{}) {
		t.Error("without a certificate, the first failure and only that is told")
	}
}

func TestRetryAfter(t *testing.T) {
	for _, tc := range []struct {
		failures        int
		asked, notAsked time.Duration
	}{{0, 15 * time.Minute, 2 * time.Minute}, {1, 30 * time.Minute, 4 * time.Minute}, {4, 4 * time.Hour, 32 * time.Minute}, {5, 6 * time.Hour, time.Hour}, {1000, 6 * time.Hour, time.Hour}} {
		if a, n := retryAfter(tc.failures, true), retryAfter(tc.failures, false); a != tc.asked || n != tc.notAsked {
			t.Errorf("%d failures: %v, %v", tc.failures, a, n)
		}
	}
}

// FuzzAllows: a CAA value that strangers write lets only the domain in front of its parameters issue.
func FuzzAllows(f *testing.F) {
	for _, seed := range []string{"ca.example", " CA.example ; validationmethods=dns-01,http-01", ";", "other.example; ca.example", "ca.example;=;;x=="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		domain, _, _ := strings.Cut(value, ";")
		got := allows(value, []string{"ca.example"}, byHTTP)
		if got && !strings.EqualFold(strings.TrimSpace(domain), "ca.example") {
			t.Errorf("%q lets ca.example issue", value)
		}
		if plain := allows(domain, []string{"ca.example"}, byHTTP); got && !plain {
			t.Errorf("%q lets more than %q does", value, domain)
		}
	})
}
