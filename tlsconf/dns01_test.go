package tlsconf

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libdns/libdns"
	"github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"

	"github.com/postroom/postroom/internal/resolve"
)

const tsigSecret = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"

// updates is a primary name server that keeps the updates that it was sent, signed or not.
type updates struct {
	mu   sync.Mutex // guards got
	got  []string
	code int
}

func (u *updates) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	reply := new(dns.Msg)
	reply.SetReply(m)
	if m.IsTsig() == nil || w.TsigStatus() != nil {
		reply.Rcode = dns.RcodeNotAuth
		_ = w.WriteMsg(reply) // a client that is gone does not matter
		return
	}
	u.mu.Lock()
	for _, rr := range m.Ns {
		u.got = append(u.got, m.Question[0].Name+" "+strings.Join(strings.Fields(rr.String()), " "))
	}
	reply.Rcode = u.code
	u.mu.Unlock()
	reply.SetTsig(m.IsTsig().Hdr.Name, m.IsTsig().Algorithm, 300, time.Now().Unix())
	_ = w.WriteMsg(reply)
}

func (u *updates) start(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	server := &dns.Server{Listener: l, Handler: u, TsigSecret: map[string]string{"postroom.": tsigSecret}, NotifyStartedFunc: func() { close(started) },
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.ActivateAndServe() }() // ends with Shutdown
	<-started
	t.Cleanup(func() { _ = server.Shutdown(); <-ended })
	return l.Addr().String()
}

// TestRFC2136 shows what is sent, and what is said where it is refused.
func TestRFC2136(t *testing.T) {
	server := &updates{}
	address := server.start(t)
	record := []libdns.Record{libdns.TXT{Name: "_acme-challenge.mail", Text: `a\b`, TTL: time.Minute}}
	good, err := NewProvider(ProviderOptions{Kind: "rfc2136", Server: address, KeyName: "hmac-sha512:postroom", Secret: tsigSecret + "\n"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := good.AppendRecords(t.Context(), "example.org.", record); err != nil {
		t.Error(err)
	}
	if _, err := good.DeleteRecords(t.Context(), "example.org.", record); err != nil {
		t.Error(err)
	}
	want := []string{`example.org. _acme-challenge.mail.example.org. 60 IN TXT "a\\b"`, `example.org. _acme-challenge.mail.example.org. 0 NONE TXT "a\\b"`}
	if !reflect.DeepEqual(server.got, want) {
		t.Errorf("sent %q, want %q", server.got, want)
	}
	for _, tc := range []struct {
		name string
		p    *RFC2136
		code int
		want string
	}{
		{"another secret", &RFC2136{address, "postroom", "hmac-sha256", "b3RoZXI="}, 0, "see that it knows the key postroom"},
		{"another key", &RFC2136{address, "other", "hmac-sha256", tsigSecret}, 0, "see that it knows the key other"},
		{"not signed", &RFC2136{Server: address}, 0, "refuses to change example.org.: NOTAUTH"},
		{"refused", &RFC2136{address, "postroom", "hmac-sha256", tsigSecret}, dns.RcodeRefused, "refuses to change example.org.: REFUSED"},
		{"nobody there", &RFC2136{Server: "127.0.0.1:1"}, 0, "the name server 127.0.0.1:1: "},
	} {
		server.code = tc.code
		if _, err := tc.p.AppendRecords(t.Context(), "example.org", record); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	if _, err := good.AppendRecords(t.Context(), "example.org", []libdns.Record{libdns.RR{Type: "A", Name: "x", Data: "192.0.2.1"}}); err == nil {
		t.Error("another type is changed")
	}
}

func TestNewProvider(t *testing.T) {
	for _, kind := range []string{"rfc2136", "cloudflare", "route53", "hetzner"} {
		if p, err := NewProvider(ProviderOptions{Kind: kind, KeyName: "k", Secret: tsigSecret}); p == nil || err != nil {
			t.Errorf("%s: %v, %v", kind, p, err)
		}
	}
	for _, o := range []ProviderOptions{{Kind: "x"}, {Kind: "rfc2136", Secret: "not base64!"}} {
		if _, err := NewProvider(o); err == nil {
			t.Errorf("%+v is a provider", o)
		}
	}
}

// oneZone is a DNS whose servers show what the provider, itself, was told, a while later.
type oneZone struct {
	DNS
	delay   time.Duration
	alias   string
	records map[string]time.Time // name and text, and when it was placed
	lost    error                // the servers are not found
	mute    bool
}

func (z *oneZone) Alias(_ context.Context, name string) (string, error) {
	if z.alias != "" {
		return z.alias, nil
	}
	return name, nil
}

func (z *oneZone) Zone(context.Context, string) (string, error) { return "example.org", nil }

func (z *oneZone) AuthoritativeTXT(_ context.Context, name string) ([]resolve.Testimony, error) {
	if z.lost != nil {
		return nil, z.lost
	}
	one := resolve.Testimony{Server: "ns1", Err: &resolve.Error{Kind: resolve.ErrNoData}}
	two := resolve.Testimony{Server: "ns2", Err: &resolve.Error{Kind: resolve.ErrTimeout}}
	if z.mute {
		return []resolve.Testimony{two}, nil
	}
	for record, at := range z.records {
		owner, text, _ := strings.Cut(record, " ")
		if owner == name && time.Since(at) >= z.delay {
			one.Err = nil
			one.Answer.Records = append(one.Answer.Records, &dns.TXT{Hdr: dns.RR_Header{Rrtype: dns.TypeTXT}, Txt: []string{text}})
		}
	}
	return []resolve.Testimony{one, two}, nil
}

func (z *oneZone) AppendRecords(_ context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	for _, r := range records {
		z.records[strings.TrimSuffix(libdns.AbsoluteName(r.RR().Name, zone), ".")+" "+r.RR().Data] = time.Now()
	}
	return records, nil
}

func (z *oneZone) DeleteRecords(_ context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	for _, r := range records {
		delete(z.records, strings.TrimSuffix(libdns.AbsoluteName(r.RR().Name, zone), ".")+" "+r.RR().Data)
	}
	return records, nil
}

// TestDNSSolver shows where the record goes, how long it is waited for, and that it is gone afterwards.
func TestDNSSolver(t *testing.T) {
	challenge := acme.Challenge{Type: acme.ChallengeTypeDNS01, KeyAuthorization: "k", Identifier: acme.Identifier{Type: "dns", Value: "mail.example.org"}}
	for _, tc := range []struct {
		name string
		z    *oneZone
		at   string
		took time.Duration
		want string
	}{
		{"at once", &oneZone{}, "_acme-challenge.mail.example.org", 0, ""},
		{"later", &oneZone{delay: 31 * time.Second}, "_acme-challenge.mail.example.org", 32 * time.Second, ""},
		{"behind an alias", &oneZone{alias: "x.acme.example.org"}, "x.acme.example.org", 0, ""},
		{"never", &oneZone{delay: time.Hour}, "_acme-challenge.mail.example.org", maxPropagation, "not all name servers of _acme-challenge.mail.example.org show"},
		{"nobody answers", &oneZone{mute: true}, "_acme-challenge.mail.example.org", maxPropagation, ""},
		{"servers not found", &oneZone{lost: errors.New("no")}, "_acme-challenge.mail.example.org", 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.z.records = map[string]time.Time{}
				s := &dnsSolver{provider: tc.z, dns: tc.z}
				if err := s.Present(t.Context(), challenge); err != nil {
					t.Fatal(err)
				}
				if _, ok := tc.z.records[tc.at+" "+challenge.DNS01KeyAuthorization()]; !ok {
					t.Errorf("placed %v", tc.z.records)
				}
				began := time.Now()
				err := s.Wait(t.Context(), challenge)
				if took := time.Since(began); took != tc.took || (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
					t.Errorf("waited %v, %v; want %v, %q", took, err, tc.took, tc.want)
				}
				ended, cancel := context.WithCancel(t.Context())
				cancel() // an order that was given up
				if err := s.CleanUp(ended, challenge); err != nil || len(tc.z.records) > 0 {
					t.Errorf("left %v, %v", tc.z.records, err)
				}
			})
		})
	}
}

// TestProbe connects to what can be behind an address, over both methods.
func TestProbe(t *testing.T) {
	listen := func() (net.Listener, uint16) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l, l.Addr().(*net.TCPAddr).AddrPort().Port()
	}
	closed, closedPort := listen()
	_ = closed.Close()
	answering := func(body string) uint16 {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Server", "nginx")
			if r.Host != testHost || r.URL.Path != challengePath+probePrefix+"NONCE" {
				body = "wrong " + r.Host + r.URL.Path
			}
			_, _ = w.Write([]byte(body))
		}))
		t.Cleanup(server.Close)
		return netip.MustParseAddrPort(server.Listener.Addr().String()).Port()
	}
	secured := func(subject string, protocols ...string) uint16 {
		c, err := selfMade(subject, testHost, testKey(t))
		if err != nil {
			t.Fatal(err)
		}
		l, port := listen()
		server := tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*c}, NextProtos: protocols})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := server.Accept()
				if err != nil {
					return
				}
				_ = conn.(*tls.Conn).HandshakeContext(t.Context()) // the client sees how it went
				_ = conn.Close()
			}
		}()
		t.Cleanup(func() { _ = server.Close(); <-done })
		return port
	}
	for _, tc := range []struct {
		name string
		m    method
		n    network
		want string // of fmt's %v
	}{
		{"ours", byHTTP, network{http: answering("NONCE")}, "{true  }"},
		{"another one's", byHTTP, network{http: answering("hello")}, "{false 200 nginx }"},
		{"closed", byHTTP, network{http: closedPort}, "{false  connection refused}"},
		{"ours, TLS", byALPN, network{https: secured(probePrefix+"NONCE", "acme-tls/1")}, "{true  }"},
		{"another one's, TLS", byALPN, network{https: secured("other", "acme-tls/1")}, "{false its certificate is for other }"},
		{"no such protocol", byALPN, network{https: secured("other", "h2")}, "{false it does not know acme-tls/1"},
		{"closed, TLS", byALPN, network{https: closedPort}, "{false  connection refused}"},
	} {
		got := fmt.Sprint(tc.n.Probe(t.Context(), tc.m, testHost, netip.MustParseAddr("127.0.0.1"), "NONCE"))
		if !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestIdentities reads the names of an authority from its directory.
func TestIdentities(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		status     int
		want       string
		fails      bool
	}{
		{"named", `{"meta":{"caaIdentities":["ca.example"]}}`, 200, "[ca.example]", false},
		{"not named", `{"newNonce":"x"}`, 200, "[]", false},
		{"no directory", `<html>`, 200, "[]", true},
		{"gone", `{}`, 404, "[]", true},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tc.status)
			_, _ = w.Write([]byte(tc.body))
		}))
		i := &issuers{ca: authorityOf(server.URL), http: server.Client()}
		got, err := i.identities(t.Context())
		if fmt.Sprint(got) != tc.want || (err != nil) != tc.fails {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
		server.Close()
		if _, err := i.identities(t.Context()); err == nil || !strings.Contains(err.Error(), "is not reached") {
			t.Errorf("nobody there: %v", err)
		}
	}
	if got, err := (&issuers{ca: authorityOf("")}).identities(t.Context()); fmt.Sprint(got) != "[letsencrypt.org]" || err != nil {
		t.Errorf("known: %v, %v", got, err)
	}
}

// TestLibraryLog shows where the library's lines go.
func TestLibraryLog(t *testing.T) {
	var out lockedBuffer
	log := newLibraryLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))).Sugar().With("ca", "x")
	log.Infow("a success", "n", 1)
	log.Errorw("a failure", "n", 2, "err", errors.New("why"))
	if got := out.String(); strings.Contains(got, "success") || !strings.Contains(got, `level=INFO msg="acme: a failure"`) || !strings.Contains(got, "ca=x") || !strings.Contains(got, "n=2") || !strings.Contains(got, "err=why") {
		t.Error(got)
	}
}

// TestLook describes what is there, and makes nothing.
func TestLook(t *testing.T) {
	dir := t.TempDir()
	if _, err := Look(Options{Source: "local", DataDir: dir, Hostname: testHost}); err == nil || !strings.Contains(err.Error(), "there is no file") {
		t.Errorf("nothing there: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("made %v, %v", left, err)
	}
	s := openLocal(t, dir)
	keys, err := s.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 1 || all[0].Name != testHost || !reflect.DeepEqual(all[0].Keys, keys) {
		t.Errorf("listed %+v, %v", all, err)
	}
	for _, o := range []Options{{Source: "local", DataDir: dir, Hostname: testHost}, {Source: "files", CertFile: filepath.Join(dir, "tls", certFile), Hostname: testHost}} {
		got, err := Look(o)
		if err != nil || got.Name != testHost || !got.Expires.Equal(s.Expires()) || !reflect.DeepEqual(got.Keys, keys) || !strings.Contains(got.Issuer, "local authority") {
			t.Errorf("%s: %+v, %v", o.Source, got, err)
		}
	}
}
