package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/delivery"
	"github.com/postroom/postroom/dnscheck"
	"github.com/postroom/postroom/internal/config"
	"github.com/postroom/postroom/internal/listen"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/mtasts"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/tlsconf"
)

type dnsCommand struct {
	Records dnsRecords `cmd:"" help:"Print the records to publish for a domain."`
	Check   dnsCheck   `cmd:"" help:"Compare what is published with what is needed, and say how to mend it. Exit status 0: all that is required is there, 1: something is wrong, 2: it could not be told."`
}

// dnsTarget is the domain, and where this server is.
type dnsTarget struct {
	Domain domainArgument `arg:"" help:"The domain."`
	IP     []netip.Addr   `placeholder:"ADDRESS" help:"A public address of this server, where it is behind NAT (default: those of this machine)."`
}

// profileOf puts together what this server is for a domain.
func profileOf(ctx context.Context, c *config.Config, s *stores, target dnsTarget) (dnscheck.Profile, error) {
	d, err := s.accounts.Domain(ctx, target.Domain.Domain)
	if err != nil {
		return dnscheck.Profile{}, err
	}
	p := dnscheck.Profile{
		Domain: d.Name, Hostname: strings.ToLower(c.Hostname), IPs: target.IP, STS: d.STS, STSID: mtasts.Own(d.STS, c.Hostname).ID(),
		Reports: "postmaster@" + d.Name.ASCII(), Web: len(c.Listen.HTTPS) > 0,
	}
	if p.Keys, err = s.accounts.DKIMKeys(ctx, d.Name); err != nil {
		return p, err
	}
	if err := addCertificates(ctx, &p, c, s); err != nil {
		return p, err
	}
	if err := addAddresses(&p, c); err != nil {
		return p, err
	}
	relays, err := relaysAll(ctx, s)
	if err != nil {
		return p, err
	}
	p.Relayed = relays
	for port, listening := range listeningOn(c) {
		if len(listening) > 0 {
			p.Ports = append(p.Ports, port)
		}
	}
	slices.Sort(p.Ports)
	p.Submissions, p.POP3S = portOf(c.Listen.Submissions), portOf(c.Listen.POP3S)
	return p, nil
}

// portOf is the first port of a service; 0 where there is none.
func portOf(listening []string) int {
	if len(listening) == 0 {
		return 0
	}
	_, text, _ := net.SplitHostPort(listening[0]) // the configuration was checked
	port, _ := strconv.Atoi(text)
	return port
}

// listeningOn is where the ports are served that the world knows.
func listeningOn(c *config.Config) map[int][]string {
	return map[int][]string{25: c.Listen.SMTP, 110: c.Listen.POP3, 443: c.Listen.HTTPS, 465: c.Listen.Submissions, 587: c.Listen.Submission, 995: c.Listen.POP3S}
}

// relaysAll tells whether all mail leaves through a smarthost.
func relaysAll(ctx context.Context, s *stores) (bool, error) {
	relays := delivery.NewSmarthosts(s.db, s.key.For("relay"))
	defer relays.Close()
	all, err := relays.Relays(ctx)
	return slices.ContainsFunc(all, func(r delivery.Relay) bool { return r.Sender.IsZero() && r.Destination.IsZero() }), err
}

// addAddresses adds the addresses of this server: those that are named, else those from which this machine reaches the world. A
// family with private addresses alone is behind NAT.
func addAddresses(p *dnscheck.Profile, c *config.Config) error {
	for _, text := range c.Public {
		if ip, err := netip.ParseAddr(text); err == nil && len(p.IPs) == 0 { // check has said so otherwise
			p.IPs = append(p.IPs, ip)
		}
	}
	all, err := listen.Addresses()
	if err != nil {
		return fmt.Errorf("addresses of this machine: %w", err)
	}
	named := len(p.IPs) > 0
	for _, six := range []bool{false, true} {
		source := listen.Source(six)
		private := false
		for _, ip := range all {
			switch {
			case ip.Is6() != six || ip.IsLoopback() || ip.IsLinkLocalUnicast():
			case !listen.Public(ip):
				private = true
			case !named && (ip == source || !source.IsValid()):
				p.IPs = append(p.IPs, ip)
			case !slices.Contains(p.IPs, ip):
				p.Also = append(p.Also, ip)
			}
		}
		if six {
			p.Behind6 = private
		} else {
			p.Behind4 = private
		}
	}
	return nil
}

// addCertificates adds what the certificates of the server have to do with the DNS.
func addCertificates(ctx context.Context, p *dnscheck.Profile, c *config.Config, s *stores) error {
	p.KeepKeys = c.TLS.Source != "files" // somebody else renews those
	var keys []tlsconf.Key
	switch c.TLS.Source {
	case "acme":
		p.CAs = tlsconf.Identities(c.TLS.CA)
		var err error
		if keys, err = tlsconf.NewStore(s.db, s.key.For("tls")).Keys(ctx, p.Hostname); err != nil && !errors.Is(err, tlsconf.ErrUnknownName) {
			return fmt.Errorf("keys of certificates: %w", err)
		}
	default:
		found, err := tlsconf.Look(tlsconf.Options{Source: c.TLS.Source, CertFile: c.TLS.Cert, KeyFile: c.TLS.Key, DataDir: c.DataDir, Hostname: c.Hostname})
		if err == nil { // without a certificate there is nothing to be said of it
			keys = found.Keys
		}
	}
	for _, k := range keys {
		p.TLSA = append(p.TLSA, k.String())
	}
	return nil
}

// shownRecord is a record as --json prints it.
type shownRecord struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Relative string   `json:"relative"`
	Type     string   `json:"type"`
	Priority *int     `json:"priority"`
	Value    string   `json:"value"`
	Strings  []string `json:"strings"` // of a TXT record, for panels that want it in pieces
	Required bool     `json:"required"`
	Why      string   `json:"why"`
}

type dnsRecords struct {
	dnsTarget
	asJSON
	Zone bool `xor:"form" help:"Print them for a BIND zone."`
}

func (c *dnsRecords) Run(ctx context.Context, p *program) error {
	conf, err := p.load()
	if err != nil {
		return err
	}
	return p.withStores(ctx, func(s *stores) error {
		profile, err := profileOf(ctx, conf, s, c.dnsTarget)
		if err != nil {
			return err
		}
		return c.print(p, dnscheck.Records(profile))
	})
}

func (c *dnsRecords) print(p *program, records []dnscheck.Record) error {
	shown := []shownRecord{}
	t := &table{head: []string{"", "TYPE", "NAME", "PRIORITY", "VALUE"}}
	for _, r := range records {
		if c.Zone {
			if _, err := fmt.Fprintln(p.stdout, r.ZoneLine()); err != nil {
				return err
			}
			continue
		}
		v := shownRecord{ID: r.ID, Name: r.Name, Relative: r.Relative(c.Domain.ASCII()), Type: r.Type, Value: r.Value, Strings: []string{}, Required: r.Required, Why: r.Why}
		priority := ""
		if r.Type == "MX" || r.Type == "SRV" {
			v.Priority, priority = &r.Priority, strconv.Itoa(r.Priority)
		}
		if r.Type == "TXT" {
			v.Strings = r.Strings()
		}
		shown = append(shown, v)
		t.add(map[bool]string{true: "required", false: "good to have"}[r.Required], r.Type, v.Relative, orDash(priority), r.Value)
	}
	if c.Zone {
		return nil
	}
	if !c.JSON {
		if !slices.ContainsFunc(records, func(r dnscheck.Record) bool { return r.ID == "host-a" }) {
			p.say("The public IPv4 address of this server is not known here: give it with --ip, or as public_addresses in the configuration.")
		}
		p.say("Names are relative to %s; @ is the domain itself. --zone prints full names, and long values in pieces of 255.\n", c.Domain)
	}
	return c.show(p.stdout, shown, t)
}

type dnsCheck struct {
	dnsTarget
	asJSON
	DNSOnly bool `name:"dns-only" help:"Leave out what needs more than the DNS: certificates, policies over HTTPS, port 25, the clock."`
	Watch   bool `help:"Look again and again, and say what changes, until all is well."`
}

// watchInterval is how often --watch looks.
const watchInterval = 15 * time.Second

func (c *dnsCheck) Run(ctx context.Context, p *program) error {
	if c.JSON && c.Watch {
		return usagef("--watch prints lines for people: leave out --json, or ask again and again")
	}
	conf, err := p.load()
	if err != nil {
		return err
	}
	log, err := maillog.New(p.stderr, slog.LevelError, "text")
	if err != nil {
		return err
	}
	var profile dnscheck.Profile
	err = p.withStores(ctx, func(s *stores) (err error) {
		profile, err = profileOf(ctx, conf, s, c.dnsTarget)
		return err
	})
	if refused, ok := errors.AsType[*accounts.Problem](err); ok {
		return unsuref("%s", refused.Sentence) // 1 says that something is wrong with the records
	}
	if err != nil {
		return err
	}
	dns, err := openResolver(conf, log)
	if err != nil {
		return err
	}
	defer dns.Close()
	o := dnscheck.Options{Profile: profile, DNS: dns}
	if !c.DNSOnly {
		o.Probes = probes(conf, dns)
	}
	report := dnscheck.Run(ctx, o)
	if err := c.print(p, report); err != nil {
		return err
	}
	if c.Watch {
		report = c.watch(ctx, p, o, report)
	}
	return verdict(report)
}

// probes look at this server from this machine.
func probes(c *config.Config, dns *resolve.Resolver) *dnscheck.System {
	listening := listeningOn(c)
	return &dnscheck.System{
		DNS: dns, Hello: c.Hostname, FetchPolicy: delivery.PolicyFetcher(dns),
		Local: func(port int) string { return reachable(listening[port]) },
	}
}

// reachable is an address at which a service that listens there is reached from this machine.
func reachable(listening []string) string {
	if len(listening) == 0 {
		return ""
	}
	host, port, err := net.SplitHostPort(listening[0])
	if ip, parse := netip.ParseAddr(host); err == nil && (host == "" || parse == nil && ip.IsUnspecified()) {
		return net.JoinHostPort("localhost", port)
	}
	return listening[0]
}

func verdict(r dnscheck.Report) error {
	switch r.Verdict() {
	case dnscheck.Amiss:
		return &failure{status: statusNo} // what is printed says why
	case dnscheck.Unsure:
		return &failure{status: statusUnsure}
	}
	return nil
}

// watch says what changes, until all is well or somebody ends it. Only the DNS is looked at again: other servers are not called for it every
// few seconds.
func (c *dnsCheck) watch(ctx context.Context, p *program, o dnscheck.Options, report dnscheck.Report) dnscheck.Report {
	o.Probes = nil
	for !report.OK {
		select {
		case <-ctx.Done():
			return report
		case <-time.After(watchInterval):
		}
		now := dnscheck.Run(ctx, o)
		if ctx.Err() != nil {
			return report // it was cut short
		}
		now = now.With(report)
		for _, k := range now.Checks {
			if !slices.ContainsFunc(report.Checks, func(old dnscheck.Check) bool { return old.ID == k.ID && old.Status == k.Status }) {
				fmt.Fprintf(p.stdout, "%s  %-8s %s\n", time.Now().Format(time.TimeOnly), k.Status, k.ID)
				if k.Fix != "" {
					fmt.Fprintf(p.stdout, "          %s\n", k.Fix)
				}
			}
		}
		report = now
	}
	return report
}

// print shows each check in a line, and below it what is to be mended.
func (c *dnsCheck) print(p *program, r dnscheck.Report) error {
	if c.JSON {
		return printJSON(p.stdout, r)
	}
	for _, k := range r.Checks {
		mark := ""
		if !k.Required && k.Status != dnscheck.OK && k.Status != dnscheck.Optional {
			mark = " (advice)"
		}
		if _, err := fmt.Fprintf(p.stdout, "%-9s %-28s %s%s\n", k.Status, k.ID, shorten(strings.Join(k.Found, " | "), 100), mark); err != nil {
			return err
		}
		if k.Fix != "" {
			if _, err := fmt.Fprintf(p.stdout, "          %s\n", k.Fix); err != nil {
				return err
			}
		}
	}
	switch r.Verdict() {
	case dnscheck.Well:
		p.say("\nAll that %s needs is there.", r.Domain)
	case dnscheck.Amiss:
		p.say("\nSomething that %s needs is wrong: the indented lines say how to mend it. `postroom dns records %s` prints all records.", r.Domain, r.Domain)
	default:
		p.say("\nNot all could be told now: look again later, or with --watch.")
	}
	return nil
}

// shorten cuts what is too long for a line.
func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
