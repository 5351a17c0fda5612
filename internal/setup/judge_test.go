package setup

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/postroom/postroom/internal/dnsbl"
	"github.com/postroom/postroom/internal/resolve"
)

var (
	v4 = netip.MustParseAddr("192.0.2.5")
	v6 = netip.MustParseAddr("2001:db8::5")
)

// lines are findings as they are compared.
func lines(all []Finding) (text []string) {
	for _, f := range all {
		line := f.Level.String() + " " + f.What
		if f.Fix != "" {
			line += " -> " + f.Fix
		}
		text = append(text, line)
	}
	return text
}

func expect(t *testing.T, got []Finding, want ...string) {
	t.Helper()
	if text := lines(got); !slices.Equal(text, want) {
		t.Errorf("got\n%q\nwant\n%q", text, want)
	}
	for _, f := range got {
		if len(f.What) > 120 || len(f.Fix) > 180 {
			t.Errorf("too long to read at a glance: %q, %q", f.What, f.Fix)
		}
	}
}

func TestJudgePorts(t *testing.T) {
	exim := &Holder{PID: 812, Program: "exim4", Unit: "exim4.service"}
	for _, tc := range []struct {
		name  string
		facts Facts
		want  []string
	}{
		{"all free", Facts{Root: true, LowPorts: 1024, Ports: []Port{{"smtp", ":25", 25, nil}, {"pop3s", ":995", 995, nil}}}, []string{"ok ports 25, 995 are free"}},
		{"one held by a service", Facts{Root: true, Ports: []Port{{"smtp", ":25", 25, exim}, {"pop3", ":110", 110, nil}}},
			[]string{"STOP port 25 (smtp) is held by exim4 (process 812) -> `systemctl disable --now exim4.service` stops it for good", "ok port 110 is free"}},
		{"held by a program without a unit", Facts{Root: true, Ports: []Port{{"smtp", ":25", 25, &Holder{PID: 7, Program: "master"}}}},
			[]string{"STOP port 25 (smtp) is held by master (process 7) -> `kill 7` stops it; see to it that it does not come back"}},
		{"held by a container", Facts{Root: true, Ports: []Port{{"smtp", ":25", 25, &Holder{PID: 9, Program: "docker-proxy", Unit: "docker.service"}}}},
			[]string{"STOP port 25 (smtp) is held by docker-proxy (process 9) -> a container publishes it: `docker ps` or `podman ps` names it"}},
		{"a web server", Facts{Root: true, Ports: []Port{{"https", ":443", 443, &Holder{PID: 5, Program: "nginx", Unit: "nginx.service"}}}},
			[]string{"STOP port 443 (https) is held by nginx (process 5) -> `systemctl disable --now nginx.service` stops it for good; or leave the web to it with --no-web"}},
		{"held by systemd itself", Facts{Root: true, Ports: []Port{{"smtp", ":25", 25, &Holder{PID: 1, Program: "systemd"}}}},
			[]string{"STOP port 25 (smtp) is held by systemd (process 1) -> a socket unit of systemd: `systemctl list-sockets` names it, `systemctl disable --now NAME` ends it"}},
		{"held by somebody else's", Facts{LowPorts: 1024, Ports: []Port{{"smtp", ":2525", 2525, &Holder{}}}},
			[]string{"STOP port 2525 (smtp) is held by another program -> run this as root to see which one"}},
		{"held by Postroom", Facts{Root: true, Ports: []Port{{"smtp", ":25", 25, &Holder{PID: 3, Program: "postroom"}}}}, []string{"ok port 25 is held by Postroom, which runs already"}},
		{"low ports, not root", Facts{LowPorts: 1024, Ports: []Port{{"smtp", ":25", 25, nil}, {"pop3", ":2110", 2110, nil}, {"any", ":0", 0, nil}}},
			[]string{"note port 25 is free, but not for this user -> serve as a service (--service, as root), or as root", "ok ports 2110, 0 are free"}},
		{"low ports for everybody", Facts{LowPorts: 0, Ports: []Port{{"smtp", ":25", 25, nil}}}, []string{"ok port 25 is free"}},
		{"not known", Facts{PortsErr: errors.New("no such file"), Ports: []Port{{"smtp", ":25", 25, nil}}}, []string{"note could not tell which ports are free: no such file"}},
	} {
		t.Run(tc.name, func(t *testing.T) { expect(t, judgePorts(&tc.facts), tc.want...) })
	}
}

func TestJudgeOut(t *testing.T) {
	const (
		ask    = " -> ask your provider to open outgoing port 25 for this machine; or send through a smarthost (`postroom relay set`), and go on with --anyway"
		four   = "the way out to port 25 over IPv4"
		six    = "the way out to port 25 over IPv6"
		noSix  = "note no public IPv6 address: mail is sent and received over IPv4"
		nobody = " is open: no mail server was found in the DNS -> see that this machine's resolver works"
	)
	for _, tc := range []struct {
		name     string
		out4     Reach
		out6     Reach
		want     []string
		mayGoOn  bool
		isOnline bool
	}{
		{"both open", Reach{Have: true, Known: 3, Answered: 3}, Reach{Have: true, Known: 2, Answered: 1}, []string{"ok " + four + " is open", "ok " + six + " is open"}, true, true},
		{"one provider answers", Reach{Have: true, Known: 3, Answered: 1}, Reach{}, []string{"ok " + four + " is open", noSix}, true, true},
		{"dropped", Reach{Have: true, Known: 3}, Reach{}, []string{"STOP " + four + " is closed: 3 large providers were called, and none answered" + ask, noSix}, false, true},
		{"refused", Reach{Have: true, Known: 3, Refused: true}, Reach{}, []string{"STOP " + four + " is closed: 3 large providers were called, and something on the way refused" + ask, noSix}, false, true},
		{"both closed", Reach{Have: true, Known: 3}, Reach{Have: true, Known: 1}, []string{
			"STOP " + four + " is closed: 3 large providers were called, and none answered" + ask, "STOP " + six + " is closed: 1 large providers were called, and none answered" + ask}, false, true},
		{"IPv6 alone closed", Reach{Have: true, Known: 3, Answered: 3}, Reach{Have: true, Known: 3}, []string{"ok " + four + " is open", "note " + six + " is closed; the other one is used"}, true, true},
		{"IPv4 alone closed", Reach{Have: true, Known: 3}, Reach{Have: true, Known: 3, Answered: 3}, []string{"note " + four + " is closed; the other one is used", "ok " + six + " is open"}, true, true},
		{"no DNS", Reach{Have: true}, Reach{}, []string{"note could not tell whether " + four + nobody, noSix}, true, true},
		{"IPv4 closed, IPv6 not told", Reach{Have: true, Known: 3}, Reach{Have: true}, []string{
			"STOP " + four + " is closed: 3 large providers were called, and none answered" + ask, "note could not tell whether " + six + nobody}, false, true},
		{"no IPv4", Reach{}, Reach{Have: true, Known: 3, Answered: 2}, []string{"mend no IPv4 address: much of the world cannot send mail here -> ask your provider for one", "ok " + six + " is open"}, true, true},
		{"offline", Reach{Have: true}, Reach{Have: true}, []string{"note nobody else was asked: the way out, names and block lists are not known"}, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.out4.Family, tc.out6.Family = "IPv4", "IPv6"
			got := judgeOut(&Facts{Wanted: Wanted{Offline: !tc.isOnline}, Out: []Reach{tc.out4, tc.out6}})
			expect(t, got, tc.want...)
			if (Worst(got) < Stop) != tc.mayGoOn {
				t.Errorf("may go on is %t", !tc.mayGoOn)
			}
		})
	}
}

func TestJudgeAddresses(t *testing.T) {
	const host = "mail.example.org"
	const set4 = "ask your provider to set the reverse DNS (PTR) of 192.0.2.5 to mail.example.org"
	const set6 = "mail leaves over IPv4 until then; ask your provider to set the reverse DNS (PTR) of 2001:db8::5 to mail.example.org"
	none := &resolve.Error{Kind: resolve.ErrNotFound}
	late := &resolve.Error{Kind: resolve.ErrTimeout}
	for _, tc := range []struct {
		name    string
		address Address
		want    string
	}{
		{"as it should be", Address{IP: v4, Names: []string{host}, LeadsTo: []string{host}}, "ok 192.0.2.5 is called mail.example.org, which leads back"},
		{"one of several", Address{IP: v4, Names: []string{"a.example", host}, LeadsTo: []string{"a.example", host}}, "ok 192.0.2.5 is called mail.example.org, which leads back"},
		{"no name", Address{IP: v4, NamesErr: none}, "mend 192.0.2.5 has no name -> " + set4},
		{"no name, IPv6", Address{IP: v6, NamesErr: none}, "note 2001:db8::5 has no name -> " + set6},
		{"not told", Address{IP: v4, NamesErr: late}, "note could not tell what 192.0.2.5 is called: the DNS does not answer"},
		{"not published yet", Address{IP: v4, Names: []string{host}}, "note 192.0.2.5 is called mail.example.org, which does not lead back yet -> publish its address: it is among the records below"},
		{"the provider's name", Address{IP: v4, Names: []string{"vps7.example.net"}, LeadsTo: []string{"vps7.example.net"}}, "note 192.0.2.5 is called vps7.example.net, which leads back: that will do -> better: " + set4},
		{"a name that leads nowhere", Address{IP: v4, Names: []string{"vps7.example.net"}}, "mend 192.0.2.5 is called vps7.example.net, which does not lead back -> " + set4},
		{"the same, IPv6", Address{IP: v6, Names: []string{"vps7.example.net"}}, "note 2001:db8::5 is called vps7.example.net, which does not lead back -> " + set6},
	} {
		t.Run(tc.name, func(t *testing.T) { expect(t, []Finding{judgeName(tc.address, host)}, tc.want) })
	}
	t.Run("behind another", func(t *testing.T) {
		expect(t, judgeAddresses(&Facts{Private: []netip.Addr{netip.MustParseAddr("10.0.0.7")}}),
			"note this machine has no public address (but 10.0.0.7): it is behind another one -> let that one forward the ports, and name its address with --public to have it checked")
	})
	t.Run("not asked", func(t *testing.T) {
		expect(t, judgeAddresses(&Facts{Wanted: Wanted{Offline: true}, Addresses: []Address{{IP: v4}}}))
	})
}

func TestJudgeLists(t *testing.T) {
	const zen, cop, psbl = "zen.spamhaus.org", "bl.spamcop.net", "psbl.surriel.com"
	for _, tc := range []struct {
		name string
		said map[string]dnsbl.Listing
		want []string
	}{
		{"clean", map[string]dnsbl.Listing{zen: dnsbl.NotListed, cop: dnsbl.NotListed, psbl: dnsbl.NotListed}, []string{"ok 192.0.2.5 is on no block list that was asked"}},
		{"listed", map[string]dnsbl.Listing{zen: dnsbl.Listed, cop: dnsbl.NotListed}, []string{"mend 192.0.2.5 is on the block list zen.spamhaus.org -> https://check.spamhaus.org/ says why, and how it comes off"}},
		{"listed twice", map[string]dnsbl.Listing{zen: dnsbl.Listed, cop: dnsbl.Listed}, []string{
			"mend 192.0.2.5 is on the block list zen.spamhaus.org -> https://check.spamhaus.org/ says why, and how it comes off",
			"mend 192.0.2.5 is on the block list bl.spamcop.net -> https://www.spamcop.net/bl.shtml says why, and how it comes off"}},
		{"a range", map[string]dnsbl.Listing{zen: dnsbl.ListedByPolicy}, []string{"mend 192.0.2.5 is in a range that is not for mail servers, says zen.spamhaus.org -> https://check.spamhaus.org/ takes single addresses out; or ask your provider"}},
		{"not told", map[string]dnsbl.Listing{zen: dnsbl.NotTold, cop: dnsbl.NotListed}, []string{"ok 192.0.2.5 is on no block list that was asked", "note not told by zen.spamhaus.org: some lists do not answer large resolvers"}},
		{"nobody told", map[string]dnsbl.Listing{zen: dnsbl.NotTold, cop: dnsbl.NotTold}, []string{"note not told by zen.spamhaus.org, bl.spamcop.net: some lists do not answer large resolvers"}},
		{"not asked", nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			expect(t, judgeLists(&Facts{Addresses: []Address{{IP: v4, Lists: tc.said}}}), tc.want...)
		})
	}
}
