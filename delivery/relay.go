package delivery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/maillog"
)

// RelayMode is how the connection to a smarthost is protected. It always is.
type RelayMode string

// The modes.
const (
	RelayStartTLS RelayMode = "starttls" // RFC 3207, port 587
	RelayTLS      RelayMode = "tls"      // RFC 8314, port 465
)

// Relay is a smarthost: a server that takes the mail to others for us. It is used for the mail to a domain, else for the mail
// of a sender's domain, else for all mail.
type Relay struct {
	Sender, Destination addr.Domain // at most one; none: all mail
	Host                string      // a name or an address
	Port                uint16      // 0: that of the mode
	TLS                 RelayMode   // "": RelayStartTLS
	Login               string      // "": it asks for none
	Password            maillog.Secret

	broken bool // its login cannot be opened
	row    int64
}

// ErrNoRelay says that there is no such smarthost.
var ErrNoRelay = errors.New("there is no such smarthost")

// relayKind is the generation that rises when a smarthost changes.
const relayKind = "relays"

// name is the destination that the smarthost is.
func (r *Relay) name() string { return "relay " + net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port))) }

// check completes a smarthost, and says what is wrong with it.
func (r *Relay) check() error {
	switch {
	case !r.Sender.IsZero() && !r.Destination.IsZero():
		return errors.New("a smarthost is for a sender's domain or for a destination, not for both")
	case r.TLS == "":
		r.TLS = RelayStartTLS
	case r.TLS != RelayStartTLS && r.TLS != RelayTLS:
		return fmt.Errorf("%q is neither starttls nor tls", string(r.TLS))
	}
	if r.Port == 0 {
		r.Port = map[RelayMode]uint16{RelayStartTLS: 587, RelayTLS: 465}[r.TLS]
	}
	if _, err := netip.ParseAddr(r.Host); err != nil {
		d, err := addr.ParseDomain(r.Host)
		if err != nil {
			return fmt.Errorf("the smarthost %q: %w", r.Host, err)
		}
		r.Host = d.ASCII()
	}
	switch {
	case (r.Login == "") != (r.Password == ""):
		return errors.New("a login needs a name and a password")
	case len(r.Login) > 255 || len(r.Password) > 4096: // RFC 4616 section 2 for the name; a token is long
		return errors.New("the login is too long")
	case strings.ContainsAny(r.Login+string(r.Password), "\x00\r\n"):
		return errors.New("a login has no NUL and no line end")
	}
	return nil
}

// Smarthosts are the smarthosts of a database.
type Smarthosts struct {
	db      *database.DB
	sealer  Sealer
	changed <-chan struct{}
	stop    func()

	mu     sync.Mutex // guards what follows
	loaded bool
	all    []Relay
}

// NewSmarthosts returns the smarthosts of a database. Close ends the watch for changes.
func NewSmarthosts(db *database.DB, sealer Sealer) *Smarthosts {
	s := &Smarthosts{db: db, sealer: sealer}
	s.changed, s.stop = db.Watch(relayKind)
	return s
}

// Close ends the watch for changes.
func (s *Smarthosts) Close() { s.stop() }

// find returns the smarthost for a letter, or nil.
func (s *Smarthosts) find(ctx context.Context, sender, destination addr.Domain) (*Relay, error) {
	all, err := s.current(ctx)
	if err != nil {
		return nil, err
	}
	return choose(all, sender, destination), nil
}

// choose prefers what says more about the letter.
func choose(all []Relay, sender, destination addr.Domain) (best *Relay) {
	rank := 0
	for i := range all {
		r := &all[i]
		n := 0
		switch {
		case !r.Destination.IsZero():
			if r.Destination == destination {
				n = 3
			}
		case !r.Sender.IsZero():
			if r.Sender == sender {
				n = 2
			}
		default:
			n = 1
		}
		if n > rank {
			best, rank = r, n
		}
	}
	return best
}

// current returns all smarthosts, as they are now. Nobody changes what it returns.
func (s *Smarthosts) current(ctx context.Context) ([]Relay, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.changed:
		s.loaded = false
	default:
	}
	if s.loaded {
		return s.all, nil
	}
	all, err := s.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("delivery: read smarthosts: %w", err)
	}
	s.all, s.loaded = all, true
	return all, nil
}

// Relays lists the smarthosts, without their passwords.
func (s *Smarthosts) Relays(ctx context.Context) ([]Relay, error) {
	all, err := s.load(ctx)
	for i := range all {
		all[i].Password = ""
	}
	if err != nil {
		return nil, fmt.Errorf("delivery: list smarthosts: %w", err)
	}
	return all, nil
}

// SetRelay sets the smarthost for a domain or for all mail, in place of the one that is there.
func (s *Smarthosts) SetRelay(ctx context.Context, r Relay) error {
	if err := r.check(); err != nil {
		return err
	}
	var sealed []byte
	if r.Login != "" {
		var err error
		if sealed, err = s.sealer.Seal([]byte(r.Login + "\x00" + string(r.Password))); err != nil {
			return fmt.Errorf("delivery: seal the login: %w", err)
		}
	}
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		if _, err := remove(tx, r.Sender, r.Destination); err != nil {
			return err
		}
		_, err := tx.Exec("INSERT INTO relays (sender, destination, host, port, tls, login) VALUES (?, ?, ?, ?, ?, ?)",
			r.Sender.ASCII(), r.Destination.ASCII(), r.Host, int64(r.Port), string(r.TLS), sealed)
		return errors.Join(err, tx.Raise(relayKind))
	})
	if err != nil {
		return fmt.Errorf("delivery: set smarthost: %w", err)
	}
	return nil
}

// RemoveRelay removes the smarthost of a sender's domain, of a destination, or, where both are zero, of all mail.
func (s *Smarthosts) RemoveRelay(ctx context.Context, sender, destination addr.Domain) error {
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		found, err := remove(tx, sender, destination)
		if err == nil && !found {
			return ErrNoRelay
		}
		return errors.Join(err, tx.Raise(relayKind))
	})
	if err != nil {
		return fmt.Errorf("delivery: remove smarthost: %w", err)
	}
	return nil
}

func remove(tx *database.Tx, sender, destination addr.Domain) (found bool, err error) {
	r, err := tx.Exec("DELETE FROM relays WHERE sender = ? AND destination = ?", sender.ASCII(), destination.ASCII())
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

// load reads all smarthosts and opens their logins.
func (s *Smarthosts) load(ctx context.Context) (all []Relay, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		all = nil
		rows, err := tx.Query("SELECT id, sender, destination, host, port, tls, login FROM relays ORDER BY destination, sender")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r Relay
			var sender, destination, mode string
			var sealed []byte
			if err := rows.Scan(&r.row, &sender, &destination, &r.Host, &r.Port, &mode, &sealed); err != nil {
				return err
			}
			r.TLS = RelayMode(mode)
			s.complete(&r, sender, destination, sealed)
			all = append(all, r)
		}
		return rows.Err()
	})
	return all, err
}

// complete turns what a row holds into a smarthost. One whose login cannot be opened stays, since mail must not take another
// way without it.
func (s *Smarthosts) complete(r *Relay, sender, destination string, sealed []byte) {
	r.Sender, _ = addr.ParseDomain(sender) // "" is none
	r.Destination, _ = addr.ParseDomain(destination)
	if len(sealed) == 0 {
		return
	}
	plain, err := s.sealer.Open(sealed)
	login, password, ok := strings.Cut(string(plain), "\x00")
	r.broken = err != nil || !ok
	if !r.broken {
		r.Login, r.Password = login, maillog.Secret(password)
	}
}
