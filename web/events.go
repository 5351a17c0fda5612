package web

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/maillog"
)

// Counting returns a log handler that counts the events of letters and logins on their way to next: what an operator reads
// and what a graph shows cannot differ. It counts events that next does not want to see, too.
func (m *Metrics) Counting(next slog.Handler) slog.Handler { return &counting{next: next, metrics: m} }

// counting knows the service of its logger.
type counting struct {
	next    slog.Handler
	metrics *Metrics
	service string
	grouped bool // attributes that follow are in a group, and none of ours
}

// Enabled tells whether anybody wants lines of the level: events are at Info.
func (c *counting) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || c.next.Enabled(ctx, level)
}

// WithAttrs keeps the service.
func (c *counting) WithAttrs(attrs []slog.Attr) slog.Handler {
	child := *c
	child.next = c.next.WithAttrs(attrs)
	if !c.grouped {
		for _, a := range attrs {
			if a.Key == maillog.Service {
				child.service = a.Value.String()
			}
		}
	}
	return &child
}

// WithGroup passes the group on.
func (c *counting) WithGroup(name string) slog.Handler {
	child := *c
	child.next, child.grouped = c.next.WithGroup(name), c.grouped || name != ""
	return &child
}

// Handle counts, and passes on what is wanted.
func (c *counting) Handle(ctx context.Context, r slog.Record) error {
	c.count(r)
	if !c.next.Enabled(ctx, r.Level) {
		return nil
	}
	return c.next.Handle(ctx, r)
}

// event is what of a line is counted.
type event struct {
	service  string
	reply    string
	enhanced string
	took     time.Duration
	err      error
}

func (c *counting) count(r slog.Record) {
	m := c.metrics
	switch {
	case r.Level >= slog.LevelError:
		m.complaints.WithLabelValues("error").Inc()
	case r.Level >= slog.LevelWarn:
		m.complaints.WithLabelValues("warn").Inc()
	}
	switch r.Message {
	case maillog.Stored:
		e := c.read(r)
		m.received.WithLabelValues(e.service).Inc()
		if e.took > 0 {
			m.latency.WithLabelValues(e.service).Observe(e.took.Seconds())
		}
	case maillog.Refused:
		e := c.read(r)
		m.refused.WithLabelValues(e.service, classOf(e.reply)).Inc()
	case maillog.Sent, maillog.Deferred, maillog.Bounced:
		m.outcomes.WithLabelValues(r.Message).Inc()
		if r.Message != maillog.Sent {
			m.failures.WithLabelValues(r.Message, subjectOf(c.read(r).enhanced)).Inc()
		}
	case maillog.LoggedIn:
		m.logins.WithLabelValues(c.read(r).service).Inc()
	case maillog.LoginFailed:
		e := c.read(r)
		m.loginFailures.WithLabelValues(e.service, reasonOf(e.err)).Inc()
	}
}

// read takes what is counted from a line.
func (c *counting) read(r slog.Record) event {
	e := event{service: c.service}
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case maillog.Service:
			e.service = a.Value.String()
		case maillog.Reply:
			e.reply = a.Value.String()
		case maillog.Enhanced:
			e.enhanced = a.Value.String()
		case maillog.Took:
			if a.Value.Kind() == slog.KindDuration {
				e.took = a.Value.Duration()
			}
		case maillog.Err:
			e.err, _ = a.Value.Any().(error) // else its reason is not known
		}
		return true
	})
	switch e.service {
	case "smtp", "submission", "pop3", "sendmail":
	default:
		e.service = "other"
	}
	return e
}

// subjectOf is what an enhanced status code is about: RFC 3463 section 4.
func subjectOf(enhanced string) string {
	subjects := [...]string{"other", "address", "mailbox", "system", "network", "protocol", "content", "policy"}
	if len(enhanced) >= 4 && enhanced[1] == '.' && enhanced[3] == '.' {
		if n := int(enhanced[2] - '0'); n >= 0 && n < len(subjects) {
			return subjects[n]
		}
	}
	return subjects[0]
}

// reasonOf is why a login failed.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, accounts.ErrBadCredentials):
		return "credentials"
	case errors.Is(err, accounts.ErrThrottled):
		return "throttled"
	case errors.Is(err, accounts.ErrWrongUse):
		return "wrong_use"
	case errors.Is(err, accounts.ErrBusy):
		return "busy"
	case errors.Is(err, accounts.ErrMalformed):
		return "malformed"
	}
	return "other"
}
