package mailtest

import (
	"bytes"
	"net"
	"sync"
)

// pump reads a connection into memory as soon as anything arrives, so that a server that writes while its client still
// sends is never stuck on net.Pipe, which has no buffer.
type pump struct {
	net.Conn
	done chan struct{}

	mu   sync.Mutex // guards what follows
	more *sync.Cond
	buf  bytes.Buffer
	err  error
}

func newPump(conn net.Conn) *pump {
	p := &pump{Conn: conn, done: make(chan struct{})}
	p.more = sync.NewCond(&p.mu)
	go p.run()
	return p
}

func (p *pump) run() {
	defer close(p.done)
	b := make([]byte, 4096)
	for {
		n, err := p.Conn.Read(b)
		p.mu.Lock()
		p.buf.Write(b[:n])
		p.err = err
		p.more.Broadcast()
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Read returns what has arrived, and waits for it when there is nothing.
func (p *pump) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.buf.Len() == 0 && p.err == nil {
		p.more.Wait()
	}
	if p.buf.Len() > 0 {
		return p.buf.Read(b)
	}
	return 0, p.err
}

// stop closes the connection and waits for the reading goroutine.
func (p *pump) stop() {
	_ = p.Conn.Close() // it may be closed already
	<-p.done
}
