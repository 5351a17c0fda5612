package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/postroom/postroom/internal/maillog"
)

// maxAway is for how long a port may have nobody who accepts: the loop is away for microseconds between two connections.
const maxAway = 5 * time.Second

// notify tells systemd, where it asked for it.
func notify(log *slog.Logger, states ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(states, "\n")); err != nil {
		log.Warn("systemd was not told", "state", states, maillog.Err, err)
	}
}

// reloading tells systemd that a reload has begun; READY=1 ends it. The time is what Type=notify-reload asks for.
func reloading(log *slog.Logger) {
	notify(log, daemon.SdNotifyReloading, daemon.SdNotifyMonotonicUsec())
}

// ready tells systemd that the server serves, and `systemctl status` what.
func (s *server) ready() {
	var ports []string
	for name := range s.listeners {
		ports = append(ports, name)
	}
	slices.Sort(ports)
	status := "STATUS=serving " + strings.Join(ports, ", ")
	if until := s.certificates.Expires(); !until.IsZero() {
		status += "; certificate until " + until.Format(time.DateOnly)
	}
	notify(s.log, daemon.SdNotifyReady, status)
}

// watched reports to systemd's watchdog until ctx ends, where there is one.
func (s *server) watched(ctx context.Context) {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("systemd's watchdog gets no answer", maillog.Err, err)
	}
	if err == nil && within > 0 {
		watchdog(ctx, s.log, within, s.alive, func() { notify(s.log, daemon.SdNotifyWatchdog) })
	}
}

// watchdog calls ping twice in each period for as long as the server is alive. One that hangs is not pinged for, and
// systemd starts another.
func watchdog(ctx context.Context, log *slog.Logger, within time.Duration, alive func(context.Context) error, ping func()) {
	ticker := time.NewTicker(within / 2)
	defer ticker.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, within/2)
		err := alive(asking)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.Error("the server does not answer, and systemd is not told that it does", maillog.Err, err)
		default:
			ping()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// alive tells whether the server can do its work: the database answers, and somebody accepts on every port.
func (s *server) alive(ctx context.Context) error {
	for name, open := range s.listeners {
		for _, l := range open {
			if w, ok := l.(interface{ Away() time.Duration }); ok && w.Away() > maxAway {
				return fmt.Errorf("nobody has accepted on %s (%s) for %s", l.Addr(), name, w.Away().Round(time.Second))
			}
		}
	}
	return s.stores.db.Alive(ctx)
}
