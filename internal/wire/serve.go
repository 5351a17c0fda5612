package wire

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("server closed")

// Serving is the listeners and connections of one server, and how they end. The zero value is ready.
type Serving struct {
	mu        sync.Mutex // guards what follows
	started   bool
	closing   bool
	ctx       context.Context
	cancel    context.CancelFunc
	listeners map[net.Listener]struct{}
	conns     map[*Conn]struct{}
	running   sync.WaitGroup
}

// Serve accepts connections and runs serve for each in a goroutine, until the listener fails or the server is closed. It
// closes the listener.
func (s *Serving) Serve(l net.Listener, serve func(net.Conn)) error {
	if !s.listen(l) {
		return errors.Join(ErrServerClosed, l.Close())
	}
	defer s.unlisten(l)
	for {
		c, err := l.Accept()
		if err != nil {
			if s.isClosing() {
				return ErrServerClosed
			}
			return err
		}
		if !s.run(func() { serve(c) }) {
			_ = c.Close() // nobody was told anything yet
			return ErrServerClosed
		}
	}
}

// Add counts a connection among those that a shutdown ends. It returns false when there was one already, and else the
// context of the connection.
func (s *Serving) Add(c *Conn) (ctx context.Context, cancel context.CancelFunc, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start()
	if s.closing {
		return nil, nil, false
	}
	s.conns[c] = struct{}{}
	ctx, cancel = context.WithCancel(s.ctx)
	return ctx, cancel, true
}

// Remove forgets a connection.
func (s *Serving) Remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// Shutdown closes the listeners, wakes idle clients and waits for the busy ones until ctx ends; then it closes them.
func (s *Serving) Shutdown(ctx context.Context) error {
	s.stop(false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.running.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.stop(true)
		<-done
		return ctx.Err()
	}
}

// Close closes the listeners and all connections, whatever they do, and waits for their goroutines.
func (s *Serving) Close() {
	s.stop(true)
	s.running.Wait()
}

func (s *Serving) start() {
	if s.started {
		return
	}
	s.started = true
	// The root of all connections' contexts: it ends with Close, and nothing else may end it.
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.listeners, s.conns = map[net.Listener]struct{}{}, map[*Conn]struct{}{}
}

func (s *Serving) stop(hard bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start()
	s.closing = true
	for l := range s.listeners {
		_ = l.Close() // Accept returns, whatever this says
	}
	for c := range s.conns {
		if hard {
			c.Abort()
		} else {
			c.Wake()
		}
	}
	if hard {
		s.cancel()
	}
}

// run starts a goroutine unless the server is closing; the lock keeps the wait from beginning in between.
func (s *Serving) run(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.running.Go(f)
	return true
}

func (s *Serving) listen(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start()
	if s.closing {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Serving) unlisten(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	_ = l.Close() // it may be closed already
}

func (s *Serving) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// AddrPort is the address of a TCP connection's end, and zero for anything else (a pipe in a test, a Unix socket).
func AddrPort(a net.Addr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
