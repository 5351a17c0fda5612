package accounts

import (
	"container/list"
	"math"
	"net/netip"
	"sync"
	"time"
)

// How many recent failures are too many. A failure counts less as it ages: half after halfLife, so that even somebody
// who is far over a limit is heard again within about a minute and a half.
const (
	maxFromAddress = 5  // one IPv4 address, one IPv6 /64
	maxFromNetwork = 20 // IPv4 /24, IPv6 /48
	maxForAccount  = 10 // from networks that the account never logged in from
	scoreCeiling   = 3  // times the limit; more failures make the wait no longer
	halfLife       = 30 * time.Second
	maxThrottled   = 20_000 // keys in memory
)

// failureKey is what failures are counted for: a network, or the name of an account.
type failureKey struct {
	network netip.Prefix
	account string
}

// throttle counts failed logins.
type throttle struct {
	mu      sync.Mutex // guards what follows
	entries map[failureKey]*list.Element
	recent  *list.List // of *failures, the ones that failed last in front
}

type failures struct {
	key   failureKey
	score float64
	at    time.Time
}

func newThrottle() *throttle {
	return &throttle{entries: make(map[failureKey]*list.Element), recent: list.New()}
}

// scores are the failures that speak against a login.
type scores struct {
	address, network, account float64
	knownNetwork              bool // the account logged in from there before
}

// tooMany decides whether a login is looked at. It is a pure function of what is known.
func tooMany(s scores) bool {
	switch {
	case s.address >= maxFromAddress, s.network >= maxFromNetwork:
		return true
	case s.account >= maxForAccount:
		return !s.knownNetwork
	}
	return false
}

// aged is what a score has become after a while.
func aged(score float64, age time.Duration) float64 {
	return score * math.Exp2(-age.Seconds()/halfLife.Seconds())
}

// networks are the two prefixes that an address is counted under.
func networks(ip netip.Addr) (address, network netip.Prefix) {
	ip = ip.Unmap().WithZone("")
	small, large := 32, 24
	if ip.Is6() {
		small, large = 64, 48
	}
	address, _ = ip.Prefix(small) // an invalid address gives the zero prefix, which is counted as one network
	network, _ = ip.Prefix(large)
	return address, network
}

func (t *throttle) scores(ip netip.Addr, account string) scores {
	address, network := networks(ip)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	return scores{
		address: t.score(failureKey{network: address}, now),
		network: t.score(failureKey{network: network}, now),
		account: t.score(failureKey{account: account}, now),
	}
}

func (t *throttle) score(key failureKey, now time.Time) float64 {
	e, ok := t.entries[key]
	if !ok {
		return 0
	}
	f := e.Value.(*failures)
	return aged(f.score, now.Sub(f.at))
}

// fail counts a failed login.
func (t *throttle) fail(ip netip.Addr, account string) {
	address, network := networks(ip)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.add(failureKey{network: address}, maxFromAddress, now)
	if network != address {
		t.add(failureKey{network: network}, maxFromNetwork, now)
	}
	t.add(failureKey{account: account}, maxForAccount, now)
}

func (t *throttle) add(key failureKey, limit float64, now time.Time) {
	score := min(t.score(key, now)+1, scoreCeiling*limit)
	if e, ok := t.entries[key]; ok {
		e.Value = &failures{key, score, now}
		t.recent.MoveToFront(e)
		return
	}
	if t.recent.Len() >= maxThrottled {
		oldest := t.recent.Remove(t.recent.Back()).(*failures)
		delete(t.entries, oldest.key)
	}
	t.entries[key] = t.recent.PushFront(&failures{key, score, now})
}
