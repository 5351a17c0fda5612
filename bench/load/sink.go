package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"

	"github.com/postroom/postroom/smtpd"
)

// Sink is a server at the end of the way. It takes letters as fast as it can, and keeps of each only that it came.
type Sink struct {
	Certificate []byte // PEM
	server      *smtpd.Server
	refuses     bool

	mu       sync.Mutex // guards what follows
	gate     chan struct{}
	open     bool
	first    int   // the id of the first letter that is expected
	came     []int // how often each came
	missing  int
	all      chan struct{} // closed when none is missing
	clear    int           // letters that came in clear text
	strange  error         // the first letter that nobody expected, or that came twice
	attempts int           // transactions begun
}

// NewSink makes a sink whose certificate has these names. One that refuses takes no letter now: it asks to come back later.
func NewSink(refuses bool, names ...string) (*Sink, error) {
	certificate, key, err := Certificate(names...)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	s := &Sink{Certificate: certificate, refuses: refuses, gate: make(chan struct{})}
	s.server = &smtpd.Server{Hostname: names[0], Handler: s, TLS: &tls.Config{Certificates: []tls.Certificate{pair}}}
	return s, nil
}

// Listen serves on an address until Close, and returns the port.
func (s *Sink) Listen(addr string) (port string, err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	go s.server.Serve(l)
	_, port, err = net.SplitHostPort(l.Addr().String())
	return port, err
}

// Close ends it.
func (s *Sink) Close() { s.server.Close() }

// Expect begins a run: letters with these ids are to come, and MAIL is not answered until Open.
func (s *Sink) Expect(first, count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open {
		s.gate, s.open = make(chan struct{}), false
	}
	s.first, s.came, s.missing, s.all = first, make([]int, count), count, make(chan struct{})
	s.clear, s.strange = 0, nil
}

// Open lets letters in.
func (s *Sink) Open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		s.open = true
		close(s.gate)
	}
}

// Wait returns when all that was expected has come, once each.
func (s *Sink) Wait(ctx context.Context) error {
	select {
	case <-s.all:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.strange == nil && s.missing > 0 {
		return fmt.Errorf("%d of %d letters have not come: %w", s.missing, len(s.came), ctx.Err())
	}
	return s.strange
}

// Clear is how many letters of this run came in clear text.
func (s *Sink) Clear() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clear
}

// Attempts is how many transactions were begun, ever.
func (s *Sink) Attempts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attempts
}

// begun counts a transaction, and returns its gate.
func (s *Sink) begun() (gate <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts++
	return s.gate
}

// Connect implements smtpd.Handler.
func (s *Sink) Connect(_ context.Context, c *smtpd.Client) (smtpd.Session, error) {
	return &arrival{s, c}, nil
}

// arrival is a connection and its transactions.
type arrival struct {
	sink   *Sink
	client *smtpd.Client
}

func (*arrival) Hello(context.Context) error { return nil }
func (*arrival) Close()                      {}

// Mail waits for the gate: whoever has come as far as this has nothing else to wait for.
func (a *arrival) Mail(ctx context.Context, _ smtpd.Mail) (smtpd.Transaction, error) {
	gate := a.sink.begun()
	if a.sink.refuses {
		return nil, smtpd.Refuse(451, 7, 1, "come back later")
	}
	select {
	case <-gate:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (*arrival) Rcpt(context.Context, smtpd.Rcpt) error { return nil }

// heads is memory for the beginnings of letters, in which their ids are.
var heads = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// Data reads a letter to its end.
func (a *arrival) Data(_ context.Context, body io.Reader) (smtpd.Reply, error) {
	head := heads.Get().(*[32 << 10]byte)
	defer heads.Put(head)
	n, err := io.ReadFull(body, head[:])
	if err == nil {
		_, err = io.Copy(io.Discard, body)
	}
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return smtpd.Reply{}, err
	}
	a.sink.take(letterID(head[:n]), a.client.TLS != nil)
	return smtpd.NewReply(250, 0, 0, "kept"), nil
}

// letterID finds the id in a letter's header; -1 is that of a letter without one.
func letterID(letter []byte) int {
	_, rest, found := bytes.Cut(letter, []byte("\n"+idField))
	if !found && bytes.HasPrefix(letter, []byte(idField)) {
		rest, found = letter[len(idField):], true
	}
	text, _, _ := bytes.Cut(rest, []byte("\r"))
	id, err := strconv.Atoi(string(text))
	if err != nil || !found {
		return -1
	}
	return id
}

// take counts a letter.
func (s *Sink) take(id int, secure bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !secure {
		s.clear++
	}
	at := id - s.first
	switch {
	case at < 0 || at >= len(s.came):
		s.fail(fmt.Errorf("letter %d came, which was not sent in this run", id))
		return
	case s.came[at] > 0:
		s.fail(fmt.Errorf("letter %d came twice", id))
	case s.missing == 1:
		close(s.all)
	}
	if s.came[at]++; s.came[at] == 1 {
		s.missing--
	}
}

// fail remembers the first failure. The caller holds mu.
func (s *Sink) fail(err error) {
	if s.strange == nil {
		s.strange = err
	}
}
