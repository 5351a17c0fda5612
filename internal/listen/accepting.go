package listen

import (
	"net"
	"sync"
	"time"
)

// Accepting is a listener that knows whether somebody accepts: a connection to it proves nothing, since the kernel answers
// for a process that hangs.
type Accepting struct {
	net.Listener

	mu   sync.Mutex // guards away
	away time.Time  // since when nobody waits in Accept; zero: somebody does
}

// Watch returns a listener that counts as left alone until Accept is called.
func Watch(l net.Listener) *Accepting { return &Accepting{Listener: l, away: time.Now()} }

// Accept returns the next connection.
func (a *Accepting) Accept() (net.Conn, error) {
	a.set(time.Time{})
	defer func() { a.set(time.Now()) }()
	return a.Listener.Accept()
}

func (a *Accepting) set(away time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away = away
}

// Away is for how long nobody has waited for a connection; 0 while somebody does.
func (a *Accepting) Away() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away.IsZero() {
		return 0
	}
	return time.Since(a.away)
}
