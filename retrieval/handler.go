package retrieval

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/mailbox"
	"github.com/postroom/postroom/pop3d"
)

// Accounts is what this package asks of package accounts.
type Accounts interface {
	LogIn(ctx context.Context, p accounts.Peer, name, password string) (accounts.Login, error)
	Mechanisms(state *tls.ConnectionState) []string
	SASL(mechanism string, p accounts.Peer) (*accounts.Exchange, error)
	StillValid(ctx context.Context, l accounts.Login) (bool, error)
	Changed() (changed <-chan struct{}, stop func())
}

// Mailboxes is what it asks of package mailbox.
type Mailboxes interface {
	Snapshot(ctx context.Context, account int64) (*mailbox.Snapshot, error)
	Open(ctx context.Context, account int64, uid uint32) (content io.ReadCloser, size int64, err error)
	Delete(ctx context.Context, account int64, uids []uint32) error
}

// Handler lets the owners of accounts fetch their mail. It is the pop3d.Handler of this server.
type Handler struct {
	accounts  Accounts
	mailboxes Mailboxes
	log       *slog.Logger
	drops     *drops

	cancel  context.CancelFunc
	running sync.WaitGroup
}

// New returns a handler. Close must be called, once the engines that use it have ended.
func New(ctx context.Context, a Accounts, m Mailboxes, log *slog.Logger) *Handler {
	ctx, cancel := context.WithCancel(ctx)
	h := &Handler{accounts: a, mailboxes: m, log: log, drops: newDrops(), cancel: cancel}
	changed, stop := a.Changed()
	h.running.Go(func() {
		defer stop()
		h.endInvalid(ctx, changed)
	})
	return h
}

// Close ends the handler's goroutine.
func (h *Handler) Close() {
	h.cancel()
	h.running.Wait()
}

// endInvalid ends sessions whose account was disabled or removed, or whose password was changed or revoked.
func (h *Handler) endInvalid(ctx context.Context, changed <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		for _, d := range h.drops.all() {
			valid, err := h.accounts.StillValid(ctx, d.login)
			if err != nil {
				h.log.Error("login not looked at again", maillog.Account, d.login.AccountID, maillog.Err, err)
			}
			if err == nil && !valid {
				h.drops.take(d)
			}
		}
	}
}

// Connect begins a session. Everybody may connect.
func (h *Handler) Connect(_ context.Context, c *pop3d.Client) (pop3d.Session, error) {
	return &session{h: h, c: c, log: h.log.With(maillog.Service, "pop3", maillog.SessionID, c.ID, maillog.Remote, c.Remote.Addr().String())}, nil
}

// session is one connection.
type session struct {
	h   *Handler
	c   *pop3d.Client
	log *slog.Logger
}

func (s *session) peer() accounts.Peer {
	return accounts.Peer{Remote: s.c.Remote.Addr(), TLS: s.c.TLS, Use: accounts.Receive}
}

// LogIn opens the maildrop of a name and a password.
func (s *session) LogIn(ctx context.Context, name, password string) (pop3d.Maildrop, error) {
	login, err := s.h.accounts.LogIn(ctx, s.peer(), name, password)
	if err != nil {
		return nil, s.refuse(err)
	}
	return s.open(ctx, login)
}

// Mechanisms lists what CAPA offers.
func (s *session) Mechanisms() []string { return s.h.accounts.Mechanisms(s.c.TLS) }

// Auth begins a SASL exchange.
func (s *session) Auth(_ context.Context, mechanism string) (pop3d.SASL, error) {
	x, err := s.h.accounts.SASL(mechanism, s.peer())
	if err != nil {
		return nil, s.refuse(err)
	}
	return &exchange{s, x}, nil
}

// Close ends the session; the maildrop was closed before.
func (s *session) Close() {}

// exchange is a SASL exchange and the maildrop that it opens.
type exchange struct {
	s *session
	x *accounts.Exchange
}

// Next passes a response on.
func (e *exchange) Next(ctx context.Context, response []byte) (challenge []byte, done bool, err error) {
	challenge, done, err = e.x.Next(ctx, response)
	if err != nil {
		err = e.s.refuse(err)
	}
	return challenge, done, err
}

// Maildrop opens what the exchange was for.
func (e *exchange) Maildrop(ctx context.Context) (pop3d.Maildrop, error) {
	login, err := e.x.Login()
	if err != nil {
		return nil, err
	}
	return e.s.open(ctx, login)
}

// open takes the lock and the snapshot.
func (s *session) open(ctx context.Context, login accounts.Login) (pop3d.Maildrop, error) {
	if err := s.c.Slot.LogIn(login.AccountID); err != nil {
		s.log.Info(maillog.LoginFailed, maillog.Account, login.AccountID, maillog.Err, err)
		return nil, refusalTooMany
	}
	d := &maildrop{s: s, login: login}
	if err := s.h.drops.lock(ctx, d); err != nil {
		s.log.Info("maildrop in use", maillog.Account, login.AccountID)
		return nil, refusalInUse
	}
	snapshot, err := s.h.mailboxes.Snapshot(ctx, login.AccountID)
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("retrieval: account %d: %w", login.AccountID, err)
	}
	d.snapshot = snapshot
	s.log.Info(maillog.LoggedIn, maillog.Account, login.AccountID, maillog.To, login.Address, "device", login.Device, "messages", snapshot.Len())
	return d, nil
}

// What a client reads when it cannot log in. RFC 3206: AUTH only where the credentials are the problem.
var (
	refusalCredentials = &pop3d.Refusal{Code: pop3d.CodeAuth, Text: "wrong name or password"}
	refusalThrottled   = &pop3d.Refusal{Code: pop3d.CodeAuth, Text: "too many failed logins from your network, wait a minute"}
	refusalMalformed   = &pop3d.Refusal{Text: "malformed authentication response"}
	refusalBusy        = &pop3d.Refusal{Code: pop3d.CodeSysTemp, Text: "too many logins at once, try again later"}
	refusalTooMany     = &pop3d.Refusal{Code: pop3d.CodeSysTemp, Text: "too many sessions of this account"}
	refusalInUse       = &pop3d.Refusal{Code: pop3d.CodeInUse, Text: "another session holds this maildrop"}
	refusalGone        = &pop3d.Refusal{Code: pop3d.CodeSysTemp, Text: "this message is no longer there"}
)

// refuse turns an error of accounts into what the client reads, and logs who failed.
func (s *session) refuse(err error) error {
	refusal := refusalOf(err)
	if refusal == nil {
		return err
	}
	s.log.Info(maillog.LoginFailed, maillog.Err, err)
	return refusal
}

func refusalOf(err error) *pop3d.Refusal {
	switch {
	case errors.Is(err, accounts.ErrBadCredentials), errors.Is(err, accounts.ErrWrongUse):
		return refusalCredentials
	case errors.Is(err, accounts.ErrThrottled):
		return refusalThrottled
	case errors.Is(err, accounts.ErrMalformed):
		return refusalMalformed
	case errors.Is(err, accounts.ErrBusy):
		return refusalBusy
	}
	return nil
}
