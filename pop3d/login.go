package pop3d

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"github.com/postroom/postroom/internal/wire"
)

// capa is RFC 2449 section 5. What needs TLS is named only when there is TLS.
func (s *session) capa(context.Context, []string) reply {
	lines := []string{"TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER", "UTF8 USER", "LANG"}
	switch {
	case s.client.TLS != nil && s.state != transaction:
		lines = append(lines, "USER")
		if m := s.hooks.Mechanisms(); len(m) > 0 {
			lines = append(lines, "SASL "+strings.Join(m, " "))
		}
	case s.client.TLS == nil && s.server.TLS != nil:
		lines = append(lines, "STLS")
	}
	return reply{ok: true, text: replyCapa, lines: append(lines, "IMPLEMENTATION Postroom")}
}

// stls is RFC 2595 section 4: nothing that was said before counts afterwards, and what came with the command in clear text
// ends the connection, as does a handshake that fails.
func (s *session) stls(ctx context.Context, _ []string) reply {
	switch {
	case s.client.TLS != nil:
		return s.complain(replyTLSAlready)
	case s.server.TLS == nil:
		return s.complain(replyNoTLS)
	case s.server.TLSReady != nil && !s.server.TLSReady():
		s.log.Warn("tls refused", "err", "no certificate yet")
		return s.complain(replyNoTLSYet)
	case s.conn.Leftover() > 0:
		s.log.Warn("tls refused", "err", wire.ErrLeftover)
		s.closed = true
		return reply{}
	}
	s.queue(replyStartTLS)
	if s.conn.Flush() != nil {
		s.closed = true
		return reply{}
	}
	s.state, s.name = authorization, ""
	s.secure(ctx)
	return reply{}
}

// user takes the name, and does not say whether it is somebody's (RFC 1939 section 7).
func (s *session) user(_ context.Context, arguments []string) reply {
	if len(arguments[0]) > maxName {
		return s.complain(replyArguments)
	}
	s.name, s.state = arguments[0], named
	return replyPassword
}

func (s *session) pass(ctx context.Context, arguments []string) reply {
	name := s.name
	s.name, s.state = "", authorization
	drop, err := s.hooks.LogIn(ctx, name, arguments[0])
	if err != nil {
		return s.loginFailed(s.refusal("login", err))
	}
	return s.enter(drop)
}

// loginFailed counts: a client that guesses passwords is sent away.
func (s *session) loginFailed(r reply) reply {
	if s.loginErrors++; s.loginErrors >= s.limits.FailedLogins {
		s.closed = true
	}
	return r
}

// auth is RFC 5034. Without an argument it lists the mechanisms, as programs older than CAPA ask.
func (s *session) auth(ctx context.Context, arguments []string) reply {
	mechanisms := s.hooks.Mechanisms()
	if len(arguments) == 0 {
		return reply{ok: true, text: "mechanisms follow", lines: append([]string{}, mechanisms...)}
	}
	mechanism := strings.ToUpper(arguments[0])
	if !slices.Contains(mechanisms, mechanism) {
		return s.complain(replyMechanism)
	}
	var response []byte
	if len(arguments) > 1 {
		var err error
		if response, err = decodeResponse(arguments[1]); err != nil {
			return s.complain(replyBase64)
		}
	}
	s.name, s.state = "", authorization
	exchange, err := s.hooks.Auth(ctx, mechanism)
	if err != nil {
		return s.loginFailed(s.refusal("login", err))
	}
	if refused := s.exchange(ctx, exchange, response); refused != nil {
		return *refused
	}
	drop, err := exchange.Maildrop(ctx)
	if err != nil {
		return s.refusal("login", err)
	}
	return s.enter(drop)
}

// exchange passes challenges and responses between the mechanism and the client.
func (s *session) exchange(ctx context.Context, m SASL, response []byte) (refused *reply) {
	for {
		challenge, success, err := m.Next(ctx, response)
		if err != nil {
			r := s.loginFailed(s.refusal("login", err))
			return &r
		}
		if success && len(challenge) == 0 {
			return nil
		}
		if response, refused = s.challenge(challenge); refused != nil {
			return refused
		}
		if success {
			// RFC 4422 section 3.6: data with success goes in a challenge of its own, and the answer is empty.
			if len(response) > 0 {
				r := s.loginFailed(replyArguments)
				return &r
			}
			return nil
		}
	}
}

// challenge sends a challenge and returns the client's response to it.
func (s *session) challenge(challenge []byte) (response []byte, refused *reply) {
	s.conn.Queue([]byte("+ " + base64.StdEncoding.EncodeToString(challenge) + "\r\n"))
	line, err := s.line(maxAuthLine)
	switch {
	case errors.Is(err, wire.ErrLineTooLong):
		s.unreadable(err)
		return nil, &reply{}
	case err != nil:
		s.unreadable(err)
		s.closed = true // what follows may be a password
		return nil, &reply{}
	case string(line) == "*":
		return nil, &replyCancelled
	case len(line) == 0:
		return []byte{}, nil
	}
	if response, err = decodeResponse(string(line)); err != nil {
		r := s.complain(replyBase64)
		return nil, &r
	}
	return response, nil
}

// decodeResponse is RFC 5034 section 4: base64, and = for an empty one.
func decodeResponse(s string) ([]byte, error) {
	if s == "=" {
		return []byte{}, nil
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err == nil && b == nil {
		b = []byte{}
	}
	return b, err
}

// utf8 is RFC 6856 section 2.1. Messages are handed out as they are with it and without it: see docs/deviations.md.
func (s *session) utf8(context.Context, []string) reply { return replyUTF8 }

// lang is RFC 6856 section 3. There is one language.
func (s *session) lang(_ context.Context, arguments []string) reply {
	switch {
	case len(arguments) == 0:
		return reply{ok: true, text: "languages follow", lines: []string{"en English", "i-default English"}}
	case arguments[0] == "*", strings.EqualFold(arguments[0], "en"), strings.EqualFold(arguments[0], "i-default"):
		return done("en English it is")
	}
	return replyLanguage
}
