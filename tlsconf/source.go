package tlsconf

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Options say where certificates come from.
type Options struct {
	Source   string // "local" or "files"
	CertFile string // of source files: PEM, the server's certificate first
	KeyFile  string
	DataDir  string // of source local: its files are in DataDir/tls
	Hostname string // of source local: the name in the certificate
	Log      *slog.Logger
}

// provider makes the certificate of a source.
type provider interface {
	// changed tells whether load would give something else than the last time it was called.
	changed() bool
	load() (*tls.Certificate, error)
	// interval is how often to ask changed.
	interval() time.Duration
}

// Source is where all ports get their certificate.
type Source struct {
	provider provider
	log      *slog.Logger
	ca       string
	current  atomic.Pointer[tls.Certificate]

	mu      sync.Mutex // one load at a time
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// Open loads the certificate and watches for a new one until Close.
func Open(ctx context.Context, o Options) (*Source, error) {
	s := &Source{log: o.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	switch o.Source {
	case "files":
		s.provider = &files{cert: o.CertFile, key: o.KeyFile}
	case "local":
		l := &local{dir: o.DataDir, hostname: o.Hostname}
		s.provider, s.ca = l, l.path(caCertFile)
	default:
		return nil, fmt.Errorf("tls: there is no certificate source %q", o.Source)
	}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	ctx, s.cancel = context.WithCancel(ctx)
	s.running.Go(func() { s.watch(ctx) })
	return s, nil
}

// Close ends the watch. The certificate stays usable.
func (s *Source) Close() {
	s.cancel()
	s.running.Wait()
}

// CAFile is the certificate that clients must trust, or "" where they trust it already.
func (s *Source) CAFile() string { return s.ca }

// Expires is when the certificate ends.
func (s *Source) Expires() time.Time { return s.current.Load().Leaf.NotAfter }

// Reload loads the certificate anew. Where that fails, the one that is served stays.
func (s *Source) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.provider.load()
	if err == nil && time.Now().After(c.Leaf.NotAfter) {
		err = fmt.Errorf("the certificate ended on %s", c.Leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	s.current.Store(c)
	return nil
}

// watch looks for new files.
func (s *Source) watch(ctx context.Context) {
	ticker := time.NewTicker(s.provider.interval())
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.look()
		case <-ctx.Done():
			return
		}
	}
}

// look loads the certificate if it changed. A broken one is refused once, and looked at again when it changes again.
func (s *Source) look() {
	if !s.provider.changed() {
		return
	}
	if err := s.Reload(); err != nil {
		s.log.Warn("new certificate refused, the old one is served on", "err", err, "expires", s.Expires())
		return
	}
	s.log.Info("new certificate", "expires", s.Expires())
}

// ForMX is the configuration of port 25. Any sender may come, so ECDHE with CBC is kept for old ones: the alternative of a
// sender that is refused is clear text. There are no session tickets: a ticket key that leaks opens old sessions, and
// senders seldom come twice.
func (s *Source) ForMX() *tls.Config {
	c := s.config(append(aeadSuites(),
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
		tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
		tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	))
	c.SessionTicketsDisabled = true
	return c
}

// ForLogins is the configuration of ports where passwords pass: AEAD suites only.
func (s *Source) ForLogins() *tls.Config { return s.config(aeadSuites()) }

// config is TLS 1.2 and up (RFC 8996). The suites are those of TLS 1.2; those of 1.3 are all good.
func (s *Source) config(suites []uint16) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites, GetCertificate: s.getCertificate}
}

// getCertificate gives every client the one certificate, whatever name it asks for: mail programs do not all send one.
func (s *Source) getCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c := s.current.Load()
	if c == nil {
		return nil, errors.New("tls: no certificate")
	}
	return c, nil
}

func aeadSuites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}
