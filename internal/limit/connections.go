package limit

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
)

// ErrTooMany is what the errors of Connections have in common. The peer may try again later.
var ErrTooMany = errors.New("too many connections")

// Which limit was reached, for the log.
var (
	ErrTooManyInAll       = fmt.Errorf("%w in all", ErrTooMany)
	ErrTooManyInGroup     = fmt.Errorf("%w of this service", ErrTooMany)
	ErrTooManyFromAddress = fmt.Errorf("%w from this address", ErrTooMany)
	ErrTooManyForAccount  = fmt.Errorf("%w of this account", ErrTooMany)
)

// GroupSMTP is the group of the listeners that strangers send mail to. Its cap leaves room for the owners of accounts when
// strangers take all they can.
const GroupSMTP = "smtp"

// ConnectionLimits are the caps. Zero stands for the default, a negative number for no limit.
type ConnectionLimits struct {
	Total      int            // default 2,000
	Group      map[string]int // of groups of listeners, within Total; nil stands for GroupSMTP with three quarters of Total
	PerAddress int            // not logged in, from one IPv4 address or one IPv6 /64; default 20
	PerAccount int            // logged in; default 10
}

const (
	defaultTotal      = 2000
	defaultPerAddress = 20
	defaultPerAccount = 10
)

// Connections counts the open connections of all listeners.
type Connections struct {
	limits ConnectionLimits

	mu         sync.Mutex // guards the counts below, and the slots
	total      int
	groups     map[string]int
	addresses  map[netip.Prefix]int // not logged in; no entry without connections
	perAccount map[int64]int        // logged in; no entry without connections
}

// NewConnections makes a counter with these caps.
func NewConnections(limits ConnectionLimits) *Connections {
	limits.Total = orDefault(limits.Total, defaultTotal)
	limits.PerAddress = orDefault(limits.PerAddress, defaultPerAddress)
	limits.PerAccount = orDefault(limits.PerAccount, defaultPerAccount)
	if limits.Group == nil {
		limits.Group = map[string]int{GroupSMTP: limits.Total - limits.Total/4} // 1,500 of 2,000
	}
	limits.Group = maps.Clone(limits.Group)
	return &Connections{
		limits:     limits,
		groups:     make(map[string]int),
		addresses:  make(map[netip.Prefix]int),
		perAccount: make(map[int64]int),
	}
}

func orDefault(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// Slot is one counted connection. It belongs to one Connections for its whole life:
//
//	Acquire --> not logged in, counted for its address --LogIn--> counted for its account --Release--> gone
//
// A nil Slot counts nothing, and all its methods work.
type Slot struct {
	c       *Connections
	group   string
	network netip.Prefix // counted here while not logged in; not valid when the address is unknown

	loggedIn bool  // guarded by c.mu, like what follows
	account  int64 // counted here while logged in
	released bool
}

// Acquire counts a new connection from ip. An invalid ip, of a connection that is not TCP, is not counted by address. A nil
// Connections has no limits and gives a nil Slot.
func (c *Connections) Acquire(group string, ip netip.Addr) (*Slot, error) {
	if c == nil {
		return nil, nil
	}
	s := &Slot{c: c, group: group, network: Network(ip)}
	c.mu.Lock()
	defer c.mu.Unlock()
	groupLimit, grouped := c.limits.Group[group]
	switch {
	case reached(c.total, c.limits.Total):
		return nil, ErrTooManyInAll
	case grouped && reached(c.groups[group], groupLimit):
		return nil, ErrTooManyInGroup
	case s.network.IsValid() && reached(c.addresses[s.network], c.limits.PerAddress):
		return nil, ErrTooManyFromAddress
	}
	c.total++
	c.groups[group]++
	if s.network.IsValid() {
		c.addresses[s.network]++
	}
	return s, nil
}

func reached(n, limit int) bool { return limit >= 0 && n >= limit }

// Network is the unit in which addresses are counted: an IPv4 address, or an IPv6 /64, which is what one customer gets.
// IPv4 inside IPv6 is IPv4. The Prefix of an invalid address is not valid.
func Network(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	network, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return network
}

// LogIn moves the connection from the count of its address to that of its account. When the account has too many, the
// connection stays where it was.
func (s *Slot) LogIn(account int64) error {
	if s == nil {
		return nil
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	switch {
	case s.released || s.loggedIn && s.account == account:
		return nil
	case reached(s.c.perAccount[account], s.c.limits.PerAccount):
		return ErrTooManyForAccount
	}
	s.leaveLocked()
	s.loggedIn, s.account = true, account
	s.c.perAccount[account]++
	return nil
}

// Release ends the connection. It may be called again.
func (s *Slot) Release() {
	if s == nil {
		return
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.released {
		return
	}
	s.released = true
	s.leaveLocked()
	s.c.total--
	decrement(s.c.groups, s.group)
}

// leaveLocked takes the connection out of the count of its account or address.
func (s *Slot) leaveLocked() {
	switch {
	case s.loggedIn:
		decrement(s.c.perAccount, s.account)
	case s.network.IsValid():
		decrement(s.c.addresses, s.network)
	}
}

// decrement leaves no entry behind for a count of zero: the keys come from outside.
func decrement[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

// ByGroup is how many connections are open in each group that has any, or a cap.
func (c *Connections) ByGroup() map[string]int {
	all := map[string]int{}
	if c == nil {
		return all
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for group := range c.limits.Group {
		all[group] = 0
	}
	maps.Copy(all, c.groups)
	return all
}

// Open is how many connections are open in all.
func (c *Connections) Open() int {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}
