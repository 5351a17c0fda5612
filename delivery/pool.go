package delivery

import (
	"net/netip"
	"sync"
	"time"
)

// The bounds of connections that are kept for the next letter.
const (
	maxIdle         = 64
	idleTime        = 10 * time.Second
	maxTransactions = 100
	maxSessionAge   = 5 * time.Minute
)

// poolKey is what a connection must have in common with the one that a letter needs.
type poolKey struct {
	host   string
	port   uint16
	six    bool // over IPv6
	source netip.Addr
	policy string
	login  string // of a smarthost, and what changes with it
	pins   string // the TLSA records that the certificate was held against, and the names that it might have

	requireTLS bool // the server offers REQUIRETLS, and may get letters that ask for it
}

// pool keeps idle sessions, and ends all that are not wanted any more.
type pool struct {
	mu      sync.Mutex // guards what follows
	idle    map[poolKey][]*session
	total   int
	closed  bool
	running sync.WaitGroup // of those that take their leave
}

// take returns an idle session, the one used last, or nil.
func (p *pool) take(key poolKey) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.idle[key]
	if len(all) == 0 {
		return nil
	}
	s := all[len(all)-1]
	p.remove(s)
	s.reused = true
	return s
}

// remove takes a session out. The caller holds mu.
func (p *pool) remove(s *session) bool {
	all := p.idle[s.key]
	for i, other := range all {
		if other != s {
			continue
		}
		s.expires.Stop()
		p.total--
		if len(all) == 1 {
			delete(p.idle, s.key)
			return true
		}
		all[i] = all[len(all)-1]
		p.idle[s.key] = all[:len(all)-1]
		return true
	}
	return false
}

// put keeps a session for the next letter, if that is worth while.
func (p *pool) put(s *session) {
	p.mu.Lock()
	worthwhile := !p.closed && p.total < maxIdle && !s.spent() && s.quiet() == nil
	if worthwhile {
		p.total++
		p.idle[s.key] = append(p.idle[s.key], s)
		s.expires = time.AfterFunc(idleTime, func() { p.expire(s) })
	}
	p.mu.Unlock()
	if !worthwhile {
		p.leave(s)
	}
}

// spent tells whether the server has had enough of the session.
func (s *session) spent() bool {
	most := maxTransactions
	if s.ext.mailMax > 0 {
		most = min(most, s.ext.mailMax)
	}
	return s.used >= most || time.Since(s.since) > maxSessionAge
}

func (p *pool) expire(s *session) {
	p.mu.Lock()
	found := p.remove(s)
	p.mu.Unlock()
	if found {
		p.leave(s)
	}
}

// leave takes leave of the server without making anybody wait for that.
func (p *pool) leave(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		s.abort()
		return
	}
	p.running.Go(s.quit)
}

// close takes leave of all servers, and waits for that; what comes back later is cut.
func (p *pool) close() {
	p.mu.Lock()
	var all []*session
	for _, some := range p.idle {
		all = append(all, some...)
	}
	for _, s := range all {
		p.remove(s)
		p.running.Go(s.quit)
	}
	p.closed = true
	p.mu.Unlock()
	p.running.Wait()
}
