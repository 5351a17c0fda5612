package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/limit"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/wire"
	"github.com/postroom/postroom/tlsconf"
	"github.com/postroom/postroom/web"
)

// readiness is the kind of change that a probe writes, to see that something can be written. Nobody watches it.
const readiness = "readiness"

// certificatePatience is how long a scrape waits for the list of certificates.
const certificatePatience = 5 * time.Second

// assembleWeb joins what is served over HTTP: pages and policies for the world, metrics and health for this machine.
func (s *server) assembleWeb(mail *limit.Connections) error {
	site, err := web.NewSite(web.Options{
		Hostname: s.config.Hostname, Ports: s.publicPorts(), Domains: s.stores.accounts, DNS: s.dns, Log: s.log,
	})
	if err != nil {
		return err
	}
	own := limit.NewConnections(web.Limits())
	admin := web.Admin{Metrics: s.metrics.Handler(s.sources(mail, own)), Checks: s.checks()}
	s.engines[serviceHTTP] = &web.Server{Handler: s.certificates.Challenges(site.HTTP()), Connections: own, Group: web.GroupPublic, Log: s.log}
	s.engines[serviceHTTPS] = &web.Server{Handler: site.HTTPS(), TLS: s.certificates.ForHTTPS(), Connections: own, Group: web.GroupPublic, Log: s.log}
	s.engines[serviceAdmin] = &web.Server{Handler: admin.Handler(), Connections: own, Group: web.GroupAdmin, Log: s.log}
	return nil
}

// publicPorts are the ports that mail programs are told.
func (s *server) publicPorts() web.Ports {
	port := func(service string, standard uint16) uint16 {
		var at []netip.AddrPort
		for _, l := range s.listeners[service] {
			at = append(at, wire.AddrPort(l.Addr()))
		}
		return web.PublicPort(at, len(s.config.Proxy.Trusted) > 0, standard)
	}
	return web.Ports{
		POP3S: port(servicePOP3S, 995), POP3: port(servicePOP3, 110), Submissions: port(serviceSubmissions, 465), Submission: port(serviceSubmission, 587),
	}
}

// sources are what each scrape looks at.
func (s *server) sources(mail, own *limit.Connections) web.Sources {
	return web.Sources{
		Queue:        s.queue.Stats,
		Certificates: s.certificatesNow,
		FreeSpace:    s.stores.db.FreeSpace,
		Reserve:      int64(s.config.Limits.DiskReserve),
		Connections: func() map[string]int {
			all := map[string]int{serviceSMTP: 0, serviceSubmission: 0, servicePOP3: 0} // also where none is open
			maps.Copy(all, mail.ByGroup())
			maps.Copy(all, own.ByGroup())
			return all
		},
		Log: s.log,
	}
}

// certificatesNow are the certificates that are served, or should be. Names that do not lead here need none.
func (s *server) certificatesNow() (all []web.Certificate) {
	ctx, cancel := context.WithTimeout(context.Background(), certificatePatience)
	defer cancel()
	known, err := s.certificates.List(ctx)
	if err != nil {
		s.log.Error("certificates not listed", maillog.Err, err)
		return []web.Certificate{{Name: s.config.Hostname, Expires: s.certificates.Expires(), Failing: true}}
	}
	for _, c := range known {
		waiting := c.Expires.IsZero() && c.State != tlsconf.Failed && c.Name != s.config.Hostname
		if c.State != tlsconf.Skipped && !waiting {
			all = append(all, web.Certificate{Name: c.Name, Expires: c.Expires, Failing: c.State == tlsconf.Failed})
		}
	}
	return all
}

// checks say whether the server can do its work.
func (s *server) checks() []web.Check {
	return []web.Check{
		{Name: "database", Run: func(ctx context.Context) error {
			return s.stores.db.Write(ctx, func(tx *database.Tx) error { return tx.Raise(readiness) })
		}},
		{Name: "secret.key", Run: s.stores.accounts.CheckSeal},
		{Name: "certificate", Run: func(context.Context) error { return present(s.certificates.Expires(), time.Now()) }},
		{Name: "disk", Run: func(context.Context) error {
			free, err := s.stores.db.FreeSpace()
			if reserve := int64(s.config.Limits.DiskReserve); err == nil && free < reserve {
				err = fmt.Errorf("%s left, the reserve is %s", size(free), size(reserve))
			}
			return err
		}},
	}
}

// present says what is wrong with a certificate by its end, which is zero where there is none.
func present(end, now time.Time) error {
	switch {
	case end.IsZero():
		return errors.New("there is none")
	case !now.Before(end):
		return fmt.Errorf("it ended on %s", end.UTC().Format(time.RFC3339))
	}
	return nil
}
