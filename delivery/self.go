package delivery

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/listen"
	"github.com/postroom/postroom/internal/resolve"
)

const (
	// selfTTL is how long what is known of this machine's addresses counts, and selfRetry how long where a part was not found out.
	selfTTL, selfRetry = 10 * time.Minute, time.Minute
	// selfTimeout bounds the look-ups for it, which hold up a letter.
	selfTimeout = 5 * time.Second
	// maxSources bounds the IPv6 addresses that are looked at, and maxReverse the names of one.
	maxSources, maxReverse = 8, 10
)

// Self knows the addresses of this server: which are its own, so that no letter is brought back here, and which of IPv6 letters may
// leave from. Other servers refuse what comes from an IPv6 address without a name, or one that the SPF record of the sender leaves out,
// more often than over IPv4: such an address is not used.
type Self struct {
	Hostname string
	Resolver interface {
		IP(ctx context.Context, name string) ([]netip.Addr, error)
		PTR(ctx context.Context, ip netip.Addr) ([]string, error)
	}
	// Allows tells whether the SPF record of a domain lets an address send its mail.
	Allows func(ctx context.Context, ip netip.Addr, from addr.Domain) bool
	// Interfaces are the addresses of this machine. nil: those that the system says.
	Interfaces func() ([]netip.Addr, error)

	mu      sync.Mutex // guards what follows
	until   time.Time
	looking chan struct{} // somebody looks them up; closed when that has ended
	own     []netip.Addr  // of the interfaces, and what Hostname leads to: behind NAT that is another one
	named   []netip.Addr  // IPv6 addresses with a name that leads back to them
}

// Own tells whether an address is this server's.
func (s *Self) Own(ctx context.Context, ip netip.Addr) bool {
	if ip = ip.Unmap(); ip.IsLoopback() || ip.IsUnspecified() {
		return true
	}
	own, _ := s.addresses(ctx)
	return slices.Contains(own, ip)
}

// IPv6 chooses the address that mail of a domain may leave from. It is an Options.IPv6.
func (s *Self) IPv6(ctx context.Context, from addr.Domain) (source netip.Addr, ok bool) {
	_, named := s.addresses(ctx)
	for _, ip := range named {
		if s.Allows(ctx, ip, from) {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// addresses are those that are known. Where that is long ago, one caller looks them up again, and the others go on with what was known.
func (s *Self) addresses(ctx context.Context) (own, named []netip.Addr) {
	s.mu.Lock()
	known, fresh := !s.until.IsZero(), time.Now().Before(s.until)
	if fresh || known && s.looking != nil {
		defer s.mu.Unlock()
		return s.own, s.named
	}
	if done := s.looking; done != nil {
		s.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.own, s.named
	}
	done := make(chan struct{})
	s.looking = done
	s.mu.Unlock()
	own, named, complete := s.lookUp(context.WithoutCancel(ctx)) // others get what was found, too
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := selfTTL
	if !complete {
		keep = selfRetry
	}
	s.own, s.named, s.until, s.looking = own, named, time.Now().Add(keep), nil
	close(done)
	return own, named
}

// lookUp asks for everything at once, and takes what comes in time.
func (s *Self) lookUp(ctx context.Context) (own, named []netip.Addr, complete bool) {
	ctx, cancel := context.WithTimeout(ctx, selfTimeout)
	defer cancel()
	interfaces := s.Interfaces
	if interfaces == nil {
		interfaces = listen.Addresses
	}
	own, _ = interfaces() // without them, Hostname tells
	var public []netip.Addr
	for _, ip := range own {
		if ip.Is6() && listen.Public(ip) && len(public) < maxSources {
			public = append(public, ip)
		}
	}
	good := make([]bool, len(public))
	var asking sync.WaitGroup
	for i, ip := range public {
		asking.Go(func() { good[i] = s.confirmed(ctx, ip) })
	}
	ips, err := s.Resolver.IP(ctx, s.Hostname)
	asking.Wait()
	for i, ip := range public {
		if good[i] {
			named = append(named, ip)
		}
	}
	return append(own, ips...), named, ctx.Err() == nil && !resolve.IsTemporary(err)
}

// confirmed tells whether a name of the address leads back to it: RFC 8601 section 3.
func (s *Self) confirmed(ctx context.Context, ip netip.Addr) bool {
	names, err := s.Resolver.PTR(ctx, ip)
	if err != nil {
		return false
	}
	for _, name := range names[:min(len(names), maxReverse)] {
		if ips, err := s.Resolver.IP(ctx, name); err == nil && slices.Contains(ips, ip) {
			return true
		}
	}
	return false
}
