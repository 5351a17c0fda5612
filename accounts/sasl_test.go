package accounts

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xdg-go/scram"

	"github.com/postroom/postroom/internal/mailtest"
)

// tlsState is one end's view of a real TLS connection, and what the other end binds to.
func tlsState(t testing.TB, version uint16) (state tls.ConnectionState, client *tls.Conn) {
	t.Helper()
	certificate, _ := mailtest.Certificate(t, "localhost")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	var server *tls.Conn
	go func() {
		c, err := l.Accept()
		if err == nil {
			server = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}, MaxVersion: version})
			err = server.Handshake()
		}
		done <- err
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // the test's own certificate
	if err := errors.Join(client.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return server.ConnectionState(), client
}

// converse runs a client's conversation against an exchange.
func converse(ctx context.Context, x *Exchange, c *scram.ClientConversation) error {
	message, err := c.Step("")
	for err == nil {
		var challenge []byte
		var done bool
		challenge, done, err = x.Next(ctx, []byte(message))
		if err != nil {
			return err
		}
		message, err = c.Step(string(challenge))
		if err == nil && done {
			if !c.Valid() {
				return errors.New("the client does not trust the server")
			}
			return nil
		}
	}
	return err
}

func scramClient(t *testing.T, user, password string) *scram.Client {
	t.Helper()
	c, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSCRAM logs in with another library's client: with the account's password and those of its devices, with and
// without channel binding, and with what must fail.
func TestSCRAM(t *testing.T) {
	w := newWorld(t)
	device, err := w.s.AddDevice(t.Context(), mailbox("anna@example.org"), "phone", Receive)
	w.check(err)
	send, err := w.s.AddDevice(t.Context(), mailbox("anna@example.org"), "printer", Send)
	w.check(err)
	w.add("asleep@example.org")
	w.check(w.s.Disable(t.Context(), mailbox("asleep@example.org")))
	state, client := tlsState(t, tls.VersionTLS13)
	_, other := tlsState(t, tls.VersionTLS13)
	for _, tc := range []struct {
		name, mechanism, user, password string
		device                          string
		bind                            *tls.Conn // nil: the client does not bind
		want                            error
	}{
		{"right", "SCRAM-SHA-256", "anna@example.org", password, "", nil, nil},
		{"other letters", "SCRAM-SHA-256", "ANNA@example.org", password, "", nil, nil},
		{"device", "SCRAM-SHA-256", "anna@example.org", device, "phone", nil, nil},
		{"device for the wrong service", "SCRAM-SHA-256", "anna@example.org", send, "", nil, ErrWrongUse},
		{"bound", "SCRAM-SHA-256-PLUS", "anna@example.org", password, "", client, nil},
		{"bound device", "SCRAM-SHA-256-PLUS", "anna@example.org", device, "phone", client, nil},
		{"bound to another connection", "SCRAM-SHA-256-PLUS", "anna@example.org", password, "", other, ErrBadCredentials},
		{"PLUS without binding", "SCRAM-SHA-256-PLUS", "anna@example.org", password, "", nil, ErrBadCredentials},
		{"binding without PLUS", "SCRAM-SHA-256", "anna@example.org", password, "", client, ErrBadCredentials},
		{"wrong password", "SCRAM-SHA-256", "anna@example.org", "wrong password", "", nil, ErrBadCredentials},
		{"unknown", "SCRAM-SHA-256", "nobody@example.org", password, "", nil, ErrBadCredentials},
		{"disabled", "SCRAM-SHA-256", "asleep@example.org", password, "", nil, ErrBadCredentials},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.s.throttle = newThrottle()
			x, err := w.s.SASL(tc.mechanism, Peer{Remote: netip.MustParseAddr("192.0.2.1"), TLS: &state, Use: Receive})
			w.check(err)
			conversation := scramClient(t, tc.user, tc.password).NewConversation()
			if tc.bind != nil {
				cs := tc.bind.ConnectionState()
				binding, err := scram.NewTLSExporterBinding(&cs)
				w.check(err)
				conversation = scramClient(t, tc.user, tc.password).NewConversationWithChannelBinding(binding)
			}
			err = converse(t.Context(), x, conversation)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			l, err := x.Login()
			if (err == nil) != (tc.want == nil) || l.Device != tc.device {
				t.Errorf("login %+v, %v", l, err)
			}
			if _, _, err := x.Next(t.Context(), nil); err == nil {
				t.Error("the exchange goes on after its end")
			}
		})
	}
}

// TestSCRAMVector computes what RFC 7677 section 3 shows.
func TestSCRAMVector(t *testing.T) {
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	stored, server, err := scramKeys("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	const message = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096," +
		"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	proof, err := base64.StdEncoding.DecodeString("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
	if err != nil {
		t.Fatal(err)
	}
	if !fits(stored, message, proof) {
		t.Error("the proof of the RFC does not fit")
	}
	proof[0] ^= 1
	if fits(stored, message, proof) {
		t.Error("another proof fits")
	}
	if got := base64.StdEncoding.EncodeToString(sign(server, message)); got != "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=" {
		t.Errorf("server signature %s", got)
	}
}

// TestSCRAMFirst has a row for each form of a client's first message.
func TestSCRAMFirst(t *testing.T) {
	w := newWorld(t)
	state, _ := tlsState(t, tls.VersionTLS13)
	for _, tc := range []struct {
		name, message string
		want          error
	}{
		{"ordinary", "n,,n=anna@example.org,r=abc", nil},
		{"authorization identity", "n,a=anna@example.org,n=anna@example.org,r=abc", nil},
		{"another identity", "n,a=ben@example.org,n=anna@example.org,r=abc", ErrMalformed},
		{"escaped", "n,,n=an=2Cna=3D,r=abc", nil},
		{"badly escaped", "n,,n=an=2Dna,r=abc", ErrMalformed},
		{"extension that must be known", "n,,m=x,n=anna@example.org,r=abc", ErrMalformed},
		{"extension that need not", "n,,n=anna@example.org,r=abc,x=y", nil},
		{"the offer was hidden", "y,,n=anna@example.org,r=abc", ErrBadCredentials},
		{"no nonce", "n,,n=anna@example.org,r=", ErrMalformed},
		{"no name", "n,,n=,r=abc", ErrMalformed},
		{"long nonce", "n,,n=a,r=" + strings.Repeat("x", maxNonce), ErrMalformed},
		{"not UTF-8", "n,,n=\xff,r=abc", ErrMalformed},
		{"nothing", "", ErrMalformed},
		{"not SCRAM", "\x00anna\x00secret", ErrMalformed},
	} {
		x, err := w.s.SASL("SCRAM-SHA-256", Peer{Remote: netip.MustParseAddr("192.0.2.1"), TLS: &state, Use: Receive})
		w.check(err)
		challenge, done, err := x.Next(t.Context(), []byte(tc.message))
		if !errors.Is(err, tc.want) || done || (err == nil) != strings.HasPrefix(string(challenge), "r=abc") {
			t.Errorf("%s: %q, %v; want %v", tc.name, challenge, err, tc.want)
		}
	}
	// A name that is nobody's gets a salt that stays the same and tells nothing.
	salts := map[string]bool{}
	for range 3 {
		x, err := w.s.SASL("SCRAM-SHA-256", Peer{Remote: netip.MustParseAddr("192.0.2.1"), TLS: &state, Use: Receive})
		w.check(err)
		challenge, _, err := x.Next(t.Context(), []byte("n,,n=nobody@example.org,r=abc"))
		w.check(err)
		_, salt, _ := strings.Cut(string(challenge), ",")
		salts[salt] = true
	}
	if len(salts) != 1 {
		t.Errorf("the salt of a name that is nobody's changes: %v", salts)
	}
}

func TestMechanisms(t *testing.T) {
	s := &Service{}
	if m := s.Mechanisms(nil); m != nil {
		t.Errorf("without TLS: %v", m)
	}
	if _, err := s.SASL("PLAIN", Peer{}); err == nil {
		t.Error("an exchange without TLS")
	}
	new13, _ := tlsState(t, tls.VersionTLS13)
	if m := s.Mechanisms(&new13); len(m) != 4 || m[0] != "SCRAM-SHA-256-PLUS" {
		t.Errorf("TLS 1.3: %v", m)
	}
	if m := s.Mechanisms(&tls.ConnectionState{}); len(m) != 3 || m[0] != "SCRAM-SHA-256" {
		t.Errorf("TLS without an exporter: %v", m)
	}
}

func TestPlainAndLogin(t *testing.T) {
	w := newWorld(t)
	state, _ := tlsState(t, tls.VersionTLS13)
	for _, tc := range []struct {
		name, mechanism string
		responses       []string // "-" is none
		want            error
	}{
		{"PLAIN", "PLAIN", []string{"\x00anna@example.org\x00" + password}, nil},
		{"PLAIN after an empty challenge", "PLAIN", []string{"-", "\x00anna@example.org\x00" + password}, nil},
		{"PLAIN, same identity", "PLAIN", []string{"Anna@example.org\x00anna@example.org\x00" + password}, nil},
		{"PLAIN, another identity", "PLAIN", []string{"ben@example.org\x00anna@example.org\x00" + password}, ErrBadCredentials},
		{"PLAIN, wrong", "PLAIN", []string{"\x00anna@example.org\x00wrong"}, ErrBadCredentials},
		{"PLAIN, two parts", "PLAIN", []string{"anna@example.org\x00" + password}, ErrMalformed},
		{"PLAIN, four parts", "PLAIN", []string{"\x00anna@example.org\x00correct\x00horse"}, ErrMalformed},
		{"PLAIN, empty", "PLAIN", []string{""}, ErrMalformed},
		{"PLAIN, not UTF-8", "PLAIN", []string{"\x00anna@example.org\x00\xff\xff"}, ErrMalformed},
		{"LOGIN", "LOGIN", []string{"-", "anna@example.org", password}, nil},
		{"LOGIN with an initial response", "LOGIN", []string{"anna@example.org", password}, nil},
		{"LOGIN, wrong", "LOGIN", []string{"-", "anna@example.org", "wrong"}, ErrBadCredentials},
		{"LOGIN, no name", "LOGIN", []string{"-", ""}, ErrMalformed},
	} {
		w.s.throttle = newThrottle()
		x, err := w.s.SASL(tc.mechanism, Peer{Remote: netip.MustParseAddr("192.0.2.1"), TLS: &state, Use: Receive})
		w.check(err)
		var done bool
		for _, r := range tc.responses {
			response := []byte(r)
			if r == "-" {
				response = nil
			}
			if _, done, err = x.Next(t.Context(), response); err != nil {
				break
			}
		}
		if !errors.Is(err, tc.want) || done != (tc.want == nil) {
			t.Errorf("%s: done %t, %v; want %v", tc.name, done, err, tc.want)
		}
	}
}

// FuzzSASL sends anything to every mechanism: nobody gets in without a password.
func FuzzSASL(f *testing.F) {
	f.Add(uint8(0), []byte("\x00anna@example.org\x00wrong"), []byte{})
	f.Add(uint8(1), []byte("anna@example.org"), []byte("wrong"))
	f.Add(uint8(2), []byte("n,,n=anna@example.org,r=abc"), []byte("c=biws,r=abc,p=AAAA"))
	f.Add(uint8(3), []byte("p=tls-exporter,,n=anna@example.org,r=abc"), []byte("c=,r=,p="))
	f.Fuzz(func(t *testing.T, which uint8, first, second []byte) {
		state := tls.ConnectionState{}
		s := &Service{secret: []byte("secret"), throttle: newThrottle(), memory: newMemory(), iterations: 1}
		p := Peer{Remote: netip.MustParseAddr("192.0.2.1"), TLS: &state, Use: Receive}
		// Storage is left out: what the parsers make of the input is looked at, with a candidate that is anna.
		stored := sha256.Sum256([]byte("nobody knows"))
		x := &scramExchange{s: s, p: p, candidate: candidate{account: 1, credentials: []credential{{id: 1, storedKey: stored[:], serverKey: stored[:]}}}}
		if which%2 == 1 {
			x.binding = []byte("binding")
		}
		message, flag, ok := parseClientFirst(string(first))
		if !ok || !x.bindingFits(flag) {
			return
		}
		if message.gs2+message.bare != string(first) {
			t.Fatalf("%q was taken apart as %q and %q", first, message.gs2, message.bare)
		}
		x.first, x.nonce, x.serverFirst = message, "server", "r="+message.nonce+"server,s=AAAA,i=1"
		if _, login, err := x.finish(t.Context(), second); err == nil || login != nil {
			t.Fatalf("%q logged in", second)
		}
	})
}

func TestThrottle(t *testing.T) {
	for _, tc := range []struct {
		name string
		s    scores
		want bool
	}{
		{"nothing", scores{}, false},
		{"a few from the address", scores{address: 4.9}, false},
		{"many from the address", scores{address: 5}, true},
		{"many from the network", scores{network: 20}, true},
		{"many for the account, from strangers", scores{account: 10}, true},
		{"many for the account, its owner at home", scores{account: 30, knownNetwork: true}, false},
		{"the owner's own address failed too often", scores{address: 5, account: 30, knownNetwork: true}, true},
	} {
		if got := tooMany(tc.s); got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		ip := netip.MustParseAddr("192.0.2.1")
		for range 100 {
			th.fail(ip, "anna@example.org")
		}
		if !tooMany(th.scores(ip, "x")) || !tooMany(th.scores(netip.MustParseAddr("::ffff:192.0.2.1"), "x")) {
			t.Error("a hundred failures are not too many")
		}
		if tooMany(th.scores(netip.MustParseAddr("198.51.100.1"), "x")) {
			t.Error("somebody else pays")
		}
		if !tooMany(th.scores(netip.MustParseAddr("198.51.100.1"), "anna@example.org")) {
			t.Error("the account is not protected from strangers elsewhere")
		}
		time.Sleep(90 * time.Second)
		if tooMany(th.scores(ip, "x")) {
			t.Error("the failures have not faded in 90 s")
		}
		wide := netip.MustParseAddr("2001:db8:1:1::1")
		for i := range 21 {
			b := wide.As16()
			b[7] = byte(i) // each from a /64 of its own
			th.fail(netip.AddrFrom16(b), string(rune('a'+i)))
		}
		if !tooMany(th.scores(netip.MustParseAddr("2001:db8:1:ffff::1"), "x")) {
			t.Error("a /48 may try without end")
		}
		for i := range maxThrottled {
			th.fail(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), "x")
		}
		if len(th.entries) > maxThrottled || th.recent.Len() != len(th.entries) {
			t.Errorf("%d keys in memory", len(th.entries))
		}
		_ = th.scores(netip.Addr{}, "x") // an address that is none does not panic
	})
}

// TestOwnerIsNotLockedOut shows that strangers who guess do not keep the owner out, at the networks that the owner uses.
func TestOwnerIsNotLockedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		home, away, stranger := peer("192.0.2.1"), peer("198.51.100.1"), "203.0.113."
		_, err := w.s.LogIn(t.Context(), home, "anna@example.org", password)
		w.check(err)
		w.s.memory.forget() // remembered logins would always get in
		for i := range 12 {
			_, err = w.s.LogIn(t.Context(), peer(stranger+string(rune('0'+i%10))), "anna@example.org", "guess guess")
			if !errors.Is(err, ErrBadCredentials) && !errors.Is(err, ErrThrottled) {
				t.Fatal(err)
			}
		}
		if _, err := w.s.LogIn(t.Context(), away, "anna@example.org", password); !errors.Is(err, ErrThrottled) {
			t.Errorf("from a network that is not known: %v", err)
		}
		if _, err := w.s.LogIn(t.Context(), home, "anna@example.org", password); err != nil {
			t.Errorf("from home: %v", err)
		}
		time.Sleep(90 * time.Second)
		if _, err := w.s.LogIn(t.Context(), away, "anna@example.org", password); err != nil {
			t.Errorf("from elsewhere, a little later: %v", err)
		}
	})
}
