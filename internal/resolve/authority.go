package resolve

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of asking authoritative servers.
const (
	maxReferrals     = 5
	maxNameservers   = 13 // of one zone
	maxAddresses     = 4  // of one server that are tried
	authorityTimeout = 20 * time.Second
)

// Testimony is what one authoritative server says.
type Testimony struct {
	Server string // its name
	Answer Answer
	Err    error // *Error, as Lookup's
}

// nameserver is an authoritative server, and what a referral said of its addresses.
type nameserver struct {
	name string
	glue []netip.Addr
}

// Authoritative asks every authoritative server of a name itself, past all caches: what they say is what the world will see once it
// has forgotten what was there before. The resolvers are asked only for names that lead to these servers: one that does not
// exist yet would be remembered as missing. It fails where the servers cannot be found.
func (r *Resolver) Authoritative(ctx context.Context, name string, qtype uint16) ([]Testimony, error) {
	ctx, cancel := context.WithTimeout(ctx, authorityTimeout)
	defer cancel()
	k := key{plain(name), qtype}
	if !validName(k.name) {
		return nil, k.fail(ErrNotFound, "not a name")
	}
	zone, servers, err := r.startingZone(ctx, k)
	if err != nil {
		return nil, err
	}
	for range maxReferrals {
		// One server leads on; only those who know are asked one and all.
		below, err := r.leadsOn(ctx, zone, servers, k)
		if err != nil {
			return nil, err
		}
		if below != nil {
			zone, servers = below.zone, below.servers
			r.remember(zone, servers)
			continue
		}
		var all []Testimony
		if all, below = r.askEach(ctx, zone, servers, k); below == nil {
			return all, nil
		}
		zone, servers = below.zone, below.servers
	}
	return nil, k.fail(ErrServer, "too many referrals")
}

// leadsOn asks one server after the other until one answers, and returns where it sends us. A top-level domain that knows of no such
// name ends the search.
func (r *Resolver) leadsOn(ctx context.Context, zone string, servers []nameserver, k key) (below *referral, err error) {
	if strings.Contains(zone, ".") && !strings.Contains(zone, "arpa") {
		return nil, nil // below a top-level domain most know themselves
	}
	for _, s := range servers[:min(len(servers), maxAddresses)] {
		t, below := r.askServer(ctx, zone, s, k)
		switch {
		case below != nil:
			return below, nil
		case IsNotFound(t.Err) && !strings.Contains(zone, "."):
			return nil, k.fail(ErrNotFound, "it is not delegated")
		case !IsTemporary(t.Err):
			return nil, nil
		}
	}
	return nil, nil
}

// delegation is where a zone is, for a moment: many names of one zone are asked for together.
type delegation struct {
	servers []nameserver
	until   time.Time
}

const (
	delegationTTL  = 30 * time.Second
	maxDelegations = 1000
)

func (r *Resolver) remember(zone string, servers []nameserver) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.delegations == nil || len(r.delegations) >= maxDelegations {
		r.delegations = map[string]delegation{}
	}
	r.delegations[zone] = delegation{servers, time.Now().Add(delegationTTL)}
}

// delegated returns the closest zone of a name whose servers were found just now.
func (r *Resolver) delegated(name string) (zone string, servers []nameserver, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for zone, more := name, true; more; _, zone, more = strings.Cut(zone, ".") {
		if d, known := r.delegations[zone]; known && time.Now().Before(d.until) {
			return zone, d.servers, true
		}
	}
	return "", nil, false
}

// startingZone finds a zone that the name is below: its top-level domain, whose servers say who is in charge now, while resolvers may
// remember for days who was before. Where the resolver knows no top-level domain, that of the last two labels.
func (r *Resolver) startingZone(ctx context.Context, k key) (zone string, servers []nameserver, err error) {
	if zone, servers, ok := r.delegated(k.name); ok {
		return zone, servers, nil
	}
	labels := strings.Split(k.name, ".")
	for n := 1; n <= min(2, len(labels)); n++ {
		zone = strings.Join(labels[len(labels)-n:], ".")
		var a Answer
		if a, err = r.Lookup(ctx, zone, dns.TypeNS); err == nil {
			return zone, nameservers(a.Records, nil), nil
		}
	}
	return "", nil, err
}

// nameservers reads NS records, and the addresses that came with them.
func nameservers(records, extra []dns.RR) (all []nameserver) {
	for _, rr := range records {
		ns, ok := rr.(*dns.NS)
		if !ok || len(all) == maxNameservers {
			continue
		}
		s := nameserver{name: plain(ns.Ns)}
		for _, rr := range extra {
			if sameName(rr.Header().Name, s.name) {
				s.glue = append(s.glue, addresses([]dns.RR{rr})...)
			}
		}
		all = append(all, s)
	}
	return all
}

// referral sends to the servers of a zone further down.
type referral struct {
	zone    string
	servers []nameserver
}

// askEach asks all servers of a zone at once. It returns what they say, or where they send us.
func (r *Resolver) askEach(ctx context.Context, zone string, servers []nameserver, k key) ([]Testimony, *referral) {
	all, sent := make([]Testimony, len(servers)), make([]*referral, len(servers))
	var asking sync.WaitGroup
	for i, s := range servers {
		asking.Go(func() { all[i], sent[i] = r.askServer(ctx, zone, s, k) })
	}
	asking.Wait()
	for _, below := range sent {
		if below != nil {
			return nil, below
		}
	}
	return all, nil
}

// askServer asks one server, at the first of its addresses that answers.
func (r *Resolver) askServer(ctx context.Context, zone string, s nameserver, k key) (Testimony, *referral) {
	t := Testimony{Server: s.name}
	ips := s.glue
	if len(ips) == 0 {
		var err error
		if ips, err = r.IP(ctx, s.name); err != nil {
			t.Err = k.fail(ErrServer, "the address of "+s.name+" was not found") // which says nothing about the name
			return t, nil
		}
	}
	var reply *dns.Msg
	ips = ips[:min(len(ips), maxAddresses)]
	for range rounds { // one lost datagram says nothing
		for _, ip := range ips {
			var failed *Error
			if reply, failed = r.try(ctx, netip.AddrPortFrom(ip, r.AuthorityPort), k, false); failed == nil {
				break
			}
			t.Err = failed
		}
		if reply != nil || t.Err != nil && !errors.Is(t.Err, ErrTimeout) {
			break
		}
	}
	switch {
	case reply == nil:
	case reply.Authoritative:
		t.Answer, t.Err = r.readAuthoritative(ctx, reply, k)
	default:
		if below := readReferral(reply, zone, k.name); below != nil {
			return t, below
		}
		t.Err = k.fail(ErrServer, s.name+" does not know the zone that it is named for")
	}
	return t, nil
}

// readAuthoritative reads the reply of a server that knows. Where it ends in an alias in another zone, the resolvers go on.
func (r *Resolver) readAuthoritative(ctx context.Context, reply *dns.Msg, k key) (Answer, error) {
	c := chain{question: k, name: k.name, ttl: maxTTL}
	if c.follow(reply, false) {
		return c.outcome().result()
	}
	return r.Lookup(ctx, c.name, k.qtype)
}

// readReferral finds the delegation that leads from a zone towards a name, RFC 1034 section 4.3.2.
func readReferral(reply *dns.Msg, zone, name string) *referral {
	var below string
	records := slices.DeleteFunc(slices.Clone(reply.Ns), func(rr dns.RR) bool {
		owner := plain(rr.Header().Name)
		closer := isBelow(owner, zone) && (owner == name || isBelow(name, owner))
		if rr.Header().Rrtype != dns.TypeNS || !closer {
			return true
		}
		below = owner
		return false
	})
	if below == "" {
		return nil
	}
	return &referral{below, nameservers(records, reply.Extra)}
}

// isBelow tells whether a name is below another one.
func isBelow(name, above string) bool { return strings.HasSuffix(name, "."+above) }
