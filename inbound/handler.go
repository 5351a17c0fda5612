package inbound

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/auth"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/limit"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/mailbox"
	"github.com/postroom/postroom/smtpd"
)

// Options are what a handler works with. Reserve is in octets; below it, mail from outside is told to come back.
type Options struct {
	Hostname string
	Accounts *accounts.Service
	Mailbox  *mailbox.Store
	Auth     *auth.Verifier
	DB       *database.DB
	SpoolDir string
	Reserve  int64
	Log      *slog.Logger
}

// Handler receives mail from the outside. It is the smtpd.Handler of port 25.
type Handler struct {
	Options
	disk limit.Reserve
}

// New returns a handler.
func New(o Options) (*Handler, error) {
	switch {
	case o.Hostname == "" || o.Accounts == nil || o.Mailbox == nil || o.Auth == nil || o.DB == nil:
		return nil, errors.New("inbound: hostname, accounts, mailbox, auth and database are required")
	case o.Log == nil:
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Handler{Options: o, disk: limit.Reserve{Free: o.DB.FreeSpace, Octets: o.Reserve}}, nil
}

// Connect begins a session. Everybody may connect.
func (h *Handler) Connect(_ context.Context, c *smtpd.Client) (smtpd.Session, error) {
	log := h.Log.With(maillog.Service, "smtp", maillog.SessionID, c.ID, maillog.Remote, c.Remote.Addr().String())
	return &session{h: h, client: c, log: log}, nil
}

// session is one connection from outside. There is no login on it, whatever the client says.
type session struct {
	h      *Handler
	client *smtpd.Client
	log    *slog.Logger
}

// Hello takes any name: RFC 5321 section 4.1.4 does not let a server refuse for it.
func (s *session) Hello(context.Context) error { return nil }

// Close ends the session.
func (s *session) Close() {}

// Mail begins a letter, where there is room for one.
func (s *session) Mail(_ context.Context, m smtpd.Mail) (smtpd.Transaction, error) {
	room, err := s.h.disk.Room()
	switch {
	case err != nil:
		return nil, fmt.Errorf("inbound: free space: %w", err)
	case !room:
		s.log.Warn("below the disk reserve", "reserve", s.h.Reserve)
		return nil, &smtpd.Refusal{Reply: replyDiskReserve}
	}
	return &transaction{session: s, mail: m}, nil
}

// Rcpt asks where the address leads, and whether there is room.
func (t *transaction) Rcpt(ctx context.Context, r smtpd.Rcpt) error {
	route, reply, err := Judge(ctx, t.h.Accounts, t.h.Mailbox, r.To, t.mail.Size)
	switch {
	case err != nil:
		return err
	case !reply.Positive():
		return t.refuse(r.To, reply)
	}
	if t.check == nil { // now it is worth asking the DNS, while the letter arrives
		t.check = t.h.Auth.Begin(ctx, auth.Envelope{IP: t.client.Remote.Addr(), Helo: t.client.Hello, From: t.mail.From})
	}
	t.recipients = append(t.recipients, r.To)
	for _, target := range route.Targets {
		t.addTarget(target, r.To)
	}
	return nil
}

// refuse logs and returns what the client reads.
func (t *transaction) refuse(to addr.Path, reply smtpd.Reply) error {
	t.log.Info(maillog.Refused, maillog.From, t.mail.From.String(), maillog.To, to.String(), maillog.Reply, reply.String())
	return &smtpd.Refusal{Reply: reply}
}
