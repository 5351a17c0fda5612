package delivery

import (
	"sync"
	"time"
)

// How long it is remembered that a host cannot do better. In clear only shortly: whoever breaks one handshake on the way must
// not gain a day.
const (
	rememberOld   = 24 * time.Hour
	rememberClear = time.Hour
	maxMemory     = 4096 // hosts
)

// memory knows the hosts whose TLS is broken, so that not every letter tries in vain. It counts only where the policy asks for
// nothing.
type memory struct {
	mu    sync.Mutex // guards hosts
	hosts map[string]memo
}

type memo struct {
	mode  tlsMode
	until time.Time
}

// mode is how to begin with a host.
func (m *memory) mode(t *target) tlsMode {
	if t.policy.need != optional || t.host == "" {
		return anyTLS
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if known, ok := m.hosts[t.host]; ok && time.Now().Before(known.until) {
		return known.mode
	}
	delete(m.hosts, t.host)
	return anyTLS
}

// forget lets the next letter try everything again.
func (m *memory) forget(host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.hosts, host)
}

// learn remembers how a session came about.
func (m *memory) learn(t *target, mode tlsMode) {
	if mode == anyTLS || t.policy.need != optional || t.host == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.hosts[t.host]; known {
		return // its time runs from the first failure
	}
	if len(m.hosts) >= maxMemory {
		clear(m.hosts)
	}
	keep := rememberOld
	if mode == inClear {
		keep = rememberClear
	}
	m.hosts[t.host] = memo{mode, time.Now().Add(keep)}
}
