package resolve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Exchanger sends one query to one server and returns its reply.
type Exchanger interface {
	Exchange(ctx context.Context, server netip.AddrPort, query *dns.Msg, tcp bool) (*dns.Msg, error)
}

const (
	tryTimeout = 3 * time.Second  // for one server
	rounds     = 2                // through all servers
	sickFor    = 30 * time.Second // a server that failed is asked last
	udpSize    = 1232             // octets of a reply that no network breaks into pieces (the DNS flag day of 2020)
)

// serverList is who to ask, the healthy ones first.
type serverList struct {
	mu  sync.Mutex // guards all
	all []serverState
}

type serverState struct {
	addr netip.AddrPort
	sick time.Time // until when
}

// order is the servers as configured, those that failed lately behind the others.
func (l *serverList) order() []netip.AddrPort {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	var healthy, sick []netip.AddrPort
	for _, s := range l.all {
		if now.Before(s.sick) {
			sick = append(sick, s.addr)
		} else {
			healthy = append(healthy, s.addr)
		}
	}
	return append(healthy, sick...)
}

// mark notes how a server did.
func (l *serverList) mark(server netip.AddrPort, failed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.all, func(s serverState) bool { return s.addr == server })
	l.all[i].sick = time.Time{}
	if failed {
		l.all[i].sick = time.Now().Add(sickFor)
	}
}

// exchange asks the servers in turn until one gives a reply that counts. Of the failures it returns the last that a server
// spoke of; that nobody answered only where nobody did.
func (r *Resolver) exchange(ctx context.Context, k key) (*dns.Msg, *Error) {
	failure := k.fail(ErrTimeout, "")
	for range rounds {
		for _, server := range r.servers.order() {
			reply, err := r.try(ctx, server, k, true)
			if err == nil {
				r.servers.mark(server, false)
				return reply, nil
			}
			if ctx.Err() != nil {
				return nil, failure // that it took too long in all says nothing about this server
			}
			// SERVFAIL says something about the name, mostly; silence about the server.
			r.servers.mark(server, errors.Is(err, ErrTimeout))
			if err.Kind == ErrServer || failure.Kind == ErrTimeout {
				failure = err
			}
		}
	}
	return nil, failure
}

// try asks one server, over TCP too where the reply does not fit into a datagram. recurse: it is to find out what it does not know.
func (r *Resolver) try(ctx context.Context, server netip.AddrPort, k key, recurse bool) (*dns.Msg, *Error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	for _, tcp := range []bool{false, true} {
		reply, err := r.Exchange.Exchange(ctx, server, newQuery(k, recurse), tcp)
		switch {
		case err != nil && (ctx.Err() != nil || isTimeout(err)):
			return nil, k.fail(ErrTimeout, server.String())
		case err != nil:
			return nil, k.fail(ErrServer, server.String()+": "+err.Error())
		case !answers(reply, k):
			return nil, k.fail(ErrServer, server.String()+" answered another question")
		case reply.Truncated && !tcp:
			continue
		case reply.Truncated:
			return nil, k.fail(ErrServer, server.String()+": the answer does not fit")
		case reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError:
			return nil, k.fail(ErrServer, server.String()+" says "+dns.RcodeToString[reply.Rcode])
		}
		return reply, nil
	}
	return nil, k.fail(ErrServer, server.String())
}

func isTimeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

func newQuery(k key, recurse bool) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(k.name), k.qtype)
	q.RecursionDesired = recurse
	q.SetEdns0(udpSize, false)
	q.AuthenticatedData = true // RFC 6840 section 5.7: we want to know
	return q
}

// answers tells whether a reply is one to the question: RFC 5452 section 9.1.
func answers(reply *dns.Msg, k key) bool {
	return reply.Response && len(reply.Question) == 1 && reply.Question[0].Qtype == k.qtype &&
		reply.Question[0].Qclass == dns.ClassINET && sameName(reply.Question[0].Name, k.name)
}

// network asks over UDP and TCP. Each query has a port of its own, which the system picks at random: RFC 5452 section 9.2.
type network struct{}

func (network) Exchange(ctx context.Context, server netip.AddrPort, query *dns.Msg, tcp bool) (*dns.Msg, error) {
	client := &dns.Client{Net: "udp", UDPSize: udpSize, Timeout: tryTimeout}
	if tcp {
		client.Net = "tcp"
	}
	reply, _, err := client.ExchangeContext(ctx, query, server.String())
	if err != nil && reply != nil && reply.Truncated && !tcp {
		return reply, nil // what fitted was cut in the middle of a record: TCP has it all
	}
	if err == nil && reply.Id != query.Id {
		return nil, dns.ErrId
	}
	return reply, err
}

// System returns the resolvers of /etc/resolv.conf.
func System() ([]netip.AddrPort, error) { return readResolvConf("/etc/resolv.conf") }

func readResolvConf(path string) ([]netip.AddrPort, error) {
	c, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, err
	}
	var servers []netip.AddrPort
	for _, s := range c.Servers {
		if ip, err := netip.ParseAddr(strings.TrimSpace(s)); err == nil {
			servers = append(servers, netip.AddrPortFrom(ip, 53))
		}
	}
	return servers, nil
}
