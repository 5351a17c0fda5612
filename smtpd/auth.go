package smtpd

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"github.com/postroom/postroom/internal/wire"
)

// mechanisms are what the client can log in with now: nothing before TLS, whatever the hooks say.
func (s *session) mechanisms() []string {
	a, ok := s.hooks.(Authenticator)
	if !ok || s.client.TLS == nil || s.client.Authenticated {
		return nil
	}
	return a.Mechanisms()
}

// auth is RFC 4954 section 4.
func (s *session) auth(ctx context.Context, arguments string) Reply {
	mechanism, initial, hasInitial := strings.Cut(arguments, " ")
	mechanism = strings.ToUpper(mechanism)
	a, ok := s.hooks.(Authenticator)
	switch {
	case s.client.TLS == nil:
		return replyLoginTLS
	case s.client.Authenticated:
		return replyTwoLogins
	case !ok || !slices.Contains(s.mechanisms(), mechanism):
		return replyMechanism
	}
	var response []byte
	if hasInitial {
		var err error
		if response, err = decodeResponse(strings.TrimSpace(initial)); err != nil {
			return replyBadBase64
		}
	}
	exchange, err := a.Auth(ctx, mechanism)
	if err != nil {
		return s.loginFailed(s.refusal("auth", err))
	}
	return s.exchange(ctx, exchange, response)
}

// exchange passes challenges and responses between the mechanism and the client.
func (s *session) exchange(ctx context.Context, m SASL, response []byte) Reply {
	for {
		challenge, done, err := m.Next(ctx, response)
		if err != nil {
			return s.loginFailed(s.refusal("auth", err))
		}
		if done && len(challenge) == 0 {
			break
		}
		var refused Reply
		if response, refused = s.challenge(challenge); !refused.IsZero() || s.closed {
			return refused
		}
		if done {
			// RFC 4422 section 3.6: data with success goes in a challenge of its own, and the answer is empty.
			if len(response) > 0 {
				return s.loginFailed(replySyntax)
			}
			break
		}
	}
	s.client.Authenticated = true
	return replyLoggedIn
}

// challenge sends a challenge and returns the client's response to it.
func (s *session) challenge(challenge []byte) (response []byte, refused Reply) {
	s.reply(Reply{Code: 334, Lines: []string{base64.StdEncoding.EncodeToString(challenge)}})
	line, err := s.line(maxAuthLine)
	switch {
	case errors.Is(err, wire.ErrLineTooLong):
		if s.conn.DiscardLine() != nil {
			s.closed = true
		}
		return nil, replyAuthLine
	case err != nil:
		s.unreadable(err)
		s.closed = true // what follows may be a password
		return nil, Reply{}
	case string(line) == "*":
		return nil, replyCancelled
	case len(line) == 0:
		return []byte{}, Reply{}
	}
	response, err = decodeResponse(string(line))
	if err != nil {
		return nil, replyBadBase64
	}
	return response, Reply{}
}

// decodeResponse is RFC 4954 section 4: base64, and = for an empty one.
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

// loginFailed counts: a client that guesses passwords is sent away.
func (s *session) loginFailed(r Reply) Reply {
	if s.loginErrors++; s.loginErrors >= s.limits.FailedLogins {
		s.closed = true
		s.reply(r)
		return replyErrors
	}
	return r
}
