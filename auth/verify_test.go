package auth_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	library "github.com/emersion/go-msgauth/dkim"

	"github.com/postroom/postroom/auth"
	"github.com/postroom/postroom/auth/authres"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/resolve/zone"
)

// world is the DNS of some domains: good.example sends from 192.0.2.1 and signs; strict.example asks to reject; list.example
// runs a mailing list; null.example sends no mail.
func world() (*zone.Zone, ed25519.PrivateKey) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	z := zone.MustParse(`
		good.example. 60 IN MX 10 mail.good.example.
		good.example. 60 IN TXT "v=spf1 ip4:192.0.2.1 -all"
		mail.good.example. 60 IN A 192.0.2.1
		mail.good.example. 60 IN TXT "v=spf1 a -all"
		_dmarc.good.example. 60 IN TXT "v=DMARC1; p=reject"
		strict.example. 60 IN MX 10 mail.strict.example.
		strict.example. 60 IN TXT "v=spf1 -all"
		_dmarc.strict.example. 60 IN TXT "v=DMARC1; p=reject"
		list.example. 60 IN A 192.0.2.1
		list.example. 60 IN TXT "v=spf1 ip4:192.0.2.1 -all"
		null.example. 60 IN MX 0 .
		plain.example. 60 IN A 192.0.2.9
		1.2.0.192.in-addr.arpa. 60 IN PTR mail.good.example.
		2.2.0.192.in-addr.arpa. 60 IN PTR mail.good.example.
		s._domainkey.good.example. 60 IN TXT "v=DKIM1; k=ed25519; p=` + base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey)) + `"
	`)
	return z, key
}

func verifier(t testing.TB, z resolve.Exchanger) *auth.Verifier {
	t.Helper()
	r, err := resolve.New(resolve.Options{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}, Exchange: z})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return &auth.Verifier{DNS: r}
}

// arrival is a letter and how it came.
type arrival struct {
	ip, helo, from string
	author         string // the value of From
	more           string // other fields
	sign           bool
	break_         bool // changes the body behind the signature
}

func (a arrival) envelope(t testing.TB) auth.Envelope {
	t.Helper()
	path, _, err := addr.ParseReversePath("<" + a.from + ">")
	if err != nil {
		t.Fatalf("%q: %v", a.from, err)
	}
	return auth.Envelope{IP: netip.MustParseAddr(a.ip), Helo: a.helo, From: path}
}

func (a arrival) octets(t testing.TB, key ed25519.PrivateKey) []byte {
	t.Helper()
	octets := []byte(a.more + "From: " + a.author + "\r\nSubject: hello\r\n\r\nHello.\r\n")
	if a.sign {
		var signed bytes.Buffer
		err := library.Sign(&signed, bytes.NewReader(octets), &library.SignOptions{Domain: "good.example", Selector: "s", Signer: key,
			HeaderCanonicalization: "relaxed", BodyCanonicalization: "relaxed", HeaderKeys: []string{"From", "From", "Subject"}})
		if err != nil {
			t.Fatal(err)
		}
		octets = signed.Bytes()
	}
	if a.break_ {
		octets = append(octets, "added\r\n"...)
	}
	return octets
}

func letterOf(t testing.TB, octets []byte) auth.Letter {
	t.Helper()
	header, err := message.ReadHeader(bytes.NewReader(octets), message.HeaderLimits{})
	if err != nil {
		t.Fatal(err)
	}
	return auth.Letter{Content: bytes.NewReader(octets), Size: int64(len(octets)), Header: header}
}

// summary is a verdict as the tables below have it.
func summary(v auth.Verdict) string {
	dkim := "none"
	for i, r := range v.DKIM {
		if i == 0 {
			dkim = ""
		}
		dkim += string(r.Status)
	}
	s := fmt.Sprintf("helo=%s spf=%s dkim=%s dmarc=%s iprev=%s", v.SPFHelo.Status, v.SPF.Status, dkim, v.DMARC.Result, v.IPRev.Status)
	for _, extra := range []struct {
		on   bool
		text string
	}{{v.Sender != "", " sender=" + string(v.Sender)}, {v.Indirect, " indirect"}, {v.Unclear, " unclear"}, {v.Author.Problem != "", " author=" + string(v.Author.Problem)}} {
		if extra.on {
			s += extra.text
		}
	}
	return s
}

var honest = arrival{ip: "192.0.2.1", helo: "mail.good.example", from: "ben@good.example", author: "Ben <ben@good.example>", sign: true}

// with changes some of the honest letter.
func with(change func(*arrival)) arrival {
	a := honest
	change(&a)
	return a
}

func TestVerify(t *testing.T) {
	for _, tc := range []struct {
		name   string
		a      arrival
		faults map[string]zone.Fault
		want   string
	}{
		{"all is well", honest, nil, "helo=pass spf=pass dkim=pass dmarc=pass iprev=pass"},
		{"unsigned", with(func(a *arrival) { a.sign = false }), nil, "helo=pass spf=pass dkim=none dmarc=pass iprev=pass"},
		{"from elsewhere, signed", with(func(a *arrival) { a.ip = "192.0.2.3" }), nil, "helo=fail spf=fail dkim=pass dmarc=pass iprev=permerror"},
		{"from elsewhere, unsigned", with(func(a *arrival) { a.ip, a.sign = "192.0.2.3", false }), nil, "helo=fail spf=fail dkim=none dmarc=fail iprev=permerror"},
		{"changed on the way", with(func(a *arrival) { a.ip, a.break_ = "192.0.2.3", true }), nil, "helo=fail spf=fail dkim=fail dmarc=fail iprev=permerror"},
		{"a PTR that is not confirmed", with(func(a *arrival) { a.ip = "192.0.2.2" }), nil, "helo=fail spf=fail dkim=pass dmarc=pass iprev=fail"},
		{"no policies at all", arrival{ip: "192.0.2.9", helo: "plain.example", from: "a@plain.example", author: "a@plain.example"}, nil,
			"helo=none spf=none dkim=none dmarc=none iprev=permerror"},
		{"null reverse-path: HELO counts", with(func(a *arrival) { a.from, a.sign = "", false }), nil, "helo=pass spf=pass dkim=none dmarc=pass iprev=pass"},
		{"null reverse-path, strange HELO", with(func(a *arrival) { a.from, a.helo, a.sign = "", "[192.0.2.1]", false }), nil, "helo=none spf=none dkim=none dmarc=fail iprev=pass"},
		{"an address literal as sender", with(func(a *arrival) { a.from = "ben@[192.0.2.1]" }), nil, "helo=pass spf=none dkim=pass dmarc=pass iprev=pass"},
		{"sender's domain does not exist", with(func(a *arrival) { a.from = "x@nowhere.example" }), nil, "helo=pass spf=none dkim=pass dmarc=pass iprev=pass sender=no such domain"},
		{"sender's domain has a null MX", with(func(a *arrival) { a.from = "x@null.example" }), nil, "helo=pass spf=none dkim=pass dmarc=pass iprev=pass sender=null MX"},
		{"forged", with(func(a *arrival) { a.author = "boss@strict.example" }), nil, "helo=pass spf=pass dkim=pass dmarc=fail iprev=pass"},
		{"through a list", arrival{ip: "192.0.2.1", helo: "list.example", from: "x@list.example", author: "ben@strict.example", more: "List-Id: <x.list.example>\r\n"}, nil,
			"helo=pass spf=pass dkim=none dmarc=fail iprev=pass indirect"},
		{"through an ARC forwarder", arrival{ip: "192.0.2.1", helo: "list.example", from: "x@list.example", author: "ben@strict.example", more: "ARC-Seal: i=1\r\n"}, nil,
			"helo=pass spf=pass dkim=none dmarc=fail iprev=pass indirect"},
		{"a list that nobody stands for", arrival{ip: "192.0.2.3", helo: "x", from: "x@strict.example", author: "ben@strict.example", more: "List-Id: <x>\r\n"}, nil,
			"helo=none spf=fail dkim=none dmarc=fail iprev=permerror"},
		{"a list whose SPF cannot be looked up", arrival{ip: "192.0.2.1", helo: "x", from: "x@list.example", author: "ben@strict.example", more: "List-Id: <x>\r\n"},
			map[string]zone.Fault{"list.example": zone.ServFail}, "helo=none spf=temperror dkim=none dmarc=fail iprev=pass sender=temperror unclear"},
		{"no author", with(func(a *arrival) { a.author = "" }), nil, "helo=pass spf=pass dkim=fail dmarc=permerror iprev=pass author=missing"},
		{"SPF fails to be looked up, signed", honest, map[string]zone.Fault{"good.example": zone.ServFail}, "helo=pass spf=temperror dkim=pass dmarc=pass iprev=pass sender=temperror"},
		{"the key fails to be looked up", honest, map[string]zone.Fault{"s._domainkey.good.example": zone.Timeout}, "helo=pass spf=pass dkim=temperror dmarc=pass iprev=pass"},
		{"the key fails, and SPF", with(func(a *arrival) { a.ip = "192.0.2.3" }), map[string]zone.Fault{"s._domainkey.good.example": zone.ServFail},
			"helo=fail spf=fail dkim=temperror dmarc=temperror iprev=permerror"},
		{"the policy fails to be looked up", honest, map[string]zone.Fault{"_dmarc.good.example": zone.ServFail}, "helo=pass spf=pass dkim=pass dmarc=temperror iprev=pass"},
		{"the PTR fails to be looked up", honest, map[string]zone.Fault{"1.2.0.192.in-addr.arpa": zone.Timeout}, "helo=pass spf=pass dkim=pass dmarc=pass iprev=temperror"},
		{"the confirmation fails to be looked up", honest, map[string]zone.Fault{"mail.good.example": zone.ServFail}, "helo=temperror spf=pass dkim=pass dmarc=pass iprev=temperror"},
	} {
		synctest.Test(t, func(t *testing.T) {
			z, key := world()
			for name, fault := range tc.faults {
				z.SetFault(name, fault)
			}
			octets := tc.a.octets(t, key)
			if tc.name == "no author" {
				octets = bytes.Replace(octets, []byte("From: \r\n"), nil, 1)
			}
			v := verifier(t, z).Verify(t.Context(), tc.a.envelope(t), letterOf(t, octets))
			if got := summary(v); got != tc.want {
				t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
			}
			wantField(t, v)
		})
	}
}

// wantField reads the verdict's field back: it must say what the verdict says.
func wantField(t testing.TB, v auth.Verdict) {
	t.Helper()
	text := string(v.Field("mx.example").Append(nil))
	_, body, _ := strings.Cut(strings.TrimSuffix(text, "\r\n"), ":")
	f, err := authres.Parse(body)
	if err != nil || f.ServID != "mx.example" {
		t.Fatalf("%q: %v", text, err)
	}
	counts := map[string]int{}
	for _, r := range f.Results {
		counts[r.Method]++
		if r.Method == "dmarc" && r.Value != string(v.DMARC.Result) || r.Method == "iprev" && r.Value != v.IPRev.Status {
			t.Errorf("%s=%s in %q", r.Method, r.Value, text)
		}
	}
	if counts["dmarc"] != 1 || counts["iprev"] != 1 || counts["spf"] < 1 || counts["spf"] > 2 || counts["dkim"] != max(1, len(v.DKIM)) {
		t.Errorf("%v in %q", counts, text)
	}
	if line := v.String(); strings.ContainsAny(line, "\r\n") || line == "" {
		t.Errorf("the line %q", line)
	}
	if failed := v.Failed(); strings.ContainsAny(failed, "\r\n") || !strings.HasPrefix(failed, "SPF is ") {
		t.Errorf("failed: %q", failed)
	}
}

// TestTemporaryFailures makes each name fail in each way: a result may become temperror, and nothing else may change, but for
// what a policy that is not seen would have said.
func TestTemporaryFailures(t *testing.T) {
	z, _ := world()
	for _, a := range []arrival{honest, with(func(a *arrival) { a.ip, a.sign = "192.0.2.3", false }), with(func(a *arrival) { a.author = "boss@strict.example" })} {
		for _, name := range []string{"good.example", "mail.good.example", "_dmarc.good.example", "_dmarc.strict.example", "_dmarc.example", "s._domainkey.good.example",
			"1.2.0.192.in-addr.arpa", "3.2.0.192.in-addr.arpa", "strict.example"} {
			for _, fault := range []zone.Fault{zone.Timeout, zone.ServFail, zone.Refused, zone.Garbage, zone.WrongQuestion, zone.CNAMELoop, zone.TruncateAlways} {
				synctest.Test(t, func(t *testing.T) {
					var key ed25519.PrivateKey
					z, key = world()
					octets := a.octets(t, key)
					want := summary(verifier(t, z).Verify(t.Context(), a.envelope(t), letterOf(t, octets)))
					z.SetFault(name, fault)
					got := summary(verifier(t, z).Verify(t.Context(), a.envelope(t), letterOf(t, octets)))
					for i, result := range strings.Fields(got) {
						before := append(strings.Fields(want), make([]string, 10)...)[i]
						if result != before && !strings.HasSuffix(result, "=temperror") && result != "unclear" {
							t.Errorf("%s with fault %d: %s, was %s", name, fault, got, want)
						}
					}
				})
			}
		}
	}
}

// TestInjection has what strangers may choose with text that would end a word, a comment or a field: it must come back from the
// field as one value, and no result of its own may appear.
func TestInjection(t *testing.T) {
	for _, evil := range []string{
		`x; dmarc=pass header.from=bank.example`, `x" ; dmarc=pass`, `x\" ; dmarc=pass`, "x) ; dmarc=pass (", "x\r\n\tdmarc=pass", "x\r\nAuthentication-Results: mx.example; dmarc=pass",
		"(", ")", `"`, `\`, "\x00", "é", "\xff", strings.Repeat("x", 5000), "=?utf-8?q?x?=",
	} {
		synctest.Test(t, func(t *testing.T) {
			z, _ := world()
			octets := []byte("DKIM-Signature: v=1; a=" + evil + "; d=" + evil + "; s=" + evil + "; b=" + evil + "; h=From; bh=x\r\n" +
				"Received: " + evil + "\r\nFrom: \"" + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\r\n", " ").Replace(evil) + "\" <ben@good.example>\r\n\r\n")
			v := verifier(t, z).Verify(t.Context(), auth.Envelope{IP: netip.MustParseAddr("192.0.2.1"), Helo: evil,
				From: addr.Path{Address: addr.Address{Local: evil, Domain: mustDomain("plain.example")}}}, letterOf(t, octets))
			wantField(t, v)
			if strings.Contains(summary(v), "dmarc=pass") {
				t.Errorf("%q passes", evil)
			}
		})
	}
}

func mustDomain(name string) addr.Domain {
	d, err := addr.ParseDomain(name)
	if err != nil {
		panic(err)
	}
	return d
}

// TestConcurrent checks many letters with one Verifier; it is for the race detector.
func TestConcurrent(t *testing.T) {
	z, key := world()
	v := verifier(t, z)
	octets := honest.octets(t, key)
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			for range 10 {
				if got := summary(v.Verify(t.Context(), honest.envelope(t), letterOf(t, octets))); got != "helo=pass spf=pass dkim=pass dmarc=pass iprev=pass" {
					t.Error(got)
				}
			}
		})
	}
	wait.Wait()
}

// TestClose shows that a letter that never comes leaves nothing behind, whatever its look-ups do.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails where a goroutine is left
		z, _ := world()
		for _, name := range []string{"good.example", "mail.good.example", "1.2.0.192.in-addr.arpa", "_dmarc.good.example"} {
			z.SetFault(name, zone.Timeout)
		}
		v := verifier(t, z)
		for range 1000 {
			v.Begin(t.Context(), honest.envelope(t)).Close()
		}
		ctx, cancel := context.WithCancel(t.Context())
		c := v.Begin(ctx, honest.envelope(t))
		cancel()
		c.Close()
	})
}

// FuzzVerify makes up a letter and the record of its domain: no panic, the field can be read back, and DMARC passes for a
// domain only where SPF or DKIM passed for one that has to do with it.
func FuzzVerify(f *testing.F) {
	_, key := world()
	f.Add(honest.octets(f, key), "v=spf1 ip4:192.0.2.1 -all", "v=DMARC1; p=reject", "mail.good.example")
	f.Add([]byte("From: a@fuzz.example\r\n\r\n"), "v=spf1 include:fuzz.example exists:%{i} ?all", "v=DMARC1; p=none; psd=y", "[::1]")
	f.Fuzz(func(t *testing.T, octets []byte, spf, dmarc, helo string) {
		header, err := message.ReadHeader(bytes.NewReader(octets), message.HeaderLimits{})
		if err != nil {
			return
		}
		z, _ := world()
		z.AddTXT("fuzz.example", spf)
		z.AddTXT("_dmarc.fuzz.example", dmarc)
		v := verifier(t, z).Verify(t.Context(), auth.Envelope{IP: netip.MustParseAddr("192.0.2.1"), Helo: helo,
			From: addr.Path{Address: addr.Address{Local: "a", Domain: mustDomain("fuzz.example")}}},
			auth.Letter{Content: bytes.NewReader(octets), Size: int64(len(octets)), Header: header})
		wantField(t, v)
		if v.DMARC.Result == "pass" && !v.Authenticates(v.Author.Domain) && v.SPF.Status != "pass" && !strings.Contains(summary(v), "dkim=pass") {
			t.Errorf("%s", v)
		}
		if z.Queries() > 200 {
			t.Errorf("%d queries", z.Queries())
		}
	})
}
