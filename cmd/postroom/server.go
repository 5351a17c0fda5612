package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/auth"
	"github.com/postroom/postroom/auth/spf"
	"github.com/postroom/postroom/delivery"
	"github.com/postroom/postroom/dnscheck"
	"github.com/postroom/postroom/inbound"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/config"
	"github.com/postroom/postroom/internal/limit"
	"github.com/postroom/postroom/internal/listen"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/pop3d"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/retrieval"
	"github.com/postroom/postroom/smtpd"
	"github.com/postroom/postroom/submission"
	"github.com/postroom/postroom/tlsconf"
	"github.com/postroom/postroom/web"
)

const (
	// purgeInterval is how often the mail of accounts that were removed 30 days ago is looked for.
	purgeInterval = 24 * time.Hour
	// patience is how long busy sessions may go on when the server stops.
	patience = 30 * time.Second
)

// The services, by the names of their listeners in the configuration and in systemd's socket units.
const (
	serviceSMTP        = "smtp"
	serviceSubmission  = "submission"
	serviceSubmissions = "submissions"
	servicePOP3        = "pop3"
	servicePOP3S       = "pop3s"
	serviceHTTP        = "http"
	serviceHTTPS       = "https"
	serviceAdmin       = "admin"
)

// listeners are the open ports of each service.
type listeners map[string][]net.Listener

// openListeners opens all ports, or none.
func openListeners(given listen.Sockets, c *config.Config) (listeners, error) {
	all := listeners{}
	for name, addrs := range map[string][]string{
		serviceSMTP: c.Listen.SMTP, serviceSubmission: c.Listen.Submission, serviceSubmissions: c.Listen.Submissions,
		servicePOP3: c.Listen.POP3, servicePOP3S: c.Listen.POP3S,
		serviceHTTP: c.Listen.HTTP, serviceHTTPS: c.Listen.HTTPS, serviceAdmin: c.Listen.Admin,
	} {
		open, err := given.Open(name, addrs)
		if err != nil {
			all.close()
			return nil, err
		}
		proxies := c.Proxy.Prefixes()
		if name == serviceAdmin { // who asks there is on this machine, as a proxy may be, and speaks plain HTTP
			proxies = nil
		}
		for _, l := range open {
			all[name] = append(all[name], listen.Watch(listen.Proxied(listen.Patient(l), proxies)))
		}
	}
	return all, nil
}

func (all listeners) close() {
	for _, open := range all {
		for _, l := range open {
			_ = l.Close() // nothing was accepted yet
		}
	}
}

// engine is what smtpd, pop3d and web have in common.
type engine interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// server is the whole mail server, assembled from its configuration. serve and demo run the same one.
type server struct {
	config       *config.Config
	log          *slog.Logger
	listeners    listeners
	stores       *stores
	certificates *tlsconf.Source
	dns          *resolve.Resolver
	fetching     *retrieval.Handler
	queue        *queue.Queue
	deliverer    *delivery.Deliverer
	metrics      *web.Metrics
	engines      map[string]engine

	failed  chan error // the first port that does not work any more
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// surroundings are what a demonstration or a test replaces. The zero value is the world as it is.
type surroundings struct {
	passwords accounts.Options
	port      uint16 // of other mail servers, which are on this machine; 0: they are elsewhere, on 25
}

// newServer opens and joins everything, and takes the listeners over. Start makes it serve. ctx ends its work at once;
// Shutdown ends it gently.
func newServer(ctx context.Context, c *config.Config, open listeners, around surroundings, log *slog.Logger) (_ *server, err error) {
	metrics := web.NewMetrics(version())
	log = slog.New(metrics.Counting(log.Handler()))
	s := &server{config: c, log: log, metrics: metrics, listeners: open, failed: make(chan error, 1), cancel: func() {}}
	defer func() {
		if err != nil {
			open.close()
			err = errors.Join(err, s.close())
		}
	}()
	if s.stores, err = openStores(ctx, c, around.passwords, log); err != nil {
		return nil, err
	}
	if err := s.stores.db.LockServer(); err != nil {
		return nil, err
	}
	spool, err := emptySpool(c.DataDir)
	if err != nil {
		return nil, err
	}
	if err := s.stores.mailbox.Sweep(ctx); err != nil {
		return nil, fmt.Errorf("sweep the store: %w", err)
	}
	return s, s.assemble(ctx, spool, around)
}

// emptySpool makes the folder for letters that are on their way in. What is left there belongs to no session: the caller
// holds the server's lock.
func emptySpool(dataDir string) (string, error) {
	dir := filepath.Join(dataDir, "spool")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.Mkdir(dir, 0o700)
}

// assemble joins the engines with the stories.
func (s *server) assemble(ctx context.Context, spool string, around surroundings) error {
	c := s.config
	var err error
	if s.dns, err = openResolver(c, s.log); err != nil {
		return err
	}
	receiving, err := inbound.New(inbound.Options{
		Hostname: c.Hostname, Accounts: s.stores.accounts, Mailbox: s.stores.mailbox, DB: s.stores.db, Auth: &auth.Verifier{DNS: s.dns},
		SpoolDir: spool, Reserve: int64(c.Limits.DiskReserve), Log: s.log,
	})
	if err != nil {
		return err
	}
	s.fetching = retrieval.New(ctx, s.stores.accounts, s.stores.mailbox, s.log)
	self := &delivery.Self{Hostname: c.Hostname, Resolver: s.dns, Allows: s.allowedBySPF}
	out := delivery.Options{
		Hostname: c.Hostname, Resolver: s.dns, DB: s.stores.db, Sealer: s.stores.key.For("relay"), IPv6: self.IPv6, Own: self.Own, Log: s.log,
	}
	if around.port != 0 {
		out.Port, out.Own = around.port, func(context.Context, netip.Addr) bool { return false }
	}
	s.deliverer = delivery.New(out)
	alertsTo, _ := addr.Parse(c.Alerts.To) // the configuration was checked, and nothing is nobody
	s.queue, err = queue.New(queue.Options{
		Hostname: c.Hostname, DB: s.stores.db, Deliverer: s.deliverer, Store: queueStore{s.stores}, Signer: queueStore{s.stores}, AlertsTo: alertsTo, Log: s.log,
	})
	if err != nil {
		return err
	}
	certificates, err := s.certificateOptions()
	if err != nil {
		return err
	}
	if s.certificates, err = tlsconf.Open(ctx, certificates); err != nil { // last of what it needs: it begins at once, and a failure is told by mail
		return err
	}
	sending, err := submission.New(submission.Options{
		Hostname: c.Hostname, Accounts: s.stores.accounts, Mailbox: s.stores.mailbox, Queue: s.queue, DB: s.stores.db,
		SpoolDir: spool, Reserve: int64(c.Limits.DiskReserve), Log: s.log,
	})
	if err != nil {
		return err
	}
	connections := limit.NewConnections(limit.ConnectionLimits{
		Total:      c.Limits.Connections,
		Group:      map[string]int{serviceSMTP: c.Limits.Connections * 3 / 4}, // strangers cannot keep owners out
		PerAddress: c.Limits.ConnectionsPerAddress,
		PerAccount: c.Limits.ConnectionsPerAccount,
	})
	letters := smtpd.Limits{MessageSize: int64(c.Limits.MessageSize), Recipients: c.Limits.Recipients}
	s.engines = map[string]engine{
		serviceSubmission: &smtpd.Server{
			Hostname: c.Hostname, Handler: sending, TLS: s.certificates.ForLogins(), TLSReady: s.certificates.Ready, Submission: true, Log: s.log,
			Limits: letters, Connections: connections, Group: serviceSubmission,
		},
		serviceSubmissions: &smtpd.Server{
			Hostname: c.Hostname, Handler: sending, TLS: s.certificates.ForLogins(), Submission: true, ImplicitTLS: true, Log: s.log,
			Limits: letters, Connections: connections, Group: serviceSubmission,
		},
		serviceSMTP: &smtpd.Server{
			Hostname: c.Hostname, Handler: receiving, TLS: s.certificates.ForMX(), Log: s.log,
			Limits: letters, Connections: connections, Group: serviceSMTP,
		},
		servicePOP3: &pop3d.Server{
			Hostname: c.Hostname, Handler: s.fetching, TLS: s.certificates.ForLogins(), TLSReady: s.certificates.Ready, Log: s.log,
			Connections: connections, Group: servicePOP3,
		},
		servicePOP3S: &pop3d.Server{
			Hostname: c.Hostname, Handler: s.fetching, TLS: s.certificates.ForLogins(), ImplicitTLS: true, Log: s.log,
			Connections: connections, Group: servicePOP3,
		},
	}
	return s.assembleWeb(connections)
}

// allowedBySPF tells whether the SPF record of a domain lets an address of this server send its mail.
func (s *server) allowedBySPF(ctx context.Context, ip netip.Addr, from addr.Domain) bool {
	return spf.MailFrom(ctx, s.dns, ip, s.config.Hostname, addr.Path{Address: addr.Address{Local: "postmaster", Domain: from}}).Status == spf.Pass
}

// Start serves until Shutdown.
func (s *server) Start(ctx context.Context) {
	ctx, s.cancel = context.WithCancel(ctx)
	for _, name := range []string{serviceSMTP, serviceSubmission, serviceSubmissions, servicePOP3, servicePOP3S, serviceHTTP, serviceHTTPS, serviceAdmin} {
		for _, l := range s.listeners[name] {
			s.running.Go(func() { s.serve(name, l) })
			s.log.Info(maillog.Listening, maillog.Service, name, maillog.Addr, l.Addr().String())
		}
	}
	for _, note := range s.config.Notes() {
		s.log.Warn("configuration", "note", note)
	}
	s.running.Go(func() { s.checkSeal(ctx) })
	s.running.Go(func() { s.purge(ctx) })
	s.running.Go(func() { s.queue.Run(ctx) })
	s.running.Go(func() { s.deliverer.Run(ctx) })
	s.running.Go(func() { s.watchDNS(ctx) })
	s.running.Go(func() { (&dnscheck.Keys{Accounts: s.stores.accounts, DNS: s.dns, Log: s.log}).Run(ctx) })
}

// serve runs one port. One that fails ends the server: an operator sees that, and a silent port is seen by nobody.
func (s *server) serve(name string, l net.Listener) {
	err := s.engines[name].Serve(l)
	if errors.Is(err, smtpd.ErrServerClosed) || errors.Is(err, pop3d.ErrServerClosed) {
		return
	}
	select {
	case s.failed <- fmt.Errorf("the port %s (%s) failed: %w", l.Addr(), name, err):
	default: // another one failed first
	}
}

// checkSeal tells the operator where secret.key is not the one that the database was used with: nothing can be signed then.
func (s *server) checkSeal(ctx context.Context) {
	err := s.stores.accounts.CheckSeal(ctx)
	if err == nil || ctx.Err() != nil {
		return
	}
	s.log.Error("secret.key does not open the keys in the database: put the right one back, nothing is sent until then", maillog.Err, err)
	s.queue.Alert(ctx, queue.Alert{Title: "secret.key is not the one of this database",
		Text: "Mail is received, and none is taken for sending: it could not be signed.\nPut secret.key back into data_dir, from the copy that was made with the backup, and restart the server."})
}

// purge erases the accounts that were removed 30 days ago, now and then every day.
func (s *server) purge(ctx context.Context) {
	ticker := time.NewTicker(purgeInterval)
	defer ticker.Stop()
	for {
		if err := s.purgeOnce(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("removed accounts not erased", maillog.Err, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (s *server) purgeOnce(ctx context.Context) error {
	ids, err := s.stores.accounts.Expired(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.stores.erase(ctx, id); err != nil {
			return err
		}
		s.log.Info("removed account erased", maillog.Account, id)
	}
	return nil
}

// Shutdown tells idle clients to come back, waits for busy ones until ctx ends, and closes everything.
func (s *server) Shutdown(ctx context.Context) error {
	s.cancel()
	var ending sync.WaitGroup
	for name, e := range s.engines {
		ending.Go(func() {
			if err := e.Shutdown(ctx); err != nil {
				s.log.Warn("sessions were cut off", maillog.Service, name)
			}
		})
	}
	ending.Wait()
	s.running.Wait()
	return s.close()
}

// close closes what newServer opened, in the opposite order. It may be incomplete.
func (s *server) close() (err error) {
	if s.deliverer != nil {
		s.deliverer.Close()
	}
	if s.fetching != nil {
		s.fetching.Close()
	}
	if s.certificates != nil {
		s.certificates.Close()
	}
	if s.dns != nil {
		s.dns.Close()
	}
	if s.stores != nil {
		err = s.stores.close()
	}
	return err
}

// address is where a service listens first.
func (s *server) address(service string) string {
	if open := s.listeners[service]; len(open) > 0 {
		return open[0].Addr().String()
	}
	return ""
}
