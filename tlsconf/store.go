package tlsconf

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/postroom/postroom/internal/dane"
	"github.com/postroom/postroom/internal/database"
)

// changes is the kind that DB.Watch knows changes of certificates by.
const changes = "tls"

// ErrUnknownName says that no certificate is managed for a name.
var ErrUnknownName = errors.New("no certificate is managed for this name")

// State is how it stands with the certificate of a name.
type State string

// The states.
const (
	Waiting State = "waiting" // it was not tried yet
	Good    State = "good"
	Failed  State = "failed"  // the last try failed; an older certificate is served on
	Skipped State = "skipped" // the name does not lead here, so none is asked for
)

// Key is a key whose TLSA record is to be published.
type Key struct {
	Next bool // it is not used yet
	TLSA dane.TLSA
}

// ID names a key for people: the first octets of its digest.
func (k Key) ID() string { return hex.EncodeToString(k.TLSA.Data[:min(8, len(k.TLSA.Data))]) }

// String is the record of the key without its name: RFC 6698 section 2.2.
func (k Key) String() string {
	return fmt.Sprintf("%d %d %d %x", k.TLSA.Usage, k.TLSA.Selector, k.TLSA.Matching, k.TLSA.Data)
}

// Status is what is known of the certificate of one name.
type Status struct {
	Name     string
	State    State
	Issuer   string    // "": there is no certificate
	Expires  time.Time // zero: there is none
	Reason   string    // of the last failure, or why the name is skipped
	Failures int       // in a row
	Failed   time.Time // when it failed last
	Next     time.Time // when it is tried or renewed
	Asked    bool      // an operator wants a new one now
	Keys     []Key     // the one that is used, and the one to come
	Roll     string    // what the key to come waits for
}

// Store is what is kept of certificates. Commands use it while a server runs, which notices their changes.
type Store struct {
	db         *database.DB
	seal       Sealer
	unreadable func(name string, err error) // is told of rows that cannot be read; nil: nobody
}

// NewStore returns the certificates in a database, whose keys the sealer opens.
func NewStore(db *database.DB, seal Sealer) *Store { return &Store{db: db, seal: seal} }

// Changed ticks after a certificate changed, here or in another process. stop ends it.
func (s *Store) Changed() (changed <-chan struct{}, stop func()) { return s.db.Watch(changes) }

// List returns all names that are managed, in the order of the alphabet.
func (s *Store) List(ctx context.Context) ([]Status, error) {
	rows, err := s.rows(ctx)
	if err != nil {
		return nil, err
	}
	var all []Status
	for _, r := range rows {
		if r.managed {
			all = append(all, r.status())
		}
	}
	return all, nil
}

// Keys returns the keys of a name, whose TLSA records (3 1 1) its port 25 needs.
func (s *Store) Keys(ctx context.Context, name string) ([]Key, error) {
	rows, err := s.rows(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r.name == name {
			return r.keys(), nil
		}
	}
	return nil, ErrUnknownName
}

// Renew asks the server for a new certificate now.
func (s *Store) Renew(ctx context.Context, name string) error {
	return s.change(ctx, name, "UPDATE tls_certificates SET renew = 1 WHERE name = ? AND "+isManaged, name)
}

// Add asks all servers for a certificate of one more name.
func (s *Store) Add(ctx context.Context, name string) error {
	names, err := s.added(ctx)
	if err != nil || slices.Contains(names, name) {
		return err
	}
	names = append(names, name)
	slices.Sort(names)
	return s.manage(ctx, byOperator, names)
}

// Remove takes back what Add asked for. The key is kept, in case it is asked for again.
func (s *Store) Remove(ctx context.Context, name string) error {
	names, err := s.added(ctx)
	if err != nil {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
	if len(rest) == len(names) {
		return ErrUnknownName
	}
	return s.manage(ctx, byOperator, rest)
}

// byOperator stands where the host name of a server stands that asks for names.
const byOperator = ""

// added are the names that an operator asked for.
func (s *Store) added(ctx context.Context) (names []string, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		names = nil
		return each(tx, func(name string) { names = append(names, name) }, "SELECT name FROM tls_names WHERE host = ? ORDER BY name", byOperator)
	})
	return names, err
}

// Roll makes the next key of a name, where there is none. The server uses it once the world can know it.
func (s *Store) Roll(ctx context.Context, name string) (made bool, err error) {
	_, sealed, err := s.newKey()
	if err != nil {
		return false, err
	}
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		made = false
		var waiting int
		err := tx.QueryRow("SELECT CASE WHEN next_key IS NULL THEN 0 ELSE 1 END FROM tls_certificates WHERE name = ? AND "+isManaged, name).Scan(&waiting)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrUnknownName
		case err != nil || waiting == 1:
			return err
		}
		made = true
		_, err = tx.Exec(`UPDATE tls_certificates SET next_key = ?, next_made = ?, next_seen = 0, next_ttl = 0, next_use = 0, next_note = '' WHERE name = ?`,
			sealed, time.Now().UnixMilli(), name)
		return errors.Join(err, tx.Raise(changes))
	})
	return made, err
}

// change runs a statement that must find its row, and makes it known.
func (s *Store) change(ctx context.Context, name, query string, args ...any) error {
	return s.db.Write(ctx, func(tx *database.Tx) error {
		r, err := tx.Exec(query, args...)
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		if err == nil && n == 0 {
			return fmt.Errorf("%s: %w", name, ErrUnknownName)
		}
		return errors.Join(err, tx.Raise(changes))
	})
}

// row is everything about one name.
type row struct {
	name     string
	managed  bool
	key      *ecdsa.PrivateKey
	chain    string
	cert     *tls.Certificate // nil: none yet
	state    State
	reason   string
	failures int
	failed   time.Time
	next     time.Time
	renew    bool
	roll     roll
}

// roll is a key to come.
type roll struct {
	key  *ecdsa.PrivateKey // nil: none
	made time.Time
	seen time.Time // since when all name servers show it
	ttl  time.Duration
	use  bool
	note string
}

// isManaged is the condition that a server asks for the name of a row.
const isManaged = "EXISTS (SELECT 1 FROM tls_names WHERE tls_names.name = tls_certificates.name)"

const columns = "name, key, chain, state, reason, failures, failed, next, renew, next_key, next_made, next_seen, next_ttl, next_use, next_note"

// rows reads all names.
func (s *Store) rows(ctx context.Context) (all []*row, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		all = nil
		rows, err := tx.Query("SELECT CASE WHEN " + isManaged + " THEN 1 ELSE 0 END, " + columns + " FROM tls_certificates ORDER BY name")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			r, err := s.scan(rows.Scan)
			switch {
			case err == nil:
				all = append(all, r)
			case r == nil:
				return err
			case s.unreadable != nil: // the others go on
				s.unreadable(r.name, err)
			}
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("tls: read certificates: %w", err)
	}
	return all, nil
}

// row reads one name.
func (s *Store) row(ctx context.Context, name string) (r *row, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		r, err = s.scan(tx.QueryRow("SELECT CASE WHEN "+isManaged+" THEN 1 ELSE 0 END, "+columns+" FROM tls_certificates WHERE name = ?", name).Scan)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrUnknownName
	}
	return r, err
}

// scan reads a row. Where its key or certificate cannot be read, the error comes with the row's name.
func (s *Store) scan(scan func(...any) error) (*row, error) {
	var (
		r                             row
		key, nextKey                  []byte
		failed, next, made, seen, ttl int64
		managed, renew, use           int64
		state                         string
		fields                        = []any{&managed, &r.name, &key, &r.chain, &state, &r.reason, &r.failures, &failed, &next, &renew}
		err                           = scan(append(fields, &nextKey, &made, &seen, &ttl, &use, &r.roll.note)...)
	)
	if err != nil {
		return nil, err
	}
	r.managed, r.renew, r.roll.use, r.state = managed == 1, renew == 1, use == 1, State(state)
	r.failed, r.next, r.roll.made, r.roll.seen = fromMilli(failed), fromMilli(next), fromMilli(made), fromMilli(seen)
	r.roll.ttl = time.Duration(ttl) * time.Millisecond
	if r.key, err = s.openKey(key); err != nil {
		return &row{name: r.name}, fmt.Errorf("the key of %s: %w", r.name, err)
	}
	if nextKey != nil {
		if r.roll.key, err = s.openKey(nextKey); err != nil {
			return &row{name: r.name}, fmt.Errorf("the next key of %s: %w", r.name, err)
		}
	}
	if r.chain != "" {
		if r.cert, err = certificate([]byte(r.chain), r.key); err != nil {
			return &row{name: r.name}, fmt.Errorf("the certificate of %s: %w", r.name, err)
		}
	}
	return &r, nil
}

func fromMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func toMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// newKey makes a key, and seals it.
func (s *Store) newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	sealed, err := s.seal.Seal(der)
	return key, sealed, err
}

func (s *Store) openKey(sealed []byte) (*ecdsa.PrivateKey, error) {
	der, err := s.seal.Open(sealed)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it is a %T", parsed)
	}
	return key, nil
}

// certificate joins a chain with its key.
func certificate(chain []byte, key *ecdsa.PrivateKey) (*tls.Certificate, error) {
	c := &tls.Certificate{PrivateKey: key}
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			c.Certificate = append(c.Certificate, block.Bytes)
		}
	}
	if len(c.Certificate) == 0 {
		return nil, errors.New("there is none in it")
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("it is for another key")
	}
	c.Leaf = leaf
	return c, nil
}

// tlsaOf is the record 3 1 1 of a public key: RFC 7671 section 5.1.
func tlsaOf(publicKey any) dane.TLSA {
	der, err := x509.MarshalPKIXPublicKey(publicKey)
	if err != nil {
		return dane.TLSA{} // a key that a certificate has, or that was made here, can be marshalled
	}
	sum := sha256.Sum256(der)
	return dane.TLSA{Usage: 3, Selector: 1, Matching: 1, Data: sum[:]}
}

func (r *row) keys() []Key {
	keys := []Key{{TLSA: tlsaOf(r.key.Public())}}
	if r.roll.key != nil {
		keys = append(keys, Key{Next: true, TLSA: tlsaOf(r.roll.key.Public())})
	}
	return keys
}

func (r *row) status() Status {
	s := Status{Name: r.name, State: r.state, Reason: r.reason, Failures: r.failures, Failed: r.failed, Next: r.next, Asked: r.renew, Keys: r.keys(), Roll: r.roll.note}
	if r.cert != nil {
		s.Expires, s.Issuer = r.cert.Leaf.NotAfter, issuerOf(r.cert.Leaf)
	}
	return s
}

// issuerOf names who signed a certificate.
func issuerOf(c *x509.Certificate) string {
	if len(c.Issuer.Organization) > 0 {
		return c.Issuer.Organization[0] + " " + c.Issuer.CommonName
	}
	return c.Issuer.CommonName
}

// manage makes exactly these names those that a server asks for. New ones get a key.
func (s *Store) manage(ctx context.Context, host string, names []string) error {
	fresh, changed, err := s.compare(ctx, host, names)
	if err != nil || !changed {
		return err
	}
	return s.db.Write(ctx, func(tx *database.Tx) error {
		if _, err := tx.Exec("DELETE FROM tls_names WHERE host = ?", host); err != nil {
			return err
		}
		for _, name := range names {
			if _, err := tx.Exec("INSERT INTO tls_names (name, host) VALUES (?, ?)", name, host); err != nil {
				return err
			}
		}
		for name, key := range fresh {
			_, err := tx.Exec(`INSERT INTO tls_certificates (`+columns+`) VALUES (?, ?, '', 'waiting', '', 0, 0, 0, 0, NULL, 0, 0, 0, 0, '')
				ON CONFLICT (name) DO NOTHING`, name, key)
			if err != nil {
				return err
			}
		}
		return tx.Raise(changes)
	})
}

// compare tells whether a server asks for other names than before, and makes the keys, sealed, of those that are new to all.
func (s *Store) compare(ctx context.Context, host string, names []string) (fresh map[string][]byte, changed bool, err error) {
	known, asked := map[string]bool{}, []string{}
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		clear(known)
		asked = asked[:0]
		if err := each(tx, func(name string) { known[name] = true }, "SELECT name FROM tls_certificates"); err != nil {
			return err
		}
		return each(tx, func(name string) { asked = append(asked, name) }, "SELECT name FROM tls_names WHERE host = ? ORDER BY name", host)
	})
	if err != nil {
		return nil, false, err
	}
	fresh = map[string][]byte{}
	for _, name := range names {
		if known[name] {
			continue
		}
		if _, fresh[name], err = s.newKey(); err != nil {
			return nil, false, err
		}
	}
	return fresh, len(fresh) > 0 || !slices.Equal(asked, names), nil
}

// each calls fn with each text that a query finds.
func each(tx *database.Tx, fn func(string), query string, args ...any) error {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return err
		}
		fn(text)
	}
	return rows.Err()
}

// keep keeps a new certificate. Where it is for the next key, that becomes the key.
func (s *Store) keep(ctx context.Context, name, chain string, rolled bool, renewAt time.Time) error {
	query := "UPDATE tls_certificates SET chain = ?, state = 'good', reason = '', failures = 0, next = ?, renew = 0"
	if rolled {
		query += ", key = next_key, next_key = NULL, next_made = 0, next_seen = 0, next_ttl = 0, next_use = 0, next_note = ''"
	}
	return s.change(ctx, name, query+" WHERE name = ?", chain, toMilli(renewAt), name)
}

// fail notes that there is no new certificate, and when to try again.
func (s *Store) fail(ctx context.Context, name, reason string, next time.Time) error {
	return s.change(ctx, name, "UPDATE tls_certificates SET state = 'failed', reason = ?, failures = failures + 1, failed = ?, next = ?, renew = 0 WHERE name = ?",
		reason, time.Now().UnixMilli(), toMilli(next), name)
}

// skip notes that a name does not lead here. It is looked at again.
func (s *Store) skip(ctx context.Context, name, reason string, next time.Time) error {
	return s.change(ctx, name, "UPDATE tls_certificates SET state = 'skipped', reason = ?, failures = 0, next = ?, renew = 0 WHERE name = ?",
		reason, toMilli(next), name)
}

// noteRoll keeps what was seen of the record of the next key, while that is still the next.
func (s *Store) noteRoll(ctx context.Context, name string, v roll) error {
	use := 0
	if v.use {
		use = 1
	}
	return s.change(ctx, name, `UPDATE tls_certificates SET next_seen = ?, next_ttl = ?, next_use = ?, next_note = ? WHERE name = ? AND next_made = ?`,
		toMilli(v.seen), v.ttl.Milliseconds(), use, v.note, name, toMilli(v.made))
}
