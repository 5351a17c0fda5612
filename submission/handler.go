package submission

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/limit"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/wire"
	"github.com/postroom/postroom/mailbox"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/smtpd"
)

// Queue is where letters to other servers go. Add, HoldAccount and what Confirm returns belong into a write.
type Queue interface {
	Add(tx *database.Tx, l queue.Letter, blob int64, to []queue.Recipient) error
	HoldAccount(tx *database.Tx, account int64) (held int, err error)
	Alert(ctx context.Context, a queue.Alert)
	Confirm(ctx context.Context, l queue.Letter, to []queue.Recipient, content io.Reader) (deliver func(*database.Tx) error, err error)
}

// Options are what a handler works with. Reserve is in octets.
type Options struct {
	Hostname string
	Accounts *accounts.Service
	Mailbox  *mailbox.Store
	Queue    Queue
	DB       *database.DB
	SpoolDir string
	Reserve  int64
	Limits   accounts.SendingLimits
	Log      *slog.Logger
}

// Handler takes letters from the owners of accounts. It is the smtpd.Handler of the submission ports.
type Handler struct {
	Options
	disk limit.Reserve
}

// New returns a handler.
func New(o Options) (*Handler, error) {
	if o.Hostname == "" || o.Accounts == nil || o.Mailbox == nil || o.Queue == nil || o.DB == nil {
		return nil, errors.New("submission: hostname, accounts, mailbox, queue and database are required")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Limits == (accounts.SendingLimits{}) {
		o.Limits = accounts.DefaultSendingLimits
	}
	return &Handler{Options: o, disk: limit.Reserve{Free: o.DB.FreeSpace, Octets: o.Reserve}}, nil
}

// Connect begins a session. Everybody may connect, and nobody may send before a login.
func (h *Handler) Connect(_ context.Context, c *smtpd.Client) (smtpd.Session, error) {
	log := h.Log.With(maillog.Service, "submission", maillog.SessionID, c.ID, maillog.Remote, c.Remote.Addr().String())
	return &session{h: h, client: c, log: log}, nil
}

// session is one connection of a mail program.
type session struct {
	h      *Handler
	client *smtpd.Client
	log    *slog.Logger
	login  accounts.Login
}

// Hello takes any name: it is in no field of a letter.
func (s *session) Hello(context.Context) error { return nil }

// Close ends the session.
func (s *session) Close() {}

// Mechanisms lists what EHLO offers.
func (s *session) Mechanisms() []string { return s.h.Accounts.Mechanisms(s.client.TLS) }

// Auth begins a login.
func (s *session) Auth(_ context.Context, mechanism string) (smtpd.SASL, error) {
	x, err := s.h.Accounts.SASL(mechanism, accounts.Peer{Remote: s.client.Remote.Addr(), TLS: s.client.TLS, Use: accounts.Send})
	if err != nil {
		return nil, s.refuseLogin(err)
	}
	return &exchange{s, x}, nil
}

// exchange is a login under way.
type exchange struct {
	s *session
	x *accounts.Exchange
}

// Next passes a response on.
func (e *exchange) Next(ctx context.Context, response []byte) (challenge []byte, done bool, err error) {
	challenge, done, err = e.x.Next(ctx, response)
	if err != nil {
		return nil, false, e.s.refuseLogin(err)
	}
	if done {
		err = e.s.loggedIn(e.x)
	}
	return challenge, done, err
}

func (s *session) loggedIn(x *accounts.Exchange) (err error) {
	if s.login, err = x.Login(); err != nil {
		return err
	}
	if err := s.client.Slot.LogIn(s.login.AccountID); err != nil {
		s.log.Info(maillog.LoginFailed, maillog.Account, s.login.AccountID, maillog.Err, err)
		return &smtpd.Refusal{Reply: replyTooMany}
	}
	s.log = s.log.With(maillog.Account, s.login.AccountID)
	s.log.Info(maillog.LoggedIn, "address", s.login.Address, "device", s.login.Device)
	return nil
}

// refuseLogin turns an error of accounts into what the client reads, and logs who failed.
func (s *session) refuseLogin(err error) error {
	for _, known := range []struct {
		err   error
		reply wire.Reply
	}{
		{accounts.ErrBadCredentials, replyCredentials}, {accounts.ErrWrongUse, replyCredentials}, {accounts.ErrThrottled, replyThrottled},
		{accounts.ErrMalformed, replyMalformed}, {accounts.ErrBusy, replyBusy},
	} {
		if errors.Is(err, known.err) {
			s.log.Info(maillog.LoginFailed, maillog.Err, err)
			return &smtpd.Refusal{Reply: known.reply}
		}
	}
	return err
}

// Mail begins a letter, where the login is still good and may send as the reverse-path. The null reverse-path is taken: mail
// programs send receipts with it (RFC 8098 section 3).
func (s *session) Mail(ctx context.Context, m smtpd.Mail) (smtpd.Transaction, error) {
	valid, err := s.h.Accounts.StillValid(ctx, s.login)
	switch {
	case err != nil:
		return nil, err
	case !valid:
		return nil, &smtpd.Refusal{Reply: replyNoLonger}
	}
	return s.begin(ctx, m)
}

// begin begins a letter for the account.
func (s *session) begin(ctx context.Context, m smtpd.Mail) (smtpd.Transaction, error) {
	room, err := s.h.disk.Room()
	switch {
	case err != nil:
		return nil, fmt.Errorf("submission: free space: %w", err)
	case !room:
		s.log.Warn("below the disk reserve", "reserve", s.h.Reserve)
		return nil, &smtpd.Refusal{Reply: replyDiskReserve}
	}
	if !m.From.Null {
		may, err := s.maySendAs(ctx, m.From.Address)
		switch {
		case err != nil:
			return nil, err
		case !may:
			s.log.Info(maillog.Refused, maillog.From, m.From.String())
			return nil, refuseSender(m.From.String())
		}
	}
	return &transaction{session: s, mail: m}, nil
}

func (s *session) maySendAs(ctx context.Context, a addr.Address) (bool, error) {
	if a.Domain.IsZero() {
		return false, nil
	}
	return s.h.Accounts.MaySendAs(ctx, s.login.AccountID, a)
}
