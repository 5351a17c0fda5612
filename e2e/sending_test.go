package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/auth/dkim"
	"github.com/postroom/postroom/internal/mailtest"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/smtpd"
)

// sink is a smarthost: it takes letters over TLS, but refuses those to nobody@ for good, and those to later@ the first time.
type sink struct {
	port string

	mu      sync.Mutex // guards what follows
	letters map[string][][]byte
	tries   map[string]int
	slow    time.Duration // before each final reply
	clear   int           // letters that came in clear text
}

func startSink(t *testing.T) *sink {
	t.Helper()
	certificate, _ := mailtest.Certificate(t, "sink.example")
	t.Setenv("SSL_CERT_FILE", file(t, "sink.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})))
	s := &sink{letters: map[string][][]byte{}, tries: map[string]int{}}
	server := &smtpd.Server{Hostname: "sink.example", Handler: s, TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, s.port, _ = net.SplitHostPort(l.Addr().String())
	go server.Serve(l)
	t.Cleanup(server.Close)
	return s
}

func (s *sink) Connect(_ context.Context, c *smtpd.Client) (smtpd.Session, error) {
	return &sinkSession{s, c}, nil
}

type sinkSession struct {
	*sink
	client *smtpd.Client
}

func (s *sinkSession) Hello(context.Context) error { return nil }
func (s *sinkSession) Close()                      {}
func (s *sinkSession) Mail(context.Context, smtpd.Mail) (smtpd.Transaction, error) {
	return &sinkTransaction{sinkSession: s}, nil
}

type sinkTransaction struct {
	*sinkSession
	to []string
}

func (x *sinkTransaction) Rcpt(_ context.Context, r smtpd.Rcpt) error {
	to := r.To.Address.String()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.tries[to]++
	switch {
	case strings.HasPrefix(to, "nobody@"):
		return smtpd.Refuse(550, 1, 1, "nobody of that name")
	case strings.HasPrefix(to, "later@") && x.tries[to] == 1:
		return smtpd.Refuse(451, 7, 1, "come back later")
	}
	x.to = append(x.to, to)
	return nil
}

func (x *sinkTransaction) Data(_ context.Context, body io.Reader) (smtpd.Reply, error) {
	letter, err := io.ReadAll(body)
	if err != nil {
		return smtpd.Reply{}, err
	}
	x.mu.Lock()
	slow := x.slow
	x.mu.Unlock()
	time.Sleep(slow)
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, to := range x.to {
		x.letters[to] = append(x.letters[to], letter)
	}
	if x.client.TLS == nil {
		x.clear++
	}
	return smtpd.NewReply(250, 0, 0, "kept"), nil
}

// has waits until a recipient has so many letters, and returns them.
func (s *sink) has(t *testing.T, to string, n int) [][]byte {
	t.Helper()
	for range 300 {
		s.mu.Lock()
		all := s.letters[to]
		s.mu.Unlock()
		if len(all) >= n {
			return all
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s has fewer than %d letters after 30 s", to, n)
	return nil
}

// keys are the names and the content of the DNS records that `postroom dkim list` says are to be published.
func (s *server) keys(t *testing.T) map[string]string {
	t.Helper()
	var keys []struct{ Name, Record string }
	if err := json.Unmarshal([]byte(s.run(t, "", "dkim", "list", domain, "--json")), &keys); err != nil {
		t.Fatal(err)
	}
	records := map[string]string{}
	for _, k := range keys {
		records[k.Name] = k.Record
	}
	return records
}

// signed verifies the signatures of a letter with those records.
func (s *server) signed(t *testing.T, letter []byte) (good int) {
	t.Helper()
	records := s.keys(t)
	header, err := message.ReadHeader(bytes.NewReader(letter), message.HeaderLimits{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range dkim.Verify(t.Context(), dkim.Letter{Content: bytes.NewReader(letter), Size: int64(len(letter)), Header: header},
		dkim.Options{TXT: func(_ context.Context, name string) ([]string, error) { return []string{records[name]}, nil }}) {
		if r.Status == dkim.Pass {
			good++
		}
	}
	return good
}

// TestSend hands letters in with swaks on both ports, through a smarthost over TLS: signed twice, with nothing of the client in them;
// one is refused and bounces into the sender's mailbox; one is taken at the second try; one recipient is here.
func TestSend(t *testing.T) {
	swaks := program(t, "swaks")
	out := startSink(t)
	s := newServer(t)
	s.run(t, "", "relay", "set", "sink.example", "--port", out.port)
	s.serve(t)
	submit := func(service string, to string) {
		t.Helper()
		host, port := hostPort(t, s.ports[service])
		mode := map[string]string{"submission": "--tls", "submissions": "--tls-on-connect"}[service]
		finish(t, "", swaks, "--server", host, "--port", port, "--helo", "laptop.home.example", mode, "--tls-verify", "--tls-ca-path", s.ca(),
			"--auth", "PLAIN", "--auth-user", anna, "--auth-password", password, "--from", anna, "--to", to,
			"--data", "From: Anna <"+anna+">\nTo: "+to+"\nBcc: secret@far.example\nSubject: hello\n\nbody\n")
	}
	submit("submission", "zoe@far.example")
	submit("submissions", "zoe@far.example,"+anna)
	for _, letter := range out.has(t, "zoe@far.example", 2) {
		if n := s.signed(t, letter); n != 2 {
			t.Errorf("%d good signatures, want 2:\n%s", n, letter)
		}
		for _, never := range []string{"127.0.0.1", "laptop", "secret@", "Bcc"} {
			if bytes.Contains(letter, []byte(never)) {
				t.Errorf("%q leaves in\n%s", never, letter)
			}
		}
	}
	submit("submissions", "nobody@far.example")
	submit("submission", "later@far.example")
	out.tried(t, "later@far.example")
	s.waitQueued(t, "later@far.example", "451 4.7.1 come back later")
	s.run(t, "", "queue", "retry", "--destination", "far.example")
	out.has(t, "later@far.example", 1)

	got, err := fetchAll(s.ports["pop3s"], s.tls(t), anna, password)
	if err != nil || len(got) != 2 {
		t.Fatalf("%d letters, %v; want hers and a bounce", len(got), err)
	}
	if !bytes.Contains(got[0], []byte("Subject: hello\r\n")) || !bytes.Contains(got[1], []byte("Action: failed\r\nStatus: 5.1.1\r\n")) ||
		!bytes.Contains(got[1], []byte("550 5.1.1 nobody of that name")) || !bytes.Contains(got[1], []byte("Return-Path: <>\r\n")) {
		t.Errorf("%s\n\n%s", got[0], got[1])
	}
	if out.clear != 0 {
		t.Errorf("%d letters came in clear text", out.clear)
	}
}

// tried waits until a recipient was tried.
func (s *sink) tried(t *testing.T, to string) {
	t.Helper()
	for range 300 {
		s.mu.Lock()
		n := s.tries[to]
		s.mu.Unlock()
		if n > 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s was not tried within 30 s", to)
}

// waitQueued waits until the queue shows a recipient with this last reply.
func (s *server) waitQueued(t *testing.T, to, reply string) {
	t.Helper()
	list := ""
	for range 100 {
		if list = s.run(t, "", "queue", "list"); strings.Contains(list, "<"+to+">") && strings.Contains(list, reply) && !strings.Contains(list, "nobody@") {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("the queue does not show %s with %q:\n%s", to, reply, list)
}
