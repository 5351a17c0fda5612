package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/postroom/postroom/internal/config"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/listen"
	"github.com/postroom/postroom/internal/maillog"
)

type serveCommand struct{}

// Run serves until ctx ends. Ports below 1024 need root, so they are opened first; everything after is done as the owner
// of the data directory.
func (serveCommand) Run(ctx context.Context, p *program) error {
	c, err := p.load()
	if err != nil {
		return err
	}
	log, err := maillog.New(p.stderr, c.Log.Level, c.Log.Format)
	if err != nil {
		return err
	}
	given, err := listen.Inherited()
	if err != nil {
		return err
	}
	open, err := openListeners(given, c)
	if err != nil {
		if other := p.lockServer(ctx, c); errors.Is(other, database.ErrServerRuns) {
			return other // the better reason why the ports are taken
		}
		return err
	}
	warning, err := becomeOwner(c.DataDir)
	if err != nil {
		open.close()
		return unsuref("cannot act as the owner of %s: %s", c.DataDir, reason(err))
	}
	running := context.WithoutCancel(ctx) // a signal begins a gentle end, not an abrupt one
	s, err := newServer(running, c, open, surroundings{passwords: p.passwords}, log)
	if err != nil {
		return err
	}
	if warning != "" {
		log.Warn("running as root", "note", warning)
	}
	for _, left := range given.Left() {
		log.Warn("systemd gave a socket that no service of the configuration listens on: it is closed", "socket", left)
	}
	s.Start(running)
	return s.untilTold(ctx)
}

// lockServer tries whether this process could be the server of the data directory.
func (p *program) lockServer(ctx context.Context, c *config.Config) error {
	if _, err := os.Stat(c.DataDir); err != nil {
		return err
	}
	return p.withStores(ctx, func(s *stores) error { return s.db.LockServer() })
}

// untilTold serves until ctx ends or a port fails, then shuts down.
func (s *server) untilTold(ctx context.Context) error {
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)

	s.log.Info(maillog.Ready, "version", version(), "hostname", s.config.Hostname)
	s.ready()
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	s.running.Go(func() { s.watched(watching) })
	err := s.wait(ctx, reload)
	unwatch() // the ports close now; TimeoutStopSec counts from here on
	notify(s.log, daemon.SdNotifyStopping)
	s.log.Info(maillog.Stopping, "patience", patience)

	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	err = errors.Join(err, s.Shutdown(ending))
	s.log.Info(maillog.Stopped)
	return err
}

// wait returns when ctx ends, or with the error of a port that failed.
func (s *server) wait(ctx context.Context, reload <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.failed:
			return err
		case <-reload:
			reloading(s.log)
			s.reload()
			s.ready()
		}
	}
}

// reload reads the certificate again.
func (s *server) reload() {
	if err := s.certificates.Reload(); err != nil {
		s.log.Warn("new certificate refused, the old one is served on", maillog.Err, err)
		return
	}
	s.log.Info("certificate read again", "expires", s.certificates.Expires())
}
