package accounts

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
)

// KeyState is where a DKIM key is in its life: new, once the world sees its record active, then retired.
type KeyState int

// The states.
const (
	KeyNew     KeyState = iota + 1 // to be published; nothing is signed with it yet
	KeyActive                      // signs
	KeyRetired                     // signs nothing any more; its record must stay while letters are on their way
)

// String returns the state in a word.
func (k KeyState) String() string {
	switch k {
	case KeyNew:
		return "new"
	case KeyActive:
		return "active"
	case KeyRetired:
		return "retired"
	}
	return fmt.Sprintf("KeyState(%d)", int(k))
}

// KeepRecord is how long the record of a retired key should stay in the DNS: letters are tried for five days.
const KeepRecord = 7 * 24 * time.Hour

// rsaBits is the size that every verifier takes and that fits into one DNS answer (RFC 8301 section 3.2).
const rsaBits = 2048

// DKIMKey is a key that a domain signs its mail with. Its private part is sealed in the database.
type DKIMKey struct {
	Selector  string
	Algorithm string // as in a=: rsa-sha256 or ed25519-sha256
	Public    string // as in p= of its record
	State     KeyState
	Created   time.Time
	Changed   time.Time // when it got its state
}

// SigningKey is a key that signs now.
type SigningKey struct {
	Selector  string
	Algorithm string
	Key       crypto.Signer
}

// newKey is a key before it has a selector.
type newKey struct {
	algorithm, letter, public string
	sealed                    []byte
}

// makeKeys makes a pair: RSA for everybody, Ed25519 for those that know it (RFC 8463).
func (s *Service) makeKeys() ([]newKey, error) {
	if s.seal == nil {
		return nil, errors.New("DKIM keys cannot be kept: there is no secret.key")
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, rsaBits)
	if err != nil {
		return nil, err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	rsaPublic, err := x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)
	if err != nil {
		return nil, err
	}
	keys := []newKey{{algorithm: "rsa-sha256", letter: "r", public: base64.StdEncoding.EncodeToString(rsaPublic)},
		{algorithm: "ed25519-sha256", letter: "e", public: base64.StdEncoding.EncodeToString(public)}}
	for i, k := range []crypto.Signer{rsaKey, private} {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			return nil, err
		}
		if keys[i].sealed, err = s.seal.Seal(der); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// insertKeys gives a pair its selectors, which name the day, and keeps it.
func insertKeys(tx *database.Tx, domain int64, keys []newKey, state KeyState, now time.Time) error {
	base := "p" + now.UTC().Format("20060102")
	var used int
	if err := tx.QueryRow("SELECT count(*) FROM dkim_keys WHERE domain_id = ? AND selector LIKE ?", domain, base+"%").Scan(&used); err != nil {
		return err
	}
	if pairs := used / len(keys); pairs > 0 {
		base += fmt.Sprintf("-%d", pairs+1)
	}
	for _, k := range keys {
		_, err := tx.Exec("INSERT INTO dkim_keys (domain_id, selector, algorithm, private, public, state, created, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			domain, base+k.letter, k.algorithm, k.sealed, k.public, state, millis(now), millis(now))
		if err != nil {
			return err
		}
	}
	return nil
}

// RotateDKIM makes a new pair of keys, which signs nothing until ActivateDKIM. There is at most one such pair.
func (s *Service) RotateDKIM(ctx context.Context, name addr.Domain) error {
	keys, err := s.makeKeys()
	if err != nil {
		return wrap("rotate keys", err)
	}
	return wrap("rotate keys", s.change(ctx, func(tx *database.Tx) error {
		d, err := findDomain(tx, name)
		if err != nil {
			return err
		}
		waiting, err := countKeys(tx, d.ID, KeyNew)
		if err != nil {
			return err
		}
		if waiting > 0 {
			return problemf(ErrExists, "%s has new keys already, which wait for their records in the DNS: `postroom dkim list %s` shows them", name, name)
		}
		active, err := countKeys(tx, d.ID, KeyActive)
		if err != nil {
			return err
		}
		state := KeyNew
		if active == 0 {
			state = KeyActive // the very first ones: there is nothing better to sign with
		}
		return insertKeys(tx, d.ID, keys, state, time.Now())
	}))
}

// CheckSeal tells whether secret.key opens what it has sealed: after a restore without it, it does not.
func (s *Service) CheckSeal(ctx context.Context) error {
	var sealed []byte
	err := s.db.ReadRow(ctx, "SELECT private FROM dkim_keys ORDER BY id LIMIT 1", nil, &sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		_, err = s.openKey(sealed)
	}
	return wrap("check secret.key", err)
}

// DomainsByKey lists the domains that have keys in a state.
func (s *Service) DomainsByKey(ctx context.Context, state KeyState) (all []addr.Domain, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		all = nil
		rows, err := tx.Query("SELECT DISTINCT name FROM dkim_keys JOIN domains ON domains.id = domain_id WHERE state = ? ORDER BY name", state)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			d, err := addr.ParseDomain(name)
			if err != nil {
				return err
			}
			all = append(all, d)
		}
		return rows.Err()
	})
	return all, wrap("list domains by key", err)
}

func countKeys(tx *database.Tx, domain int64, state KeyState) (n int, err error) {
	err = tx.QueryRow("SELECT count(*) FROM dkim_keys WHERE domain_id = ? AND state = ?", domain, state).Scan(&n)
	return n, err
}

// DKIMKeys lists the keys of a domain, oldest first.
func (s *Service) DKIMKeys(ctx context.Context, name addr.Domain) (all []DKIMKey, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		all = nil
		d, err := findDomain(tx, name)
		if err != nil {
			return err
		}
		rows, err := tx.Query("SELECT selector, algorithm, public, state, created, changed FROM dkim_keys WHERE domain_id = ? ORDER BY id", d.ID)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var k DKIMKey
			var created, changed int64
			if err := rows.Scan(&k.Selector, &k.Algorithm, &k.Public, &k.State, &created, &changed); err != nil {
				return err
			}
			k.Created, k.Changed = fromMillis(created), fromMillis(changed)
			all = append(all, k)
		}
		return rows.Err()
	})
	return all, wrap("list keys", err)
}

// ActivateDKIM makes the new pair sign, and retires the one before it. The caller has seen both records at the authoritative
// servers of the domain; selectors names what was seen, and anything else means that the keys changed meanwhile.
func (s *Service) ActivateDKIM(ctx context.Context, name addr.Domain, selectors ...string) error {
	return wrap("activate keys", s.change(ctx, func(tx *database.Tx) error {
		d, err := findDomain(tx, name)
		if err != nil {
			return err
		}
		now := millis(time.Now())
		if _, err := tx.Exec("UPDATE dkim_keys SET state = ?, changed = ? WHERE domain_id = ? AND state = ?", KeyRetired, now, d.ID, KeyActive); err != nil {
			return err
		}
		for _, selector := range selectors {
			r, err := tx.Exec("UPDATE dkim_keys SET state = ?, changed = ? WHERE domain_id = ? AND selector = ? AND state = ?", KeyActive, now, d.ID, selector, KeyNew)
			if err != nil {
				return err
			}
			if n, err := r.RowsAffected(); err != nil || n != 1 {
				return errors.Join(problemf(ErrNotFound, "%s has no new key with the selector %s", name, selector), err)
			}
		}
		if left, err := countKeys(tx, d.ID, KeyNew); err != nil || left > 0 {
			return errors.Join(problemf(nil, "not all new keys of %s are published", name), err)
		}
		return nil
	}))
}

// SigningKeys returns the keys that mail of a domain is signed with; none where it is not ours or has none. They are
// remembered until something changes.
func (s *Service) SigningKeys(ctx context.Context, name addr.Domain) ([]SigningKey, error) {
	keys, err := cached(ctx, s, &s.signing, name, func(tx *database.Tx) ([]SigningKey, error) { return s.readSigningKeys(tx, name) },
		func([]SigningKey) bool { return true })
	if err != nil {
		return nil, fmt.Errorf("accounts: keys of %s: %w", name, err)
	}
	return keys, nil
}

func (s *Service) readSigningKeys(tx *database.Tx, name addr.Domain) (keys []SigningKey, err error) {
	rows, err := tx.Query(`SELECT selector, algorithm, private FROM dkim_keys JOIN domains ON domains.id = domain_id
		WHERE name = ? AND state = ? ORDER BY dkim_keys.id`, name.ASCII(), KeyActive)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var k SigningKey
		var sealed []byte
		if err := rows.Scan(&k.Selector, &k.Algorithm, &sealed); err != nil {
			return nil, err
		}
		if k.Key, err = s.openKey(sealed); err != nil {
			return nil, fmt.Errorf("selector %s: %w", k.Selector, err)
		}
		keys = append(keys, k)
	}
	return keys, rows.Err()
}

// openKey opens a private key.
func (s *Service) openKey(sealed []byte) (crypto.Signer, error) {
	if s.seal == nil {
		return nil, errors.New("there is no secret.key to open it with")
	}
	der, err := s.seal.Open(sealed)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of the kind %T cannot sign", key)
	}
	return signer, nil
}
