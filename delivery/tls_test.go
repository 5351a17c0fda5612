package delivery

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/mailtest"
	"github.com/postroom/postroom/internal/resolve/zone"
	"github.com/postroom/postroom/queue"
)

// hosts are the ways in which TLS goes well or badly. In the bubble it is the year 2000.
func tlsHosts(t *testing.T) (hosts map[string]*sink, roots *x509.CertPool) {
	good, roots := mailtest.Certificate(t, "mx.remote.example")
	elsewhere, _ := mailtest.Certificate(t, "other.example")
	stranger, _ := mailtest.Certificate(t, "mx.remote.example")
	old := expiredCertificate(t, "mx.remote.example")
	roots.AddCert(elsewhere.Leaf) // each certificate is its own root
	roots.AddCert(old.Leaf)
	broken := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("broken") }}
	trips := &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if h.SupportedVersions[0] == tls.VersionTLS13 {
			return nil, errors.New("it trips over TLS 1.3")
		}
		return &tls.Config{Certificates: []tls.Certificate{good}}, nil
	}}
	offer := []string{"STARTTLS"}
	return map[string]*sink{
		"good":       {offers: offer, cert: &good},
		"requiretls": {offers: []string{"STARTTLS", "REQUIRETLS"}, cert: &good},
		"no TLS":     {cert: &good},
		"refuses":    {offers: offer, cert: &good, replies: map[string]string{"STARTTLS": "454 4.7.0 not now"}},
		"broken":     {offers: offer, config: broken},
		"trips":      {offers: offer, config: trips},
		"leftover":   {offers: offer, cert: &good, injects: "250 injected\r\n"},
		"name":       {offers: offer, cert: &elsewhere},
		"expired":    {offers: offer, cert: &old},
		"stranger":   {offers: offer, cert: &stranger, pinOther: true},
	}, roots
}

func expiredCertificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name},
		NotBefore: time.Date(1998, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestTLS delivers under every policy to every kind of host. A cell is how it ended: 1.3, 1.2 or clear for a letter that was
// delivered that way, else the code of the outcome, with F where it is final.
func TestTLS(t *testing.T) {
	const table = `
		policy                  | good  | requiretls | no TLS | refuses | broken | trips | leftover | name  | expired | stranger
		none                    | 1.3   | 1.3  | clear  | clear  | clear | 1.2   | clear | 1.3   | 1.3   | 1.3
		testing                 | 1.3   | 1.3  | clear  | clear  | clear | 1.2   | clear | 1.3   | 1.3   | 1.3
		testing,mismatch        | 1.3   | 1.3  | clear  | clear  | clear | 1.2   | clear | 1.3   | 1.3   | 1.3
		enforce                 | 1.3   | 1.3  | 4.7.10 | 4.7.10 | 4.7.5 | 1.2   | 4.7.5 | 4.7.5 | 4.7.5 | 4.7.5
		enforce,mismatch        | 4.7.5 | 4.7.5| 4.7.5  | 4.7.5  | 4.7.5 | 4.7.5 | 4.7.5 | 4.7.5 | 4.7.5 | 4.7.5
		dane                    | 1.3   | 1.3  | 4.7.10 | 4.7.10 | 4.7.5 | 1.2   | 4.7.5 | 4.7.5 | 4.7.5 | 4.7.5
		dane+enforce,mismatch   | 1.3   | 1.3  | 4.7.10 | 4.7.10 | 4.7.5 | 1.2   | 4.7.5 | 4.7.5 | 4.7.5 | 4.7.5
		unusable                | 1.3   | 1.3  | 4.7.10 | 4.7.10 | 4.7.5 | 1.2   | 4.7.5 | 1.3   | 1.3   | 1.3
		bogus                   | 4.7.5 | 4.7.5| 4.7.5  | 4.7.5  | 4.7.5 | 4.7.5 | 4.7.5 | 4.7.5 | 4.7.5 | 4.7.5
		insecure                | 1.3   | 1.3  | clear  | clear  | clear | 1.2   | clear | 1.3   | 1.3   | 1.3
		requiretls              | 5.7.30F | 5.7.30F | 5.7.30F | 5.7.30F | 5.7.30F | 5.7.30F | 5.7.30F | 5.7.30F | 5.7.30F | 5.7.30F
		requiretls+dane         | 5.7.30F | 1.3 | 5.7.10F | 4.7.10 | 4.7.5 | 5.7.30F | 4.7.5 | 4.7.5 | 4.7.5 | 4.7.5
		requiretls+enforce      | 5.7.30F | 1.3 | 5.7.10F | 4.7.10 | 4.7.5 | 5.7.30F | 4.7.5 | 4.7.5 | 4.7.5 | 4.7.5
		requiretls+unusable     | 5.7.30F | 1.3 | 5.7.10F | 4.7.10 | 4.7.5 | 5.7.30F | 4.7.5 | 4.7.5 | 4.7.5 | 4.7.5
		optional                | 1.3   | 1.3  | clear  | clear  | clear | 1.2   | clear | 1.3   | 1.3   | 1.3
		optional+dane           | 1.3   | 1.3  | clear  | clear  | clear | 1.2   | clear | 1.3   | 1.3   | 1.3
		optional+bogus          | 1.3   | 1.3  | clear  | clear  | clear | 1.2   | clear | 1.3   | 1.3   | 1.3
		optional+enforce,mismatch | 1.3 | 1.3  | clear  | clear  | clear | 1.2   | clear | 1.3   | 1.3   | 1.3
		relay                   | 1.3   | 1.3  | 4.7.10 | 4.7.10 | 4.7.5 | 1.2   | 4.7.5 | 4.7.5 | 4.7.5 | 4.7.5
		relay+optional          | 1.3   | 1.3  | 4.7.10 | 4.7.10 | 4.7.5 | 1.2   | 4.7.5 | 4.7.5 | 4.7.5 | 4.7.5
		relay+requiretls        | 5.7.30F | 1.3 | 5.7.10F | 4.7.10 | 4.7.5 | 5.7.30F | 4.7.5 | 4.7.5 | 4.7.5 | 4.7.5`
	lines := strings.Split(strings.TrimSpace(table), "\n")
	columns := strings.Split(lines[0], "|")[1:]
	synctest.Test(t, func(t *testing.T) {
		hosts, roots := tlsHosts(t)
		db := databasetest.Open(t)
		for _, line := range lines[1:] {
			cells := strings.Split(line, "|")
			policy := strings.TrimSpace(cells[0])
			for i, column := range columns {
				host := strings.TrimSpace(column)
				w := newTLSWorld(t, db, roots)
				if got, want := tlsCell(w, policy, hosts[host]), strings.TrimSpace(cells[i+1]); got != want {
					t.Errorf("%s, %s: %s, want %s", policy, host, got, want)
				}
			}
		}
	})
}

// newTLSWorld is a world in which nothing is published and no smarthost is set.
func newTLSWorld(t *testing.T, db *database.DB, roots *x509.CertPool) *world {
	w := newWorld(t)
	w.options.Roots, w.options.DB, w.options.Sealer = roots, db, sealer(t, 1)
	err := db.Write(t.Context(), func(tx *database.Tx) error {
		_, err := tx.Exec("DELETE FROM mta_sts")
		_, err2 := tx.Exec("DELETE FROM relays")
		return errors.Join(err, err2)
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// tlsCell sends one letter in a world where the policy is made of words.
func tlsCell(w *world, policy string, k *sink) string {
	k.letters = nil
	w.serve("192.0.2.1", k.serve)
	d, end := w.deliverer()
	defer end()
	l := letter(w)
	for word := range strings.SplitSeq(policy, "+") {
		switch mode, mismatch, _ := strings.Cut(word, ","); mode {
		case "testing", "enforce":
			w.publishSTS(d, mode, map[bool]string{true: "mx.remote.example", false: "other.example"}[mismatch == ""])
		case "dane", "insecure":
			w.publishTLSA("3 1 1", w.pinFor(k))
		case "unusable":
			w.publishTLSA("0 1 1", w.pinFor(k)) // RFC 7672 section 3.1.3
		case "bogus":
			w.zone.SetFault("_25._tcp.mx.remote.example", zone.ServFail)
		case "requiretls":
			l.RequireTLS = true
		case "optional":
			l.TLSOptional = true
		case "relay":
			if err := d.relays.SetRelay(w.Context(), Relay{Host: "mx.remote.example"}); err != nil {
				w.Fatal(err)
			}
		}
	}
	w.zone.SetSecure(policy != "insecure" && policy != "requiretls" && !strings.Contains(policy, "enforce") || strings.Contains(policy, "dane"))
	o := d.Deliver(w.Context(), l, recipients(w, "ben@remote.example"), opens(letterText))[0]
	w.seen = o
	if (o.Status == queue.Delivered) != (len(k.letters) == 1) {
		w.Errorf("%s: the server has %d letters, and the outcome is %+v", policy, len(k.letters), o)
	}
	return tlsResult(o)
}

func tlsResult(o queue.Outcome) string {
	switch {
	case o.Status == queue.Failed:
		return o.Enhanced + "F"
	case o.Status == queue.Deferred:
		return o.Enhanced
	case o.TLS == "":
		return "clear"
	}
	return strings.TrimPrefix(strings.Fields(o.TLS)[0]+strings.Fields(o.TLS)[1], "TLS")
}

// pinFor is what the TLSA record of the domain says: always the key of the good certificate.
func (w *world) pinFor(k *sink) string {
	good := k.cert
	if k.config != nil && k.config.GetConfigForClient != nil {
		c, err := k.config.GetConfigForClient(&tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS12}})
		if err != nil {
			w.Fatal(err)
		}
		good = &c.Certificates[0]
	}
	bad := strings.Repeat("00", sha256.Size)
	if good == nil || good.Leaf.DNSNames[0] != "mx.remote.example" || good.Leaf.NotAfter.Before(time.Now()) || k.pinOther {
		return bad
	}
	sum := sha256.Sum256(good.Leaf.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// chainFor makes a certificate for a name, and the authority that signed it.
func chainFor(t *testing.T, name string) (tls.Certificate, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, caDER}, PrivateKey: key}, authority
}

// TestPinnedNames shows that a connection that was good for one domain is not used for another, where the TLSA record names an authority:
// then it depends on the domain which names the certificate may have (RFC 7672 section 3.2.2).
func TestPinnedNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cert, authority := chainFor(t, "evil.example")
		sum := sha256.Sum256(authority.RawSubjectPublicKeyInfo)
		w.publishTLSA("2 1 1", hex.EncodeToString(sum[:]))
		if err := w.zone.Add("evil.example. 300 IN MX 10 mx.remote.example."); err != nil {
			t.Fatal(err)
		}
		w.zone.SetSecure(true)
		w.serve("192.0.2.1", (&sink{offers: []string{"STARTTLS"}, cert: &cert}).serve)
		d, end := w.deliverer()
		defer end()
		checkMatch(t, "to evil.example", "delivered *", describeOutcome(send(t, d, "x@evil.example")))
		checkMatch(t, "to remote.example", "deferred 4.7.5 *", describeOutcome(send(t, d, "ben@remote.example")))
	})
}

// TestTLSDemanded shows that a server that wants TLS, and where it did not come about, is tried again, with TLS.
func TestTLSDemanded(t *testing.T) {
	for _, step := range []string{"MAIL", "RCPT", "DATA"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				hosts, _ := tlsHosts(t)
				k := hosts["broken"]
				k.replies = map[string]string{step: "530 5.7.0 Must issue a STARTTLS command first"}
				w.serve("192.0.2.1", k.serve)
				d, end := w.deliverer()
				defer end()
				checkMatch(t, "while TLS is broken", "deferred *530 5.7.0*", describeOutcome(send(t, d, "ben@remote.example")))
				w.serve("192.0.2.1", hosts["good"].serve)
				checkMatch(t, "when it works", "delivered *", describeOutcome(send(t, d, "ben@remote.example")))
			})
		})
	}
}

func (w *world) publishTLSA(kind, data string) {
	if err := w.zone.Add("_25._tcp.mx.remote.example. 300 IN TLSA " + kind + " " + data); err != nil {
		w.Fatal(err)
	}
}

// publishSTS puts a policy into the cache, as if it had been fetched.
func (w *world) publishSTS(d *Deliverer, mode, mx string) {
	w.zone.AddTXT("_mta-sts.remote.example", "v=STSv1; id=1;")
	row := stsRow{domain: "remote.example", id: "1", policy: []byte("version: STSv1\r\nmode: " + mode + "\r\nmx: " + mx + "\r\nmax_age: 604800\r\n")}
	row.fetched, row.expires = time.Now(), time.Now().Add(7*24*time.Hour)
	if err := d.sts.save(w.Context(), row); err != nil {
		w.Fatal(err)
	}
}

// TestReportedPolicy shows what an outcome says about the policy, and what a test of MTA-STS would have refused.
func TestReportedPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts, roots := tlsHosts(t)
		db := databasetest.Open(t)
		for _, tc := range []struct{ policy, host, want string }{
			{"none", "good", "opportunistic"},
			{"optional", "good", "none"},
			{"dane", "good", "dane"},
			{"unusable", "good", "dane"},
			{"enforce", "good", "mta-sts"},
			{"enforce,mismatch", "good", "mta-sts"},
			{"requiretls+dane", "requiretls", "requiretls"},
			{"relay", "good", "relay"},
			{"testing", "good", "opportunistic; mta-sts testing"},
			{"testing", "no TLS", "opportunistic; mta-sts testing: the host does not offer TLS"},
			{"testing", "broken", "opportunistic; mta-sts testing: the TLS handshake failed"},
			{"testing", "name", "opportunistic; mta-sts testing: the certificate does not name the host"},
			{"testing", "expired", "opportunistic; mta-sts testing: the certificate is not valid at this time"},
			{"testing", "stranger", "opportunistic; mta-sts testing: the certificate comes from nobody that is trusted"},
			{"testing,mismatch", "name", "opportunistic; mta-sts testing: the policy does not name the host"},
		} {
			w := newTLSWorld(t, db, roots)
			tlsCell(w, tc.policy, hosts[tc.host])
			if w.seen.Policy != tc.want {
				t.Errorf("%s, %s: policy %q, want %q", tc.policy, tc.host, w.seen.Policy, tc.want)
			}
		}
	})
}

// TestRemembersBrokenTLS shows that a host whose TLS is broken is not asked for it by every letter, for a while, and only where
// nothing depends on it.
func TestRemembersBrokenTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts, roots := tlsHosts(t)
		w := newWorld(t)
		w.options.Roots = roots
		w.serve("192.0.2.1", hosts["broken"].serve)
		d, end := w.deliverer()
		for i, step := range []struct {
			wait  time.Duration
			calls int
		}{{0, 3}, {time.Minute, 4}, {50 * time.Minute, 5}, {time.Hour, 8}} {
			time.Sleep(step.wait)
			if got := tlsResult(send(t, d, "ben@remote.example")); got != "clear" {
				t.Errorf("letter %d went by %s", i, got)
			}
			if n := w.count(); n != step.calls {
				t.Errorf("letter %d: %d calls so far, want %d", i, n, step.calls)
			}
		}
		end()
	})
}

// TestNoMixing shows that a connection is not used for a letter that asks for more than it has.
func TestNoMixing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts, roots := tlsHosts(t)
		w := newWorld(t)
		w.options.Roots, w.options.DB, w.options.Sealer = roots, databasetest.Open(t), sealer(t, 1)
		w.serve("192.0.2.1", hosts["stranger"].serve)
		d, end := w.deliverer()
		if got := tlsResult(send(t, d, "ben@remote.example")); got != "1.3" {
			t.Errorf("first %s", got)
		}
		w.publishSTS(d, "enforce", "mx.remote.example")
		if got := tlsResult(send(t, d, "ben@remote.example")); got != "4.7.5" {
			t.Errorf("over the idle connection: %s", got)
		}
		end()
	})
}
