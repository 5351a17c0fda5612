package dnscheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/mailtest"
)

// TestReadTime shows what replies of a time server say.
func TestReadTime(t *testing.T) {
	sent := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	got := sent.Add(200 * time.Millisecond)
	reply := func(theirs time.Time, change func([]byte)) []byte {
		b := make([]byte, 48)
		b[0], b[1] = 4<<3|4, 2
		binary.BigEndian.PutUint32(b[40:], uint32(uint64(theirs.Sub(ntpEpoch)/time.Second)))
		binary.BigEndian.PutUint32(b[44:], uint32(uint64(theirs.Nanosecond())<<32/1e9))
		if change != nil {
			change(b)
		}
		return b
	}
	for name, tc := range map[string]struct {
		reply []byte
		want  time.Duration // nearly
		bad   bool
	}{
		"the same time":           {reply(sent.Add(100*time.Millisecond), nil), 0, false},
		"an hour ahead":           {reply(sent.Add(100*time.Millisecond-time.Hour), nil), time.Hour, false},
		"behind":                  {reply(sent.Add(100*time.Millisecond+3*time.Second), nil), -3 * time.Second, false},
		"too short":               {make([]byte, 47), 0, true},
		"no server":               {reply(sent, func(b []byte) { b[0] = 4<<3 | 3 }), 0, true},
		"one that does not know":  {reply(sent, func(b []byte) { b[1] = 0 }), 0, true},
		"one that is not in tune": {reply(sent, func(b []byte) { b[1] = 16 }), 0, true},
	} {
		ahead, err := readTime(tc.reply, sent, got)
		if (err != nil) != tc.bad || !tc.bad && (ahead-tc.want).Abs() > time.Millisecond {
			t.Errorf("%s: %v, %v; want %v", name, ahead, err, tc.want)
		}
	}
	late := time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)
	if ahead, err := readTime(reply(late, nil), late, late); err != nil || ahead.Abs() > time.Millisecond {
		t.Errorf("in 2040: %v, %v", ahead, err)
	}
}

// TestCertificate shows the certificates of ports of all kinds, and ports that show none.
func TestCertificate(t *testing.T) {
	cert, _ := mailtest.Certificate(t, "mail.example.org")
	smtp := []string{"220-mail", "220 ready", "?EHLO x", "250-mail", "250 STARTTLS", "?STARTTLS", "220 go"}
	for name, tc := range map[string]struct {
		port   int
		script []string
		bad    bool
	}{
		"implicit":         {465, nil, false},
		"STARTTLS":         {25, smtp, false},
		"submission":       {587, smtp, false},
		"STLS":             {110, []string{"+OK ready", "?STLS", "+OK go"}, false},
		"no STARTTLS":      {25, []string{"220 ready", "?EHLO x", "250 mail", "?STARTTLS", "502 no"}, true},
		"another protocol": {25, []string{"HTTP/1.1 400 Bad Request"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := &System{Hello: "x", Local: func(int) string { return "here" }, Dial: func(context.Context, string) (net.Conn, error) {
				client, server := net.Pipe()
				go serveTLS(server, tc.script, cert)
				return client, nil
			}}
			chain, err := s.Certificate(t.Context(), tc.port, "mail.example.org")
			if (err != nil) != tc.bad || !tc.bad && chain[0].DNSNames[0] != "mail.example.org" {
				t.Errorf("%v, %v", chain, err)
			}
		})
	}
}

// serveTLS plays a server: lines that it says, and with ? those that it wants to hear.
func serveTLS(c net.Conn, script []string, cert tls.Certificate) {
	defer c.Close()
	for _, line := range script {
		if want, ok := strings.CutPrefix(line, "?"); ok {
			got := make([]byte, len(want)+2)
			if _, err := io.ReadFull(c, got); err != nil || string(got) != want+"\r\n" {
				return
			}
			continue
		}
		if _, err := io.WriteString(c, line+"\r\n"); err != nil {
			return
		}
	}
	_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake() // a client that leaves is a case
}

// outside are Probes that say what a test wants.
type outside struct {
	policy func() ([]byte, error)
	cert   func(port int) ([]*x509.Certificate, error)
	port25 func(six bool) error
	clock  func() (time.Duration, error)
}

func (o outside) Policy(context.Context, string) ([]byte, error) { return o.policy() }
func (o outside) Certificate(_ context.Context, port int, _ string) ([]*x509.Certificate, error) {
	return o.cert(port)
}
func (o outside) Port25(_ context.Context, six bool) error     { return o.port25(six) }
func (o outside) Clock(context.Context) (time.Duration, error) { return o.clock() }

// TestProbes shows what is found outside of the DNS.
func TestProbes(t *testing.T) {
	cert, roots := mailtest.Certificate(t, "mail.example.org")
	other, _ := mailtest.Certificate(t, "www.example.org")
	stranger, _ := mailtest.Certificate(t, "mail.example.org")
	policy := func(mode, mx, age string) func() ([]byte, error) {
		return func() ([]byte, error) {
			return []byte("version: STSv1\nmode: " + mode + "\nmx: " + mx + "\nmax_age: " + age + "\n"), nil
		}
	}
	shows := func(c tls.Certificate) func(int) ([]*x509.Certificate, error) {
		return func(int) ([]*x509.Certificate, error) { return []*x509.Certificate{c.Leaf}, nil }
	}
	good := outside{policy("testing", "mail.example.org", "604800"), shows(cert), func(bool) error { return nil }, func() (time.Duration, error) { return time.Second, nil }}
	for name, tc := range map[string]struct {
		change func(*outside)
		expect []string
	}{
		"all is well": {func(*outside) {}, nil},
		"no policy":   {func(o *outside) { o.policy = func() ([]byte, error) { return nil, errors.New("status 404") } }, []string{"mta-sts-policy wrong advice: status 404"}},
		"no policy that can be read": {func(o *outside) { o.policy = func() ([]byte, error) { return []byte("hello"), nil } },
			[]string{"mta-sts-policy wrong advice: cannot be read"}},
		"enforced for another host": {func(o *outside) { o.policy = policy("enforce", "mx.provider.example", "604800") }, []string{"mta-sts-policy wrong required: add mx: mail.example.org"}},
		"tested for another host":   {func(o *outside) { o.policy = policy("testing", "mx.provider.example", "604800") }, []string{"mta-sts-policy wrong advice: add mx: mail.example.org"}},
		"for one more host": {func(o *outside) { o.policy = policy("enforce", "mail.example.org\nmx: old.example.org", "604800") },
			[]string{"mta-sts-policy wrong required: remove mx: old.example.org"}},
		"with a wildcard":    {func(o *outside) { o.policy = policy("enforce", "*.example.org", "604800") }, nil},
		"for a moment":       {func(o *outside) { o.policy = policy("testing", "mail.example.org", "60") }, []string{"mta-sts-policy wrong advice: raise max_age"}},
		"mode none":          {func(o *outside) { o.policy = policy("none", "mx.provider.example", "60") }, nil},
		"another name":       {func(o *outside) { o.cert = shows(other) }, []string{"cert:25 wrong advice: get a certificate for mail.example.org", "cert:995 wrong required: get a certificate for mail.example.org"}},
		"nobody's authority": {func(o *outside) { o.cert = shows(stranger) }, []string{"cert:25 wrong advice: do not trust", "cert:995 wrong required: do not trust"}},
		"a closed port": {func(o *outside) {
			o.cert = func(port int) ([]*x509.Certificate, error) {
				if port == 25 {
					return shows(cert)(port)
				}
				return nil, errors.New("refused")
			}
		}, []string{"cert:995 unknown required: is the server running"}},
		"port 25 is blocked": {func(o *outside) { o.port25 = func(six bool) error { return errors.New("192.0.2.99 did not answer") } },
			[]string{"port25-out:ipv4 wrong required: ask the provider to open port 25", "port25-out:ipv6 wrong advice: ask the provider"}},
		"over IPv6 alone": {func(o *outside) {
			o.port25 = func(six bool) error {
				if six {
					return errors.New("2001:db8::99 did not answer")
				}
				return nil
			}
		}, []string{"port25-out:ipv6 wrong advice: ask the provider"}},
		"a clock that is off":   {func(o *outside) { o.clock = func() (time.Duration, error) { return 2 * time.Minute, nil } }, []string{"clock wrong advice: set the clock, it is 2m0s off"}},
		"a clock that is wrong": {func(o *outside) { o.clock = func() (time.Duration, error) { return -time.Hour, nil } }, []string{"clock wrong required: set the clock"}},
		"no time server":        {func(o *outside) { o.clock = func() (time.Duration, error) { return 0, errors.New("no") } }, []string{"clock unknown advice: no time server"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, p := rightZone(t), profile(nil)
				p.Ports = []int{25, 995}
				dns := w.serve(t, true)
				o := good
				tc.change(&o)
				compare(t, Run(t.Context(), Options{Profile: p, DNS: dns, Probes: o, Roots: roots}), tc.expect)
				dns.Close()
			})
		})
	}
}

// TestCertificateDays shows what is said of a certificate as time goes by. That of the test is good from 1999 to 2100.
func TestCertificateDays(t *testing.T) {
	cert, roots := mailtest.Certificate(t, "mail.example.org")
	chain := []*x509.Certificate{cert.Leaf}
	for _, tc := range []struct {
		now  time.Time
		want string
	}{
		{cert.Leaf.NotBefore.Add(-time.Hour), "set the clock"},
		{cert.Leaf.NotBefore.Add(time.Hour), ""},
		{cert.Leaf.NotAfter.AddDate(0, 0, -daysLeft-1), ""},
		{cert.Leaf.NotAfter.AddDate(0, 0, -daysLeft+1), "it ends in 9 days"},
		{cert.Leaf.NotAfter.Add(time.Hour), "it ended on 2100-01-01"},
	} {
		d := judgeCertificate(chain, "mail.example.org", roots, tc.now)
		if (d.status == OK) != (tc.want == "") || !strings.Contains(d.fix, tc.want) {
			t.Errorf("%s: %+v, want %q", tc.now, d, tc.want)
		}
	}
}

// TestVerdict shows what findings come to.
func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		checks []Check
		want   Verdict
	}{
		{nil, Well},
		{[]Check{{Status: OK, Required: true}, {Status: Wrong}, {Status: Missing}, {Status: Unknown}, {Status: Optional}}, Well},
		{[]Check{{Status: Wrong, Required: true}, {Status: Unknown, Required: true}}, Amiss},
		{[]Check{{Status: Missing, Required: true}}, Amiss},
		{[]Check{{Status: Duplicate, Required: true}}, Amiss},
		{[]Check{{Status: Unknown, Required: true}}, Unsure},
		{[]Check{{Status: Pending, Required: true}}, Unsure},
		{[]Check{{Status: Pending}}, Well},
	} {
		if r := newReport("example.org", tc.checks); r.Verdict() != tc.want || r.OK != (tc.want == Well) {
			t.Errorf("%+v: %d, %t", tc.checks, r.Verdict(), r.OK)
		}
	}
}
