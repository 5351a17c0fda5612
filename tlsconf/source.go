package tlsconf

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3"
)

// Options say where certificates come from.
type Options struct {
	Source   string // "acme", "local" or "files"
	CertFile string // of source files: PEM, the server's certificate first
	KeyFile  string
	DataDir  string // of source local: its files are in DataDir/tls
	Hostname string // of sources local and acme: the name in the certificate
	ACME     ACME   // of source acme
	Log      *slog.Logger
}

// ErrNoCertificate says that there is no certificate yet. Login ports begin no TLS then.
var ErrNoCertificate = errors.New("tls: there is no certificate yet: `postroom cert list` says why")

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
	provider provider    // nil for source acme
	acme     *acmeSource // nil for the others
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
	case "acme":
		if err := s.openACME(ctx, o); err != nil {
			return nil, err
		}
		return s, nil
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

// openACME begins to look after certificates. It does not wait for the first: mail is taken without.
func (s *Source) openACME(ctx context.Context, o Options) (err error) {
	if s.acme, err = newACME(ctx, o.Hostname, o.ACME, s.log); err != nil {
		return err
	}
	if !s.Ready() {
		s.log.Warn("no certificate yet: login ports begin no TLS, and port 25 has one that was made here", "hostname", o.Hostname)
	}
	ctx, s.cancel = context.WithCancel(ctx)
	s.running.Go(func() { s.acme.run(ctx) })
	return nil
}

// Close ends the watch. The certificate stays usable.
func (s *Source) Close() {
	s.cancel()
	s.running.Wait()
}

// CAFile is the certificate that clients must trust, or "" where they trust it already.
func (s *Source) CAFile() string { return s.ca }

// host is the certificate of the host name, or nil.
func (s *Source) host() *tls.Certificate {
	if s.acme != nil {
		return s.acme.served.Load().host
	}
	return s.current.Load()
}

// Ready tells whether there is a certificate that login ports can show.
func (s *Source) Ready() bool { return s.host() != nil }

// Expires is when the certificate of the host name ends; zero where there is none.
func (s *Source) Expires() time.Time {
	if c := s.host(); c != nil {
		return c.Leaf.NotAfter
	}
	return time.Time{}
}

// List is what is known of all certificates: one, where they do not come from an authority.
func (s *Source) List(ctx context.Context) ([]Status, error) {
	if s.acme != nil {
		return s.acme.store.List(ctx)
	}
	leaf := s.current.Load().Leaf
	one := Status{State: Good, Issuer: issuerOf(leaf), Expires: leaf.NotAfter, Keys: []Key{{TLSA: tlsaOf(leaf.PublicKey)}}}
	if len(leaf.DNSNames) > 0 {
		one.Name = leaf.DNSNames[0]
	}
	return []Status{one}, nil
}

// Keys are the keys of the host name, whose TLSA records its port 25 needs.
func (s *Source) Keys(ctx context.Context) ([]Key, error) {
	if s.acme != nil {
		return s.acme.store.Keys(ctx, s.acme.hostname)
	}
	return []Key{{TLSA: tlsaOf(s.current.Load().Leaf.PublicKey)}}, nil
}

// Reload loads the certificate anew. Where that fails, the one that is served stays.
func (s *Source) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acme != nil {
		s.acme.look()
		return nil
	}
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
	c.GetCertificate = s.getForMX
	return c
}

// ForLogins is the configuration of ports where passwords pass: AEAD suites only.
func (s *Source) ForLogins() *tls.Config { return s.config(aeadSuites()) }

// ForHTTPS is the configuration of the web port, where an authority may also ask for the certificate of a challenge (RFC 8737).
func (s *Source) ForHTTPS() *tls.Config {
	c := s.config(aeadSuites())
	c.NextProtos = []string{"h2", "http/1.1"}
	if s.acme != nil {
		c.NextProtos = append(c.NextProtos, acmez.ACMETLS1Protocol)
		c.GetCertificate = s.getForHTTPS
	}
	return c
}

// Challenges puts the answers to HTTP-01 challenges before the handler of port 80. They must not be redirected to a name whose
// certificate is not there yet.
func (s *Source) Challenges(next http.Handler) http.Handler {
	if s.acme == nil {
		return next
	}
	return s.acme.challenges(next)
}

// config is TLS 1.2 and up (RFC 8996). The suites are those of TLS 1.2; those of 1.3 are all good.
func (s *Source) config(suites []uint16) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites, GetCertificate: s.getCertificate}
}

// getCertificate gives a client the certificate of the name that it asks for, else that of the host: mail programs do not all send one.
func (s *Source) getCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s.acme != nil {
		if c := s.acme.named(hello.ServerName); c != nil {
			return c, nil
		}
	}
	if c := s.host(); c != nil {
		return c, nil
	}
	return nil, ErrNoCertificate
}

// getForMX falls back to a certificate that was made here. Senders that ask for no name they know take any (RFC 7435), and its key is the
// one whose TLSA record may be published already, so that DANE holds from the first letter on.
func (s *Source) getForMX(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c, err := s.getCertificate(hello)
	if err != nil && s.acme != nil {
		if made := s.acme.served.Load().interim; made != nil {
			return made, nil
		}
	}
	return c, err
}

// getForHTTPS answers challenges, too.
func (s *Source) getForHTTPS(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if isALPN(hello) {
		return s.acme.challengeCertificate(hello)
	}
	return s.getCertificate(hello)
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
