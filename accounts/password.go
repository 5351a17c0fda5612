package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"errors"
	"runtime"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/text/secure/precis"

	"github.com/postroom/postroom/internal/database"
)

const (
	minPassword = 8
	maxPassword = 72 // octets that bcrypt looks at; more would be cut in silence
)

// errPassword is a password that cannot be one, whatever the account.
var errPassword = errors.New("not a possible password")

// normalise is the one form of a password, RFC 8265 section 4.2 (OpaqueString). Over 72 octets, or with a NUL, it is none.
func normalise(password string) (string, error) {
	if len(password) > 16*maxPassword { // no use in normalising a megabyte
		return "", errPassword
	}
	p, err := precis.OpaqueString.String(password)
	if err != nil || len(p) > maxPassword || strings.ContainsRune(p, 0) {
		return "", errPassword
	}
	return p, nil
}

// credential is one password of an account, as it is kept.
type credential struct {
	id        int64
	name      string // "" is the account's own password
	tag       string // public part of a device password
	uses      Use
	hash      []byte
	storedKey []byte
	serverKey []byte
	used      time.Time
}

// newCredential hashes a password that somebody chose.
func (s *Service) newCredential(ctx context.Context, password string, salt []byte, iterations int) (credential, error) {
	p, err := normalise(password)
	switch {
	case err != nil:
		return credential{}, problemf(nil, "this password cannot be used: it may have at most %d octets and no control characters", maxPassword)
	case len([]rune(p)) < minPassword:
		return credential{}, problemf(nil, "this password is too short: use at least %d characters", minPassword)
	}
	return s.hash(ctx, p, salt, iterations)
}

func (s *Service) hash(ctx context.Context, p string, salt []byte, iterations int) (c credential, err error) {
	if err := s.hashing.enter(ctx); err != nil {
		return credential{}, err
	}
	defer s.hashing.leave()
	if c.hash, err = bcrypt.GenerateFromPassword([]byte(p), s.cost); err != nil {
		return credential{}, wrap("hash password", err)
	}
	c.storedKey, c.serverKey, err = scramKeys(p, salt, iterations)
	return c, wrap("hash password", err)
}

// scramKeys is RFC 5802 section 3.
func scramKeys(password string, salt []byte, iterations int) (stored, server []byte, err error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return nil, nil, err
	}
	client := sign(salted, "Client Key")
	sum := sha256.Sum256(client)
	return sum[:], sign(salted, "Server Key"), nil
}

func sign(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func (c credential) insert(tx *database.Tx, account int64) error {
	var tag any
	if c.tag != "" {
		tag = c.tag
	}
	_, err := tx.Exec(`INSERT INTO credentials (account_id, name, tag, uses, hash, stored_key, server_key, created, used, network)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, '')`,
		account, c.name, tag, int64(c.uses), string(c.hash), c.storedKey, c.serverKey, millis(time.Now()))
	return err
}

// gate bounds the passwords that are hashed at once, and those that wait for it.
type gate struct {
	slots   chan struct{}
	waiting chan struct{}
}

// maxHashWaiting is how many logins may wait for a processor; at 0.25 s each the last one waits for some seconds.
const maxHashWaiting = 64

func newGate() *gate {
	return &gate{slots: make(chan struct{}, runtime.GOMAXPROCS(0)), waiting: make(chan struct{}, maxHashWaiting)}
}

func (g *gate) enter(ctx context.Context) error {
	select {
	case g.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case g.waiting <- struct{}{}:
		defer func() { <-g.waiting }()
	default:
		return ErrBusy
	}
	select {
	case g.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) leave() { <-g.slots }
