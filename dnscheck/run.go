package dnscheck

import (
	"context"
	"crypto/x509"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/postroom/postroom/internal/resolve"
)

// runTimeout bounds all checks together.
const runTimeout = 2 * time.Minute

// Probes look at what is not in the DNS. A nil error of each says that it was found out.
type Probes interface {
	// Policy fetches the MTA-STS policy of a domain, with the certificate verified.
	Policy(ctx context.Context, domain string) ([]byte, error)
	// Certificate returns the chain that this server shows on a port for a name.
	Certificate(ctx context.Context, port int, name string) ([]*x509.Certificate, error)
	// Port25 connects to exchangers of others over one family.
	Port25(ctx context.Context, six bool) error
	// Clock returns how far the clock of this machine is ahead.
	Clock(ctx context.Context) (time.Duration, error)
}

// Options are what Run works with.
type Options struct {
	Profile Profile
	DNS     DNS
	Probes  Probes         // nil: only the DNS is looked at
	Roots   *x509.CertPool // nil: the system's
}

// checker is one run.
type checker struct {
	p      Profile
	dns    DNS
	probes Probes
	roots  *x509.CertPool
	host   []netip.Addr // where Hostname leads to, at the authoritative servers
}

// Run looks at everything.
func Run(ctx context.Context, o Options) Report {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	c := &checker{p: o.Profile, dns: o.DNS, probes: o.Probes, roots: o.Roots}
	c.host = c.addresses(ctx, c.p.Hostname)
	steps := []func(context.Context) []Check{
		c.nameServers, c.hostA, c.hostAAAA, c.reverse, c.helo, c.exchangers, c.spf, c.dkim, c.dmarc, c.mtaSTS, c.tlsReports, c.dnssec, c.tlsa, c.caa,
		c.srv, c.autoconfig, c.blockLists,
	}
	if c.probes != nil {
		steps = append(steps, c.certificates, c.port25, c.clock)
	}
	found := make([][]Check, len(steps))
	var running sync.WaitGroup
	for i, step := range steps {
		running.Go(func() { found[i] = step(ctx) })
	}
	running.Wait()
	var all []Check
	for _, checks := range found {
		all = append(all, checks...)
	}
	return newReport(c.p.Domain.ASCII(), all)
}

// addresses are those of a name, at the authoritative servers.
func (c *checker) addresses(ctx context.Context, name string) (all []netip.Addr) {
	for _, qtype := range []uint16{resolve.TypeA, resolve.TypeAAAA} {
		for _, text := range c.known(ctx, name, qtype) {
			if ip, err := netip.ParseAddr(text); err == nil {
				all = append(all, ip)
			}
		}
	}
	return all
}

// sending are the addresses that mail leaves from: those of this machine, or of a family that is behind NAT, what its name leads to.
func (c *checker) sending() []netip.Addr {
	all := slices.Clone(c.p.IPs)
	for _, ip := range c.host {
		if c.p.behind(ip.Is6()) {
			all = append(all, ip)
		}
	}
	return all
}

// only6 tells whether mail can leave over IPv6 alone.
func (c *checker) only6() bool {
	return !slices.ContainsFunc(c.sending(), netip.Addr.Is4) && len(c.sending()) > 0
}

// ours tells whether an address is this server's.
func (c *checker) ours(ip netip.Addr) bool {
	return slices.Contains(c.sending(), ip) || slices.Contains(c.p.Also, ip)
}
