package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/postroom/postroom/dnscheck"
)

// TestDNSCommands prints the records of a domain, publishes them, and checks them. The name servers are not on port 53 here, so that the
// resolver is believed.
func TestDNSCommands(t *testing.T) {
	in := settled(t)
	args := []string{"example.org", "--ip", "192.0.2.1", "--ip", "2001:db8::1"}
	var records []shownRecord
	in.read(&records, append([]string{"dns", "records"}, args...)...)
	byID := map[string]shownRecord{}
	for _, r := range records {
		byID[r.ID] = r
	}
	if mx := byID["mx"]; mx.Relative != "@" || mx.Priority == nil || *mx.Priority != 10 || mx.Value != "mail.example.org" || !mx.Required {
		t.Errorf("%+v", mx)
	}
	if dmarc := byID["dmarc"]; dmarc.Relative != "_dmarc" || dmarc.Name != "_dmarc.example.org" || len(dmarc.Strings) != 1 || dmarc.Priority != nil {
		t.Errorf("%+v", dmarc)
	}
	keys := 0
	for id, r := range byID {
		if strings.HasPrefix(id, "dkim:") {
			if keys++; strings.Join(r.Strings, "") != r.Value || len(r.Value) > 255 && len(r.Strings) != 2 {
				t.Errorf("%+v", r)
			}
		}
	}
	if keys != 2 {
		t.Errorf("%d keys", keys)
	}
	table := in.must("", append([]string{"dns", "records"}, args...)...)
	for _, want := range []string{"required", "good to have", "_dmarc", "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 mx ~all"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}

	check := append([]string{"dns", "check", "--dns-only"}, args...)
	if r := in.try("", check...); r.status != statusNo || !strings.Contains(r.stdout, "missing   mx") {
		t.Errorf("nothing is published: %+v", r)
	}
	zone := in.must("", append([]string{"dns", "records", "--zone"}, args...)...)
	for line := range strings.SplitSeq(strings.TrimSpace(zone), "\n") {
		publish(t, in, line)
	}
	for _, line := range []string{"example.org. 60 IN NS ns.example.org.", "ns.example.org. 60 IN A 127.0.0.1", "1.2.0.192.in-addr.arpa. 60 IN PTR mail.example.org.",
		"in-addr.arpa. 60 IN NS ns.example.org.", "ip6.arpa. 60 IN NS ns.example.org."} {
		publish(t, in, line)
	}
	r := in.try("", append(check, "--json")...)
	if r.status != statusUnsure { // of the name servers themselves
		t.Errorf("%+v", r)
	}
	var report dnscheck.Report
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Checks {
		if c.Required && c.Status != dnscheck.OK && c.ID != "ns" {
			t.Errorf("%+v", c)
		}
	}
	if r := in.try("", "dns", "check", "nobody.example"); r.status != statusUnsure || !strings.Contains(r.stderr, "nobody.example") {
		t.Errorf("%+v", r)
	}
}

// publish puts a record into the DNS of the outside world.
func publish(t *testing.T, in *installation, line string) {
	t.Helper()
	if err := in.outside.Add(line); err != nil {
		t.Fatal(err)
	}
}

// TestReachable shows where a port is reached from this machine.
func TestReachable(t *testing.T) {
	for listening, want := range map[string]string{":25": "localhost:25", "0.0.0.0:465": "localhost:465", "[::]:587": "localhost:587", "192.0.2.1:995": "192.0.2.1:995"} {
		if got := reachable([]string{listening}); got != want {
			t.Errorf("%s is reached at %s, want %s", listening, got, want)
		}
	}
	if got := reachable(nil); got != "" {
		t.Errorf("nothing is reached at %s", got)
	}
}
