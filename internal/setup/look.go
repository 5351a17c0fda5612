package setup

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postroom/postroom/internal/dnsbl"
	"github.com/postroom/postroom/internal/resolve"
)

const (
	// lookTimeout bounds all that is asked of others.
	lookTimeout = 20 * time.Second
	// maxAddresses and maxNames bound what is asked about one machine, and about one address of it.
	maxAddresses, maxNames = 8, 4
)

// providers are who is called on port 25. One that answers shows that the way out is open.
var providers = []string{"gmail.com", "outlook.com", "yahoo.com"}

// Wanted is what a server is to have.
type Wanted struct {
	Hostname string
	Listen   []Service
	Public   []netip.Addr // addresses that the operator names, where the machine does not have them itself
	Offline  bool         // ask nobody else
}

// Service is where a service is to listen.
type Service struct {
	Name  string
	Addrs []string
}

// Facts are what was found.
type Facts struct {
	Wanted
	Root      bool
	LowPorts  int   // below it, ports are for those with privileges
	PortsErr  error // why it is not known what listens
	Ports     []Port
	Private   []netip.Addr // addresses that the world does not see
	Addresses []Address
	Out       []Reach
}

// Port is one port that is wanted.
type Port struct {
	Service string
	Addr    string
	Number  int
	Holder  *Holder // nil: it is free
}

// Address is what the world sees of one public address.
type Address struct {
	IP       netip.Addr
	Names    []string // of its PTR records
	NamesErr error
	LeadsTo  []string // those of the names that lead back to it
	Lists    map[string]dnsbl.Listing
}

// Reach is what calling others on port 25 over one address family brought.
type Reach struct {
	Family   string // IPv4 or IPv6
	Have     bool   // this machine has an address of it
	Known    int    // servers whose address was found
	Answered int
	Refused  bool // somebody said no, at once: a firewall, more often than not
}

// DNS is what is asked of the DNS.
type DNS interface {
	MX(ctx context.Context, name string) ([]resolve.MX, error)
	A(ctx context.Context, name string) ([]netip.Addr, error)
	AAAA(ctx context.Context, name string) ([]netip.Addr, error)
	IP(ctx context.Context, name string) ([]netip.Addr, error)
	PTR(ctx context.Context, ip netip.Addr) ([]string, error)
}

// Caller calls a mail server, and returns once it has greeted.
type Caller interface {
	Call(ctx context.Context, server netip.AddrPort) error
}

// ErrRefused is a Caller's error for a server, or a firewall, that says no at once.
var ErrRefused = errors.New("refused")

// Looker looks at a machine. Its fields are the world, or a test's.
type Looker struct {
	DNS        DNS
	Caller     Caller
	Interfaces func() ([]netip.Addr, error)
	Proc       string // the proc file system
	Root       bool
}

// Look finds out what there is to know, within lookTimeout.
func (l *Looker) Look(ctx context.Context, w Wanted) *Facts {
	f := &Facts{Wanted: w, Root: l.Root, LowPorts: LowPorts(l.Proc)}
	f.Ports, f.PortsErr = l.ports(w.Listen)
	own, _ := l.Interfaces() // without them, only what the operator names is looked at
	public := slices.Clone(w.Public)
	for _, ip := range own {
		switch ip = ip.Unmap().WithZone(""); {
		case !ip.IsGlobalUnicast():
		case ip.IsPrivate() || shared.Contains(ip):
			f.Private = append(f.Private, ip)
		case !slices.Contains(public, ip):
			public = append(public, ip)
		}
	}
	public = public[:min(len(public), maxAddresses)]
	f.Addresses = make([]Address, len(public))
	for i, ip := range public {
		f.Addresses[i].IP = ip
	}
	f.Out = []Reach{{Family: "IPv4", Have: haveFamily(netip.Addr.Is4, f.Private, public)}, {Family: "IPv6", Have: haveFamily(netip.Addr.Is6, public)}}
	if !w.Offline {
		l.ask(ctx, f)
	}
	return f
}

// shared is the space of carriers that put many customers behind one address (RFC 6598): as private as the others.
var shared = netip.MustParsePrefix("100.64.0.0/10")

func haveFamily(is func(netip.Addr) bool, all ...[]netip.Addr) bool {
	return slices.ContainsFunc(slices.Concat(all...), is)
}

// LowPorts is the first port that anybody may open, by the proc file system.
func LowPorts(proc string) int {
	text, err := os.ReadFile(proc + "/sys/net/ipv4/ip_unprivileged_port_start")
	if n, bad := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && bad == nil {
		return n
	}
	return 1024
}

func (l *Looker) ports(wanted []Service) (all []Port, err error) {
	open, err := proc(l.Proc).listening()
	for _, s := range wanted {
		for _, a := range s.Addrs {
			port := Port{Service: s.Name, Addr: a}
			port.Number, _ = strconv.Atoi(a[strings.LastIndexByte(a, ':')+1:]) // the configuration was checked
			if i := slices.IndexFunc(open, func(s socket) bool { return s.conflicts(a) }); i >= 0 {
				h := proc(l.Proc).holder(open[i].inode)
				port.Holder = &h
			}
			all = append(all, port)
		}
	}
	return all, err
}

// ask asks the DNS and calls others, all at once.
func (l *Looker) ask(ctx context.Context, f *Facts) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var asking sync.WaitGroup
	for i := range f.Addresses {
		asking.Go(func() { l.names(ctx, &f.Addresses[i]) })
		asking.Go(func() { f.Addresses[i].Lists = l.lists(ctx, f.Addresses[i].IP) })
	}
	for i := range f.Out {
		asking.Go(func() { l.reach(ctx, &f.Out[i]) })
	}
	asking.Wait()
}

// names asks what an address is called, and where that leads: RFC 8601 section 3.
func (l *Looker) names(ctx context.Context, a *Address) {
	a.Names, a.NamesErr = l.DNS.PTR(ctx, a.IP)
	for _, name := range a.Names[:min(len(a.Names), maxNames)] {
		if ips, err := l.DNS.IP(ctx, name); err == nil && slices.Contains(ips, a.IP) {
			a.LeadsTo = append(a.LeadsTo, name)
		}
	}
}

func (l *Looker) lists(ctx context.Context, ip netip.Addr) map[string]dnsbl.Listing {
	said := map[string]dnsbl.Listing{}
	for _, list := range dnsbl.Lists {
		if ip.Is6() && !list.IPv6 {
			continue
		}
		found, err := l.DNS.A(ctx, list.Query(ip))
		said[list.Zone] = dnsbl.Read(found)
		if err != nil && !resolve.IsNotFound(err) {
			said[list.Zone] = dnsbl.NotTold
		}
	}
	return said
}

// reach calls one server of each provider.
func (l *Looker) reach(ctx context.Context, r *Reach) {
	if !r.Have {
		return
	}
	var calling sync.WaitGroup
	results := make([]struct {
		known bool
		err   error
	}, len(providers))
	for i, provider := range providers {
		calling.Go(func() {
			server, ok := l.server(ctx, provider, r.Family)
			if ok {
				results[i].known, results[i].err = true, l.Caller.Call(ctx, netip.AddrPortFrom(server, 25))
			}
		})
	}
	calling.Wait()
	for _, result := range results {
		switch {
		case !result.known:
			continue
		case result.err == nil:
			r.Answered++
		case errors.Is(result.err, ErrRefused):
			r.Refused = true
		}
		r.Known++
	}
}

// server finds an address of the provider's first mail server.
func (l *Looker) server(ctx context.Context, provider, family string) (netip.Addr, bool) {
	hosts, err := l.DNS.MX(ctx, provider)
	if err != nil {
		return netip.Addr{}, false
	}
	lookUp := l.DNS.A
	if family == "IPv6" {
		lookUp = l.DNS.AAAA
	}
	for _, h := range hosts[:min(len(hosts), maxNames)] {
		if ips, err := lookUp(ctx, h.Host); err == nil && len(ips) > 0 {
			return ips[0], true
		}
	}
	return netip.Addr{}, false
}
