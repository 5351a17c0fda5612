package delivery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/resolve/zone"
	"github.com/postroom/postroom/queue"
)

// exchangerList makes MX records of "10 host".
func exchangerList(records ...string) (all []resolve.MX) {
	for _, r := range records {
		var x resolve.MX
		preference, host, _ := strings.Cut(r, " ")
		n, err := strconv.ParseUint(preference, 10, 16)
		if err != nil {
			panic(err)
		}
		x.Preference, x.Host = uint16(n), host
		all = append(all, x)
	}
	return all
}

func TestExchangers(t *testing.T) {
	many := make([]resolve.MX, 50)
	for i := range many {
		many[i] = resolve.MX{Preference: uint16(i), Host: fmt.Sprintf("mx%d.example", i)}
	}
	for _, tc := range []struct {
		name string
		mx   []resolve.MX
		err  error
		want string
	}{
		{"in order", exchangerList("10 a", "20 b"), nil, "a;b"},
		{"the same host twice", exchangerList("10 a", "20 b", "30 a"), nil, "a;b"},
		{"preference 0", exchangerList("0 a", "65535 b"), nil, "a;b"},
		{"no MX", nil, &resolve.Error{Kind: resolve.ErrNoData}, "example.org"},
		{"no domain", nil, &resolve.Error{Kind: resolve.ErrNotFound}, "5.1.2"},
		{"servers fail", nil, &resolve.Error{Kind: resolve.ErrServer}, "4.4.3"},
		{"no answer", nil, &resolve.Error{Kind: resolve.ErrTimeout}, "4.4.3"},
		{"another error", nil, errors.New("x"), "4.4.3"},
		{"null MX", exchangerList("0 "), nil, "5.1.10"},
		{"null MX beside another", exchangerList("0 ", "10 a"), nil, "a"},
		{"null MX twice", exchangerList("0 ", "10 "), nil, "5.4.4"},
		{"fifty", many, nil, "mx0.example;mx1.example;mx2.example;mx3.example;mx4.example;mx5.example;mx6.example;mx7.example;mx8.example;mx9.example"},
	} {
		groups, refused := exchangers("example.org", tc.mx, tc.err)
		var got []string
		for _, g := range groups {
			got = append(got, strings.Join(g, ","))
		}
		if refused != nil {
			got = append(got, refused.Enhanced)
		}
		if strings.Join(got, ";") != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestEqualPreferences shows that hosts of the same preference take turns, and never pass those of a better one.
func TestEqualPreferences(t *testing.T) {
	first := map[string]int{}
	for range 400 {
		groups, _ := exchangers("example.org", exchangerList("10 best", "20 a", "20 b", "30 last"), nil)
		if len(groups) != 3 || groups[0][0] != "best" || groups[2][0] != "last" || len(groups[1]) != 2 {
			t.Fatalf("groups %v", groups)
		}
		first[groups[1][0]]++
	}
	if first["a"] < 100 || first["b"] < 100 {
		t.Errorf("first came %v of 400 times", first)
	}
}

func TestOrderAddresses(t *testing.T) {
	var ips []netip.Addr
	for _, s := range []string{"192.0.2.1", "192.0.2.2", "2001:db8::1", "::ffff:192.0.2.3", "2001:db8::2"} {
		ips = append(ips, netip.MustParseAddr(s))
	}
	families := func(order []netip.Addr) (s string) {
		for _, ip := range order {
			s += map[bool]string{true: "6", false: "4"}[ip.Is6()]
		}
		return s
	}
	if got := families(orderAddresses(ips, true)); got != "64644" {
		t.Errorf("families %s", got)
	}
	if got := families(orderAddresses(ips, false)); got != "444" {
		t.Errorf("families without IPv6 %s", got)
	}
	for range 6 {
		ips = append(ips, ips...)
	}
	if n := len(orderAddresses(ips, true)); n != maxAddresses {
		t.Errorf("%d addresses", n)
	}
}

// routing is a zone with hosts that behave in different ways; every case says who was called, and how it ended.
const routing = `
	two.example.       300 IN MX 10 dead.two.example.
	two.example.       300 IN MX 20 good.example.
	dead.two.example.  300 IN A  192.0.2.66
	good.example.      300 IN A  192.0.2.10
	implicit.example.  300 IN A  192.0.2.10
	null.example.      300 IN MX 0 .
	nothing.example.   300 IN TXT "no address"
	dangling.example.  300 IN MX 10 nowhere.example.
	half.example.      300 IN MX 10 nowhere.example.
	half.example.      300 IN MX 20 good.example.
	broken.example.    300 IN MX 10 servfail.example.
	servfail.example.  300 IN A  192.0.2.10
	alias.example.     300 IN CNAME two.example.
	ours.example.      300 IN MX 10 mail.example.org.
	ours.example.      300 IN MX 20 good.example.
	backup.example.    300 IN MX 10 dead.two.example.
	backup.example.    300 IN MX 20 mail.example.org.
	backup.example.    300 IN MX 30 good.example.
	same.example.      300 IN MX 10 good.example.
	same.example.      300 IN MX 10 MAIL.example.org.
	byaddress.example. 300 IN MX 10 other-name.example.
	other-name.example. 300 IN A 198.51.100.1
	loopback.example.  300 IN MX 10 localhost.example.
	localhost.example. 300 IN A 127.0.0.1
	hidden.example.    300 IN MX 10 hidden-mx.example.
	hidden-mx.example. 300 IN A 192.0.2.10
	hidden-mx.example. 300 IN AAAA 2001:db8::10
	six.example.       300 IN MX 10 six-mx.example.
	six-mx.example.    300 IN AAAA 2001:db8::10
	rude.example.      300 IN MX 10 rude-mx.example.
	rude.example.      300 IN MX 20 good.example.
	rude-mx.example.   300 IN A 192.0.2.20
	later.example.     300 IN MX 10 later-mx.example.
	later.example.     300 IN MX 20 good.example.
	later-mx.example.  300 IN A 192.0.2.21
	final.example.     300 IN MX 10 final-mx.example.
	final.example.     300 IN MX 20 good.example.
	final-mx.example.  300 IN A 192.0.2.22
	greylist.example.  300 IN MX 10 grey-mx.example.
	greylist.example.  300 IN MX 20 good.example.
	grey-mx.example.   300 IN A 192.0.2.23
	silent.example.    300 IN MX 10 silent-mx.example.
	silent-mx.example. 300 IN A 192.0.2.77
	silent-mx.example. 300 IN A 192.0.2.78
	wide.example.      300 IN MX 10 narrow-mx.example.
	wide.example.      300 IN MX 20 good.example.
	narrow-mx.example. 300 IN A 192.0.2.24
	worse.example.     300 IN MX 10 dead.two.example.
	worse.example.     300 IN MX 20 narrow-mx.example.`

func TestRoutes(t *testing.T) {
	for _, tc := range []struct {
		name, domain string
		calls, want  string
	}{
		{"the second host", "two.example", "192.0.2.66 192.0.2.10", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"no MX", "implicit.example", "192.0.2.10", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"null MX", "null.example", "", "failed 5.1.10 local | the domain takes no mail"},
		{"no domain", "nowhere.example", "", "failed 5.1.2 local | the domain does not exist"},
		{"neither MX nor address", "nothing.example", "", "failed 5.4.4 local | the host has no address"},
		{"an MX that does not exist", "dangling.example", "", "failed 5.4.4 local | the host has no address"},
		{"an MX that does not exist, and one that does", "half.example", "192.0.2.10", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"an MX that cannot be looked up", "broken.example", "", "deferred 4.4.3 local | the address of the host could not be looked up"},
		{"a domain that is an alias", "alias.example", "192.0.2.66 192.0.2.10", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"an MX that is us", "ours.example", "", "failed 5.4.6 local | the domain's mail is to be brought here*"},
		{"backup for it: nobody behind us is tried", "backup.example", "192.0.2.66", "deferred 4.4.1 local | the host refused the connection when it was called"},
		{"an MX as good as we are", "same.example", "", "failed 5.4.6 local | *"},
		{"an MX that is us under another name", "byaddress.example", "", "failed 5.4.6 local | *"},
		{"an MX that is the loopback", "loopback.example", "", "failed 5.4.6 local | *"},
		{"IPv6 not allowed", "hidden.example", "192.0.2.10", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"IPv6 only, and not allowed", "six.example", "", "deferred 4.4.1 local | the host has IPv6 addresses only*"},
		{"554 in the greeting", "rude.example", "192.0.2.20 192.0.2.10", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"451 to MAIL", "later.example", "192.0.2.21 192.0.2.10", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"550 to MAIL", "final.example", "192.0.2.22", "failed 5.7.1 | 550 5.7.1 no"},
		{"450 to RCPT waits", "greylist.example", "192.0.2.23", "deferred 4.7.1 | 450 4.7.1 later"},
		{"addresses that never answer", "silent.example", "192.0.2.7*", "deferred 4.4.1 local silent | the host did not answer in time when it was called"},
		{"a host that takes less than the letter", "wide.example", "192.0.2.24 192.0.2.10", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"one that is down, and one that takes less", "worse.example", "192.0.2.66 192.0.2.24", "deferred 4.4.1 local | the host refused the connection*"},
		{"an address", "[192.0.2.10]", "192.0.2.10", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"our own address", "[198.51.100.1]", "", "failed 5.4.6 local | the address is this server's own"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				for line := range strings.SplitSeq(strings.TrimSpace(routing), "\n") {
					if err := w.zone.Add(strings.TrimSpace(line)); err != nil {
						t.Fatal(err)
					}
				}
				w.zone.SetFault("servfail.example", zone.ServFail)
				w.options.Own = func(_ context.Context, ip netip.Addr) bool { return ip.IsLoopback() || ip.String() == "198.51.100.1" }
				w.serve("192.0.2.10", (&sink{}).serve)
				w.serve("192.0.2.20", (&sink{replies: map[string]string{"": "554 5.7.1 go away"}}).serve)
				w.serve("192.0.2.21", (&sink{replies: map[string]string{"MAIL": "451 4.3.0 later"}}).serve)
				w.serve("192.0.2.22", (&sink{replies: map[string]string{"MAIL": "550 5.7.1 no"}}).serve)
				w.serve("192.0.2.23", (&sink{replies: map[string]string{"RCPT": "450 4.7.1 later"}}).serve)
				w.serve("192.0.2.24", (&sink{offers: []string{"SIZE 10"}}).serve)
				w.serve("192.0.2.77", hole)
				w.serve("192.0.2.78", hole)
				d, end := w.deliverer()
				o := send(t, d, "ben@"+tc.domain)
				end()
				checkMatch(t, "outcome", tc.want, describeOutcome(o))
				checkMatch(t, "calls", tc.calls, w.calls())
			})
		})
	}
}

// TestIPv6 shows when IPv6 is used, from which address, and what happens when a host does not like it.
func TestIPv6(t *testing.T) {
	for _, tc := range []struct {
		name        string
		allowed     bool
		replies     map[string]string // of the IPv6 host
		v4          string            // its IPv4 address
		calls, want string
	}{
		{"allowed", true, nil, "192.0.2.1", "2001:db8::1", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"not allowed", false, nil, "192.0.2.1", "192.0.2.1", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"refused at RCPT", true, map[string]string{"RCPT": "550 5.7.25 no PTR"}, "192.0.2.1", "2001:db8::1 192.0.2.1", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"refused at MAIL", true, map[string]string{"MAIL": "550 5.7.25 no PTR"}, "192.0.2.1", "2001:db8::1 192.0.2.1", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"refused for now", true, map[string]string{"MAIL": "450 4.7.25 no PTR"}, "192.0.2.1", "2001:db8::1 192.0.2.1", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"refused after the content", true, map[string]string{"dot": "550 5.7.25 no PTR"}, "192.0.2.1", "2001:db8::1 192.0.2.1", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"refused in the greeting", true, map[string]string{"": "554 5.7.25 no PTR"}, "192.0.2.1", "2001:db8::1 192.0.2.1", "delivered 2.0.0 | 250 2.0.0 kept"},
		{"refused for another reason", true, map[string]string{"RCPT": "550 5.7.1 no"}, "192.0.2.1", "2001:db8::1", "failed 5.7.1 | 550 5.7.1 no"},
		{"refused, and no IPv4", true, map[string]string{"RCPT": "550 5.7.25 no PTR"}, "", "2001:db8::1", "failed 5.7.25 | 550 5.7.25 no PTR"},
		{"refused, and IPv4 is down", true, map[string]string{"RCPT": "550 5.7.25 no PTR"}, "192.0.2.9", "2001:db8::1 192.0.2.9", "deferred 4.4.1 local | *"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.zone.Remove("mx.remote.example")
				if err := w.zone.Add("mx.remote.example. 300 IN AAAA 2001:db8::1"); err != nil {
					t.Fatal(err)
				}
				if tc.v4 != "" {
					if err := w.zone.Add("mx.remote.example. 300 IN A " + tc.v4); err != nil {
						t.Fatal(err)
					}
				}
				source := netip.MustParseAddr("2001:db8:1::25")
				var asked string
				w.options.IPv6 = func(_ context.Context, from addr.Domain) (netip.Addr, bool) {
					asked = from.ASCII()
					return source, tc.allowed
				}
				w.serve("2001:db8::1", (&sink{replies: tc.replies}).serve)
				w.serve("192.0.2.1", (&sink{}).serve)
				d, end := w.deliverer()
				o := send(t, d, "ben@remote.example")
				end()
				checkMatch(t, "outcome", tc.want, describeOutcome(o))
				checkMatch(t, "calls", tc.calls, w.calls())
				if tc.allowed && w.sources[0] != source || !tc.allowed && w.sources[0].IsValid() {
					t.Errorf("called from %v", w.sources)
				}
				if asked != "example.org" {
					t.Errorf("asked for %q", asked)
				}
			})
		})
	}
}

// TestIPv6GivenUp shows that no other IPv6 address is tried for a letter that was refused over IPv6.
func TestIPv6GivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.IPv6 = func(context.Context, addr.Domain) (netip.Addr, bool) { return netip.Addr{}, true }
		for _, ip := range []string{"2001:db8::1", "2001:db8::2"} {
			if err := w.zone.Add("mx.remote.example. 300 IN AAAA " + ip); err != nil {
				t.Fatal(err)
			}
			w.serve(ip, (&sink{replies: map[string]string{"MAIL": "550 5.7.25 no PTR"}}).serve)
		}
		d, end := w.deliverer()
		checkMatch(t, "outcome", "deferred 4.4.1 local | the host refused the connection*", describeOutcome(send(t, d, "ben@remote.example")))
		end()
		if n := w.count(); n != 2 || w.dialed[1] != "192.0.2.1" {
			t.Errorf("called %s", w.calls())
		}
		checkMatch(t, "log", "*IPv6 address refused*5.7.25*", w.log.String())
	})
}

// TestDestination shows what is one destination.
func TestDestination(t *testing.T) {
	d := New(Options{Hostname: hostname})
	defer d.Close()
	for to, want := range map[string]string{
		"ben@Remote.Example": "remote.example", "x@bücher.example": "xn--bcher-kva.example", "x@[192.0.2.1]": "[192.0.2.1]",
	} {
		if got, err := d.Destination(t.Context(), queue.Letter{}, path(t, to)); got != want || err != nil {
			t.Errorf("%s goes to %q, %v; want %q", to, got, err, want)
		}
	}
}

// TestNoDomain shows that an address which cannot be routed is final.
func TestNoDomain(t *testing.T) {
	d := New(Options{Hostname: hostname})
	defer d.Close()
	o := d.Deliver(t.Context(), letter(t), []queue.Recipient{{To: addr.Path{Postmaster: true}}}, opens(letterText))
	checkMatch(t, "outcome", "failed 5.1.3 local | *", describeOutcome(o[0]))
}
