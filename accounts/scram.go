package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxNonce bounds what a client makes us repeat.
const maxNonce = 512

// scramExchange is the server's side of SCRAM-SHA-256, RFC 5802 and 7677. It is ours because one account has several
// passwords (its own and those of its devices) behind one salt: the proof is tried against each.
//
//	client-first -> server-first -> client-final -> server-final
type scramExchange struct {
	s       *Service
	p       Peer
	binding []byte // of the channel; nil without -PLUS
	nonce   string // for tests; random when empty

	first       clientFirst
	serverFirst string
	candidate   candidate
	key         string
}

func (x *scramExchange) next(ctx context.Context, response []byte) ([]byte, *Login, error) {
	switch {
	case response == nil:
		return []byte{}, nil, nil
	case x.serverFirst == "":
		challenge, err := x.begin(ctx, response)
		return challenge, nil, err
	}
	return x.finish(ctx, response)
}

// clientFirst is the first message of a client.
type clientFirst struct {
	gs2   string // the header, which comes back in the last message
	bare  string
	name  string
	nonce string
}

// parseClientFirst is RFC 5802 section 7: gs2-header client-first-message-bare.
func parseClientFirst(message string) (f clientFirst, flag string, ok bool) {
	flag, rest, ok := strings.Cut(message, ",")
	if !ok {
		return f, "", false
	}
	authzid, bare, ok := strings.Cut(rest, ",")
	if !ok || authzid != "" && !strings.HasPrefix(authzid, "a=") {
		return f, "", false
	}
	f.gs2, f.bare = message[:len(message)-len(bare)], bare
	name, rest, ok := strings.Cut(bare, ",")
	if !ok || !strings.HasPrefix(name, "n=") {
		return f, "", false // "m=" announces an extension that we must know and do not
	}
	nonce, _, _ := strings.Cut(rest, ",") // extensions behind it may be passed over
	if !strings.HasPrefix(nonce, "r=") || len(nonce) < 3 || len(nonce) > maxNonce || !printable(nonce) {
		return f, "", false
	}
	if f.name, ok = unescape(name[2:]); !ok {
		return f, "", false
	}
	f.nonce = nonce[2:]
	if authzid != "" {
		if other, ok := unescape(authzid[2:]); !ok || !sameName(other, f.name) {
			return f, "", false
		}
	}
	return f, flag, true
}

// unescape is the saslname of RFC 5802 section 5.1: "=2C" is a comma, "=3D" an equals sign, and nothing else is escaped.
func unescape(s string) (string, bool) {
	plain := strings.NewReplacer("=2C", ",", "=3D", "=").Replace(s)
	left := strings.Count(s, "=") - strings.Count(s, "=2C") - strings.Count(s, "=3D")
	return plain, left == 0 && s != ""
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < '!' || s[i] > '~' {
			return false
		}
	}
	return true
}

// bindingFits is RFC 5802 section 6. "y" means that the client could bind and believes that we cannot: where we offered
// it, somebody in between took it out of the list.
func (x *scramExchange) bindingFits(flag string) bool {
	switch {
	case x.binding != nil:
		return flag == "p=tls-exporter"
	case flag == "y":
		return channelBinding(x.p.TLS) == nil
	}
	return flag == "n"
}

// begin answers the first message with salt and count. Names that are nobody's get a salt too, always the same one.
func (x *scramExchange) begin(ctx context.Context, response []byte) ([]byte, error) {
	first, flag, ok := parseClientFirst(string(response))
	if !ok || !utf8.Valid(response) {
		return nil, ErrMalformed
	}
	if !x.bindingFits(flag) {
		return nil, ErrBadCredentials
	}
	x.first = first
	x.key, _ = loginKey(first.name)
	var err error
	if x.candidate, err = x.s.candidate(ctx, x.key); err != nil {
		return nil, wrap("log in", err)
	}
	if err := x.s.mayTry(ctx, x.p, x.key, x.candidate.account); err != nil {
		return nil, err
	}
	salt, iterations := x.candidate.salt, x.candidate.iterations
	if x.candidate.account == 0 {
		salt, iterations = sign(x.s.secret, first.name)[:16], x.s.iterations
	}
	if x.nonce == "" {
		x.nonce = rand.Text()
	}
	x.serverFirst = fmt.Sprintf("r=%s%s,s=%s,i=%d", first.nonce, x.nonce, base64.StdEncoding.EncodeToString(salt), iterations)
	return []byte(x.serverFirst), nil
}

// finish checks the proof against every password of the account.
func (x *scramExchange) finish(ctx context.Context, response []byte) ([]byte, *Login, error) {
	without, proof, err := x.parseClientFinal(string(response))
	if err != nil {
		return nil, nil, err
	}
	message := x.first.bare + "," + x.serverFirst + "," + without
	for _, c := range x.candidate.credentials {
		if !fits(c.storedKey, message, proof) || x.candidate.disabled {
			continue
		}
		login := x.candidate.login(c)
		// The account may have changed between the two messages.
		if valid, err := x.s.StillValid(ctx, login); err != nil || !valid {
			return nil, nil, errors.Join(err, ErrBadCredentials)
		}
		if err := x.s.succeeded(ctx, x.p, login, c); err != nil {
			return nil, nil, err
		}
		return []byte("v=" + base64.StdEncoding.EncodeToString(sign(c.serverKey, message))), &login, nil
	}
	x.s.throttle.fail(x.p.Remote, x.key)
	return nil, nil, ErrBadCredentials
}

// parseClientFinal takes "c=...,r=...,p=..." apart; without is all of it before the proof.
func (x *scramExchange) parseClientFinal(message string) (without string, proof []byte, err error) {
	i := strings.LastIndex(message, ",p=")
	if i < 0 {
		return "", nil, ErrMalformed
	}
	without = message[:i]
	proof, err = base64.StdEncoding.Strict().DecodeString(message[i+3:])
	if err != nil || len(proof) != sha256.Size {
		return "", nil, ErrMalformed
	}
	parts := strings.Split(without, ",")
	if len(parts) < 2 || parts[1] != "r="+x.first.nonce+x.nonce {
		return "", nil, ErrMalformed
	}
	want := base64.StdEncoding.EncodeToString(append([]byte(x.first.gs2), x.binding...))
	if subtle.ConstantTimeCompare([]byte(parts[0]), []byte("c="+want)) != 1 {
		return "", nil, ErrBadCredentials
	}
	return without, proof, nil
}

// fits is RFC 5802 section 3: the stored key must be the hash of the client key that the proof hides.
func fits(storedKey []byte, message string, proof []byte) bool {
	client := make([]byte, len(proof))
	subtle.XORBytes(client, proof, sign(storedKey, message))
	sum := sha256.Sum256(client)
	return hmac.Equal(sum[:], storedKey)
}
