package smtpd

import (
	"context"
	"strconv"
	"strings"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/wire"
)

func (s *session) ehlo(ctx context.Context, name string) Reply { return s.hello(ctx, name, true) }

func (s *session) helo(ctx context.Context, name string) Reply { return s.hello(ctx, name, false) }

// hello begins the session anew. RFC 5321 section 4.1.4: a later EHLO is also an RSET, and a name that is not true is no
// reason to refuse.
func (s *session) hello(ctx context.Context, name string, extended bool) Reply {
	name, _, _ = strings.Cut(name, " ")
	if name == "" || len(name) > maxHello {
		return NewReply(501, 5, 4, "say who you are: EHLO your.host.name")
	}
	s.endTransaction()
	s.client.Hello, s.client.Extended = name, extended
	if err := s.hooks.Hello(ctx); err != nil {
		return s.refusal("hello", err)
	}
	s.state = greeted
	if !extended {
		return wire.PlainReply(250, s.server.Hostname)
	}
	return wire.PlainReply(250, append([]string{s.server.Hostname}, s.extensions()...)...)
}

// extensions are what EHLO offers now.
func (s *session) extensions() []string {
	offer := []string{
		"PIPELINING",
		"SIZE " + strconv.FormatInt(s.limits.MessageSize, 10),
		"8BITMIME",
		"SMTPUTF8",
		"CHUNKING",
		"ENHANCEDSTATUSCODES",
		"LIMITS RCPTMAX=" + strconv.Itoa(s.limits.Recipients),
	}
	secure := s.client.TLS != nil
	if !secure && s.server.TLS != nil {
		offer = append(offer, "STARTTLS")
	}
	if secure {
		offer = append(offer, "REQUIRETLS")
	}
	if s.server.Submission {
		offer = append(offer, "DSN")
		if m := s.mechanisms(); len(m) > 0 {
			offer = append(offer, "AUTH "+strings.Join(m, " "))
		}
	}
	return offer
}

// startTLS is RFC 3207: nothing that was said before counts afterwards, and what came with the command in clear text
// ends the connection, as does a handshake that fails.
func (s *session) startTLS(ctx context.Context, _ string) Reply {
	switch {
	case s.client.TLS != nil:
		return replySequence
	case s.server.TLS == nil:
		return replyNotHere
	case s.server.TLSReady != nil && !s.server.TLSReady():
		s.log.Warn("tls refused", "err", "no certificate yet")
		return replyNoTLSYet
	case s.conn.Leftover() > 0:
		s.log.Warn("tls refused", "err", wire.ErrLeftover)
		s.closed = true
		return Reply{}
	}
	s.reply(replyStartTLS)
	if s.conn.Flush() != nil {
		s.closed = true
		return Reply{}
	}
	s.state = fresh
	s.client.Hello, s.client.Extended = "", false
	s.secure(ctx)
	return Reply{}
}

func (s *session) mail(ctx context.Context, arguments string) Reply {
	from, parameters, refused := pathArgument(arguments, "FROM:", addr.ParseReversePath)
	if !refused.IsZero() {
		return refused
	}
	m := Mail{From: from}
	if refused := s.mailParameters(&m, parameters); !refused.IsZero() {
		return refused
	}
	if from.UTF8 && !m.UTF8 {
		return replyUTF8
	}
	s.mailSeen = true
	hooks, err := s.hooks.Mail(ctx, m)
	if err != nil {
		return s.refusal("mail", err)
	}
	s.tx = &transaction{hooks: hooks, mail: m}
	s.state = sender
	return replySenderOK
}

func (s *session) rcpt(ctx context.Context, arguments string) Reply {
	if s.tx.accepted >= s.limits.Recipients {
		return replyTooMany
	}
	to, parameters, refused := pathArgument(arguments, "TO:", addr.ParseForwardPath)
	if !refused.IsZero() {
		return s.refuseRecipient(refused)
	}
	r := Rcpt{To: to}
	if refused := s.rcptParameters(&r, parameters); !refused.IsZero() {
		return s.refuseRecipient(refused)
	}
	if to.UTF8 && !s.tx.mail.UTF8 {
		return s.refuseRecipient(replyUTF8)
	}
	if err := s.tx.hooks.Rcpt(ctx, r); err != nil {
		return s.refuseRecipient(s.refusal("rcpt", err))
	}
	s.tx.accepted++
	s.state = recipients
	return replyRcptOK
}

// refuseRecipient counts: a client that guesses addresses is sent away. What is refused for a while only, such as the
// 1,001st recipient of a long list, is no guess.
func (s *session) refuseRecipient(r Reply) Reply {
	if !r.Permanent() {
		return r
	}
	if s.refused++; s.refused >= s.limits.RefusedRecipients {
		s.log.Info("too many refused recipients", "last", r.String())
		s.closed = true
		return replyErrors
	}
	return r
}

func (s *session) rset(context.Context, string) Reply {
	s.endTransaction()
	return replyReset
}

func (s *session) noop(context.Context, string) Reply { return replyOK }

func (s *session) quit(context.Context, string) Reply {
	s.closed = true
	return replyBye
}

// vrfy neither confirms nor denies (RFC 5321 section 7.3).
func (s *session) vrfy(_ context.Context, arguments string) Reply {
	if arguments == "" {
		return replySyntax
	}
	return replyVerify
}

func (s *session) expn(context.Context, string) Reply { return replyNoExpand }

func (s *session) help(context.Context, string) Reply { return replyHelp }
