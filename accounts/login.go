package accounts

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
)

// Peer is who wants to log in, and for what.
type Peer struct {
	Remote netip.Addr
	TLS    *tls.ConnectionState // nil without TLS
	Use    Use                  // Receive or Send
}

// Login is a session's right to an account.
type Login struct {
	AccountID  int64
	Address    string // the account's, not the name that was typed
	Device     string // the name of a device password, "" for the account's own
	credential int64
}

const (
	maxKnownNetworks = 50 // per account
	usedPrecision    = time.Hour
)

// LogIn checks a name and a password. An unknown name, a wrong password and a disabled account are ErrBadCredentials, and
// take the same time.
func (s *Service) LogIn(ctx context.Context, p Peer, name, password string) (Login, error) {
	key, valid := loginKey(name)
	normal, err := normalise(password)
	possible := valid && err == nil
	index := s.memory.index(key, normal)
	if r, ok := s.memory.find(index); ok && possible {
		return r.login, goodFor(r.uses, p.Use)
	}
	epoch := s.memory.now()
	candidate, err := s.candidate(ctx, key)
	if err != nil {
		return Login{}, wrap("log in", err)
	}
	if err := s.mayTry(ctx, p, key, candidate.account); err != nil {
		return Login{}, err
	}
	c, err := s.checkPassword(ctx, candidate, normal, possible)
	if err != nil {
		if errors.Is(err, ErrBadCredentials) {
			s.throttle.fail(p.Remote, key)
		}
		return Login{}, err
	}
	login := candidate.login(c)
	s.memory.remember(index, epoch, login, c.uses)
	return login, s.succeeded(ctx, p, login, c)
}

// loginKey is the name as it is looked up. A name that is no address is nobody's.
func loginKey(name string) (key string, ok bool) {
	a, err := addr.Parse(strings.TrimSpace(name))
	if err != nil {
		return "", false
	}
	return a.Key(), true
}

// candidate is the account that a name stands for, with its passwords. account is 0 where there is none.
type candidate struct {
	account     int64
	address     string
	disabled    bool
	salt        []byte
	iterations  int
	credentials []credential
}

func (c candidate) login(by credential) Login {
	return Login{AccountID: c.account, Address: c.address, Device: by.name, credential: by.id}
}

// candidate finds the account with the address, or the only one that an alias leads to.
func (s *Service) candidate(ctx context.Context, key string) (c candidate, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		c = candidate{}
		id, err := accountOf(tx, key)
		if err != nil || id == 0 {
			return err
		}
		err = tx.QueryRow("SELECT id, address, disabled, salt, iterations FROM accounts WHERE id = ?", id).
			Scan(&c.account, &c.address, &c.disabled, &c.salt, &c.iterations)
		if err != nil {
			return err
		}
		c.credentials, err = selectCredentials(tx, id)
		return err
	})
	return c, err
}

func accountOf(tx *database.Tx, key string) (id int64, err error) {
	err = tx.QueryRow("SELECT id FROM accounts WHERE key = ?", key).Scan(&id)
	if missing, err := none(err); err != nil || !missing {
		return id, err
	}
	var alias string
	err = tx.QueryRow("SELECT address FROM aliases WHERE key = ?", key).Scan(&alias)
	if missing, err := none(err); err != nil || missing {
		return 0, err
	}
	a, err := addr.Parse(alias)
	if err != nil {
		return 0, err
	}
	targets, err := (&resolver{tx: tx}).expand(a, 0)
	if err != nil || len(targets) != 1 {
		return 0, err
	}
	return targets[0].AccountID, nil
}

func selectCredentials(tx *database.Tx, account int64) (all []credential, err error) {
	rows, err := tx.Query(`SELECT id, name, coalesce(tag, ''), uses, hash, stored_key, server_key, used FROM credentials
		WHERE account_id = ? ORDER BY id`, account)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			c    credential
			used int64
		)
		if err := rows.Scan(&c.id, &c.name, &c.tag, &c.uses, &c.hash, &c.storedKey, &c.serverKey, &used); err != nil {
			return nil, err
		}
		c.used = fromMillis(used)
		all = append(all, c)
	}
	return all, rows.Err()
}

// mayTry refuses those who failed too often, before any password is looked at.
func (s *Service) mayTry(ctx context.Context, p Peer, key string, account int64) error {
	against := s.throttle.scores(p.Remote, key)
	if against.account >= maxForAccount && account != 0 {
		var err error
		if against.knownNetwork, err = s.isKnown(ctx, account, p.Remote); err != nil {
			return wrap("log in", err)
		}
	}
	if tooMany(against) {
		return ErrThrottled
	}
	return nil
}

// checkPassword runs exactly one bcrypt, whether there is somebody to compare with or not.
func (s *Service) checkPassword(ctx context.Context, c candidate, password string, possible bool) (credential, error) {
	chosen := credential{hash: s.dummy}
	for _, other := range c.credentials {
		if other.name == "" && chosen.id == 0 || other.tag != "" && strings.HasPrefix(password, devicePrefix+other.tag+"-") {
			chosen = other
		}
	}
	if err := s.hashing.enter(ctx); err != nil {
		return credential{}, err
	}
	defer s.hashing.leave()
	err := bcrypt.CompareHashAndPassword(chosen.hash, []byte(password))
	if err != nil || !possible || chosen.id == 0 || c.disabled {
		return credential{}, ErrBadCredentials
	}
	return chosen, nil
}

// succeeded notes a login that was right, and judges whether its password is good for this service.
func (s *Service) succeeded(ctx context.Context, p Peer, login Login, c credential) error {
	if err := goodFor(c.uses, p.Use); err != nil {
		return err
	}
	if err := s.noteUse(ctx, p, login, c); err != nil {
		// The login itself is good: what could not be noted is only for people to look at.
		s.log.Warn("use of a password not noted", "account", login.AccountID, "err", err)
	}
	return nil
}

func goodFor(uses, wanted Use) error {
	if uses&wanted == 0 {
		return ErrWrongUse
	}
	return nil
}

// noteUse writes when and where a password was used, at most once an hour, and that the account knows this network.
func (s *Service) noteUse(ctx context.Context, p Peer, login Login, c credential) error {
	known, err := s.isKnown(ctx, login.AccountID, p.Remote)
	now := time.Now()
	if err != nil || known && now.Sub(c.used) < usedPrecision {
		return err
	}
	_, network := networks(p.Remote)
	// Nobody has to look again because of this: the generation is not raised.
	return s.db.Write(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec("UPDATE credentials SET used = ?, network = ? WHERE id = ?", millis(now.Truncate(usedPrecision)), network.String(), c.id)
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO known_networks (account_id, network, seen) VALUES (?, ?, ?)
			ON CONFLICT (account_id, network) DO UPDATE SET seen = excluded.seen`, login.AccountID, network.String(), millis(now))
		if err != nil {
			return err
		}
		_, err = tx.Exec(`DELETE FROM known_networks WHERE account_id = ? AND network NOT IN
			(SELECT network FROM known_networks WHERE account_id = ? ORDER BY seen DESC LIMIT ?)`, login.AccountID, login.AccountID, maxKnownNetworks)
		return err
	})
}

func (s *Service) isKnown(ctx context.Context, account int64, ip netip.Addr) (known bool, err error) {
	_, network := networks(ip)
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		var n int
		err := tx.QueryRow("SELECT count(*) FROM known_networks WHERE account_id = ? AND network = ?", account, network.String()).Scan(&n)
		known = n > 0
		return err
	})
	return known, err
}

// StillValid tells whether a login that was good would be good now: the account is there and enabled, and the password
// was neither changed nor revoked.
func (s *Service) StillValid(ctx context.Context, l Login) (valid bool, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		var n int
		err := tx.QueryRow(`SELECT count(*) FROM credentials JOIN accounts ON accounts.id = account_id
			WHERE credentials.id = ? AND accounts.id = ? AND disabled = 0 AND removed = 0`, l.credential, l.AccountID).Scan(&n)
		valid = n > 0
		return err
	})
	return valid, wrap("look at login", err)
}
