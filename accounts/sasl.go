package accounts

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"unicode/utf8"
)

// The mechanisms, strongest first, as clients prefer them in this order.
const (
	mechScramPlus = "SCRAM-SHA-256-PLUS"
	mechScram     = "SCRAM-SHA-256"
	mechPlain     = "PLAIN"
	mechLogin     = "LOGIN"
)

// Mechanisms lists what can be offered on a connection: nothing without TLS, channel binding only where TLS has the
// exporter for it.
func (s *Service) Mechanisms(state *tls.ConnectionState) []string {
	switch {
	case state == nil:
		return nil
	case channelBinding(state) == nil:
		return []string{mechScram, mechPlain, mechLogin}
	}
	return []string{mechScramPlus, mechScram, mechPlain, mechLogin}
}

// channelBinding is tls-exporter, RFC 9266 section 4. It is nil where the connection has none.
func channelBinding(state *tls.ConnectionState) []byte {
	if state == nil || !state.HandshakeComplete {
		return nil
	}
	b, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	if err != nil {
		return nil
	}
	return b
}

// mechanism is the server's side of one SASL mechanism. A login ends it; its challenge is sent before.
type mechanism interface {
	next(ctx context.Context, response []byte) (challenge []byte, login *Login, err error)
}

// Exchange is one attempt to log in over SASL (RFC 4422).
type Exchange struct {
	mechanism mechanism
	login     *Login
	ended     bool
}

// SASL begins an exchange. Before TLS there is no mechanism at all.
func (s *Service) SASL(name string, p Peer) (*Exchange, error) {
	if p.TLS == nil {
		return nil, ErrMalformed
	}
	switch name {
	case mechPlain:
		return &Exchange{mechanism: &plainExchange{s, p}}, nil
	case mechLogin:
		return &Exchange{mechanism: &loginExchange{s: s, p: p}}, nil
	case mechScram:
		return &Exchange{mechanism: &scramExchange{s: s, p: p}}, nil
	case mechScramPlus:
		if binding := channelBinding(p.TLS); binding != nil {
			return &Exchange{mechanism: &scramExchange{s: s, p: p, binding: binding}}, nil
		}
	}
	return nil, ErrMalformed
}

// Next takes the client's response, nil where there is none yet, and returns the next challenge, or done.
func (e *Exchange) Next(ctx context.Context, response []byte) (challenge []byte, done bool, err error) {
	if e.ended {
		return nil, false, ErrMalformed
	}
	challenge, e.login, err = e.mechanism.next(ctx, response)
	e.ended = err != nil || e.login != nil
	return challenge, e.login != nil, err
}

// Login returns who logged in, once Next was done.
func (e *Exchange) Login() (Login, error) {
	if e.login == nil {
		return Login{}, errors.New("accounts: the exchange is not done")
	}
	return *e.login, nil
}

// plainExchange is PLAIN, RFC 4616: authzid NUL authcid NUL passwd.
type plainExchange struct {
	s *Service
	p Peer
}

func (x *plainExchange) next(ctx context.Context, response []byte) ([]byte, *Login, error) {
	if response == nil {
		return []byte{}, nil, nil
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 || !utf8.Valid(response) {
		return nil, nil, ErrMalformed
	}
	// Nobody acts for somebody else here: an authorization identity must be the login itself.
	if len(parts[0]) > 0 && !sameName(string(parts[0]), string(parts[1])) {
		return nil, nil, ErrBadCredentials
	}
	return x.s.finish(ctx, x.p, string(parts[1]), string(parts[2]))
}

func sameName(a, b string) bool {
	keyA, okA := loginKey(a)
	keyB, okB := loginKey(b)
	return okA && okB && keyA == keyB
}

// finish ends a mechanism that carries the password itself.
func (s *Service) finish(ctx context.Context, p Peer, name, password string) ([]byte, *Login, error) {
	l, err := s.LogIn(ctx, p, name, password)
	if err != nil {
		return nil, nil, err
	}
	return nil, &l, nil
}

// loginExchange is LOGIN, which no RFC describes: the name, then the password, each after a prompt.
type loginExchange struct {
	s    *Service
	p    Peer
	name string
}

func (x *loginExchange) next(ctx context.Context, response []byte) ([]byte, *Login, error) {
	switch {
	case response == nil:
		return []byte("Username:"), nil, nil
	case !utf8.Valid(response):
		return nil, nil, ErrMalformed
	case x.name == "" && len(response) == 0:
		return nil, nil, ErrMalformed
	case x.name == "":
		x.name = string(response)
		return []byte("Password:"), nil, nil
	}
	return x.s.finish(ctx, x.p, x.name, string(response))
}
