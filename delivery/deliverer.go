package delivery

import (
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/queue"
)

// Resolver answers questions to the DNS; *resolve.Resolver does.
type Resolver interface {
	Exchangers(ctx context.Context, name string) (resolve.Exchangers, error)
	Addresses(ctx context.Context, name string) (resolve.Addresses, error)
	TLSA(ctx context.Context, name string) (records []resolve.TLSA, secure bool, err error)
	TXT(ctx context.Context, name string) ([]string, error)
}

var _ Resolver = (*resolve.Resolver)(nil)

// Sealer seals the logins at smarthosts; *secret.Sealer does.
type Sealer interface {
	Seal(plain []byte) ([]byte, error)
	Open(sealed []byte) ([]byte, error)
}

// Options are a Deliverer's surroundings. Only Hostname and Resolver are required.
type Options struct {
	Hostname string // that EHLO says
	Resolver Resolver
	DB       *database.DB // of smarthosts and MTA-STS policies; nil: there are none
	Sealer   Sealer       // required with a DB
	Roots    *x509.CertPool
	Log      *slog.Logger

	// IPv6 tells whether a letter of this domain may leave over IPv6, and from which address: one with reverse DNS that is
	// confirmed, and that the SPF record of the domain allows: Self.IPv6. nil: none may. Smarthosts are asked for a login instead.
	IPv6 func(ctx context.Context, from addr.Domain) (source netip.Addr, ok bool)
	// Own and OwnName tell whether an address or a host name is this server's. nil: the loopback is, and Hostname.
	Own     func(ctx context.Context, ip netip.Addr) bool
	OwnName func(string) bool

	// Dial opens a TCP connection, from source where that is valid. nil: the network.
	Dial      func(ctx context.Context, source netip.Addr, to netip.AddrPort) (net.Conn, error)
	Port      uint16 // of exchangers: 25
	HTTPSPort uint16 // of MTA-STS policies: 443
}

// Deliverer hands letters to other servers. It implements queue.Deliverer, and may be used by many goroutines.
type Deliverer struct {
	Options
	relays  *Smarthosts // nil: there are none
	sts     *stsCache   // nil: MTA-STS is not used
	memory  memory
	pool    pool
	buffers sync.Pool
}

var _ queue.Deliverer = (*Deliverer)(nil)

// New returns a Deliverer. Close ends its idle connections.
func New(o Options) *Deliverer {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Own == nil {
		o.Own = func(_ context.Context, ip netip.Addr) bool { return ip.IsLoopback() || ip.IsUnspecified() }
	}
	if o.OwnName == nil {
		o.OwnName = func(name string) bool { return strings.EqualFold(name, o.Hostname) }
	}
	if o.Dial == nil {
		o.Dial = dial
	}
	if o.Port == 0 {
		o.Port = 25
	}
	if o.HTTPSPort == 0 {
		o.HTTPSPort = 443
	}
	d := &Deliverer{
		Options: o,
		memory:  memory{hosts: map[string]memo{}},
		pool:    pool{idle: map[poolKey][]*session{}},
		buffers: sync.Pool{New: newBuffers},
	}
	if o.DB != nil {
		d.relays = NewSmarthosts(o.DB, o.Sealer)
		d.sts = newSTSCache(o)
	}
	return d
}

func dial(ctx context.Context, source netip.Addr, to netip.AddrPort) (net.Conn, error) {
	var dialer net.Dialer
	if source.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	return dialer.DialContext(ctx, "tcp", to.String())
}

// Close takes leave of the servers whose connections are idle. Deliver still works, without keeping any.
func (d *Deliverer) Close() {
	d.pool.close()
	if d.relays != nil {
		d.relays.Close()
	}
}

// Run fetches MTA-STS policies again before they expire, until ctx ends. RFC 8461 section 3.3.
func (d *Deliverer) Run(ctx context.Context) {
	if d.sts != nil {
		d.sts.run(ctx)
	}
}

// Destination implements queue.Deliverer.
func (d *Deliverer) Destination(ctx context.Context, l queue.Letter, to addr.Path) (string, error) {
	r, err := d.route(ctx, l, to)
	return r.destination(), err
}

// Deliver implements queue.Deliverer. What was one destination when the letter was claimed may be several now, when the
// operator has changed the smarthosts meanwhile.
func (d *Deliverer) Deliver(ctx context.Context, l queue.Letter, to []queue.Recipient, open func(context.Context) (io.ReadCloser, error)) []queue.Outcome {
	outcomes := make([]queue.Outcome, len(to))
	var order []string
	routes, groups := map[string]route{}, map[string][]int{}
	for i, recipient := range to {
		r, err := d.route(ctx, l, recipient.To)
		if err != nil {
			d.Log.Error("smarthosts cannot be read", maillog.Msg, l.ID.String(), maillog.Err, err)
			outcomes[i] = local("4.3.0", "the smarthosts could not be read here").Outcome
			continue
		}
		key := r.destination()
		if _, known := routes[key]; !known {
			order = append(order, key)
		}
		routes[key], groups[key] = r, append(groups[key], i)
	}
	for _, key := range order {
		a := &attempt{d: d, letter: l, to: to, open: open, outcomes: outcomes, pending: groups[key], until: time.Now().Add(searchTimeout)}
		a.follow(ctx, routes[key])
		a.finish()
	}
	return outcomes
}
