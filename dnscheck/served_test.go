package dnscheck

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/resolve"
)

// apexes are the zones that the records of testdata/zones.txt are in.
var apexes = []string{"example.org", "example.net", "in-addr.arpa", "ip6.arpa", "provider.example", "spamhaus.org", "spamcop.net", "surriel.com"}

// TestZonesServed is TestZones with a name server that is not ours: NSD serves the zones, to the checks and as the resolver. It does not
// sign them, so that what depends on that is left out.
func TestZonesServed(t *testing.T) {
	nsd, err := exec.LookPath("nsd")
	if err != nil {
		t.Skip("nsd is not installed")
	}
	ran := 0
	for _, g := range readZones(t) {
		if slices.ContainsFunc(g.lines, func(l string) bool { return strings.Contains(l, "! ") && l != "@2 ! * *" }) {
			continue // NSD has no such faults
		}
		ran++
		t.Run(g.name, func(t *testing.T) {
			w := rightZone(t)
			for _, line := range g.lines {
				w.change(t, fill(line))
			}
			port := freePort(t)
			for _, s := range serversOf(w) {
				s.start(t, nsd, port)
			}
			r := must(resolve.New(resolve.Options{Servers: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.50"), port)}, AuthorityPort: port}))
			t.Cleanup(r.Close)
			report := Run(t.Context(), Options{Profile: profile(g.with), DNS: r})
			report.Checks = slices.DeleteFunc(report.Checks, func(c Check) bool { return c.ID == "dnssec" })
			compare(t, report, unsigned(g.expect))
		})
	}
	t.Logf("%d zones were served", ran)
}

// unsigned is what is to be found where nothing is signed.
func unsigned(expect []string) (all []string) {
	for _, line := range expect {
		if !strings.HasPrefix(line, "dnssec ") {
			all = append(all, strings.Replace(line, "tlsa wrong required", "tlsa wrong advice", 1))
		}
	}
	return all
}

// nameserver is one NSD, at several addresses where they know the same.
type nameserver struct {
	addresses []string
	records   []string
}

// serversOf puts servers together that know the same. One that has a fault is not there.
func serversOf(w *world) (all []*nameserver) {
	for i, ip := range []string{"127.0.0.51", "127.0.0.52", "127.0.0.50"} {
		if len(w.faults[i]) > 0 {
			continue
		}
		j := slices.IndexFunc(all, func(s *nameserver) bool { return slices.Equal(s.records, w.records[i]) })
		if j < 0 {
			all, j = append(all, &nameserver{records: w.records[i]}), len(all)
		}
		all[j].addresses = append(all[j].addresses, ip)
	}
	return all
}

// start serves until the test ends.
func (s *nameserver) start(t *testing.T, nsd string, port uint16) {
	t.Helper()
	dir := t.TempDir()
	config := fmt.Sprintf("server:\n server-count: 1\n username: \"\"\n chroot: \"\"\n zonesdir: %q\n pidfile: \"\"\n logfile: %q\n xfrdfile: \"\"\n zonelistfile: %q\n port: %d\n",
		dir, filepath.Join(dir, "log"), filepath.Join(dir, "list"), port)
	for _, ip := range s.addresses {
		config += " ip-address: " + ip + "\n"
	}
	config += "remote-control:\n control-enable: no\n"
	for _, apex := range apexes {
		write(t, filepath.Join(dir, apex), s.zoneFile(apex))
		config += fmt.Sprintf("zone:\n name: %q\n zonefile: %q\n", apex, apex)
	}
	write(t, filepath.Join(dir, "nsd.conf"), config)
	for range 3 { // NSD does not always come up: its processes may miss each other's signals
		if s.launch(t, nsd, dir, port) {
			return
		}
	}
	log, _ := os.ReadFile(filepath.Join(dir, "log")) // it says why, where it is
	t.Fatalf("nsd does not answer at %v:\n%s", s.addresses, log)
}

// launch starts NSD, and tells whether it answers.
func (s *nameserver) launch(t *testing.T, nsd, dir string, port uint16) bool {
	t.Helper()
	cmd := exec.Command(nsd, "-d", "-c", filepath.Join(dir, "nsd.conf"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it ends its children
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	for _, ip := range s.addresses {
		if !answers(t, netip.AddrPortFrom(netip.MustParseAddr(ip), port)) {
			stop()
			return false
		}
	}
	return true
}

// answers waits until a server knows the domain.
func answers(t *testing.T, server netip.AddrPort) bool {
	t.Helper()
	for range 300 {
		r := must(resolve.New(resolve.Options{Servers: []netip.AddrPort{server}, Timeout: time.Second}))
		_, err := r.Lookup(t.Context(), "example.org", resolve.TypeSOA)
		r.Close()
		if err == nil {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// zoneFile are the records of one zone.
func (s *nameserver) zoneFile(apex string) string {
	var b strings.Builder
	if apex != "example.org" {
		fmt.Fprintf(&b, "%s. 60 IN SOA ns1.example.net. hostmaster.example.org. 1 2 3 4 5\n", apex)
	}
	hasNS := false
	for _, r := range s.records {
		name := strings.Fields(r)[0]
		if name != apex+"." && !strings.HasSuffix(name, "."+apex+".") {
			continue
		}
		hasNS = hasNS || name == apex+"." && strings.Contains(r, " IN NS ")
		b.WriteString(strings.NewReplacer("A 192.0.2.51", "A 127.0.0.51", "A 192.0.2.52", "A 127.0.0.52").Replace(r) + "\n")
	}
	if !hasNS {
		fmt.Fprintf(&b, "%s. 60 IN NS ns1.example.net.\n", apex)
	}
	return b.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.50:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}
