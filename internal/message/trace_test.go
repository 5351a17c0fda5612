package message

import (
	"crypto/tls"
	"net/mail"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/addr"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.FixedZone("", 3600))

func paths(t testing.TB, addresses ...string) []addr.Path {
	t.Helper()
	var ps []addr.Path
	for _, a := range addresses {
		p, _, err := addr.ParsePath(a)
		if err != nil {
			t.Fatalf("ParsePath(%q): %v", a, err)
		}
		ps = append(ps, p)
	}
	return ps
}

func TestReceived(t *testing.T) {
	id, err := ParseID("06i0u8g0000000000000000000")
	if err != nil {
		t.Fatal(err)
	}
	base := Received{Helo: "mail.example.org", FromIP: netip.MustParseAddr("192.0.2.1"), By: "mx.example.net", With: "ESMTP", ID: id, Time: noon}
	with := func(change func(*Received)) Received { r := base; change(&r); return r }
	const rest = " by mx.example.net with ESMTP\r\n id 06i0u8g0000000000000000000;\r\n Tue, 24 Nov 2026 12:00:00 +0100\r\n"
	for _, tc := range []struct {
		name string
		r    Received
		want string
	}{
		{"plain", base, "Received: from mail.example.org\r\n ([192.0.2.1])\r\n" + rest},
		{"confirmed name", with(func(r *Received) { r.FromRDNS = "Host.example.org." }), "Received: from mail.example.org\r\n (host.example.org [192.0.2.1])\r\n" + rest},
		{"IPv6", with(func(r *Received) { r.FromIP = netip.MustParseAddr("2001:db8::1") }), "Received: from mail.example.org\r\n ([IPv6:2001:db8::1])\r\n" + rest},
		{"IPv4 in IPv6", with(func(r *Received) { r.FromIP = netip.MustParseAddr("::ffff:192.0.2.1") }), "Received: from mail.example.org\r\n ([192.0.2.1])\r\n" + rest},
		{"no address", with(func(r *Received) { r.FromIP = netip.Addr{} }), "Received: from mail.example.org\r\n" + rest},
		{"literal as name", with(func(r *Received) { r.Helo = "[IPv6:2001:DB8::1]" }), "Received: from [IPv6:2001:db8::1]\r\n ([192.0.2.1])\r\n" + rest},
		{"U-label", with(func(r *Received) { r.Helo = "bücher.example" }), "Received: from xn--bcher-kva.example\r\n ([192.0.2.1])\r\n" + rest},
		{"underscore", with(func(r *Received) { r.Helo = "WIN_PC" }), "Received: from WIN_PC\r\n ([192.0.2.1])\r\n" + rest},
		{"no name", with(func(r *Received) { r.Helo = "" }), "Received: from unknown\r\n ([192.0.2.1])\r\n" + rest},
		{"injected field", with(func(r *Received) { r.Helo = "x\r\nBcc: y (z) by me; \"q\\" }), "Received: from x??Bcc:?y??z??by?me???q?\r\n ([192.0.2.1])\r\n" + rest},
		{"TLS and one recipient", with(func(r *Received) {
			r.With = With(true, true, false, false)
			r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}
			r.For = paths(t, "<anna@example.net>")
		}), "Received: from mail.example.org\r\n ([192.0.2.1])\r\n by mx.example.net with ESMTPS\r\n (TLS1.3 TLS_AES_128_GCM_SHA256)\r\n" +
			" id 06i0u8g0000000000000000000\r\n for <anna@example.net>;\r\n Tue, 24 Nov 2026 12:00:00 +0100\r\n"},
		{"two recipients are not named", with(func(r *Received) { r.For = paths(t, "<anna@example.net>", "<bert@example.net>") }), "Received: from mail.example.org\r\n ([192.0.2.1])\r\n" + rest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := string(tc.r.Append(nil))
			if got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
			checkReceived(t, got)
		})
	}
}

var (
	hostPattern     = `[^ ()<>;"\\]+`
	receivedPattern = regexp.MustCompile(`^from ` + hostPattern + `( \((` + hostPattern + ` )?\[[0-9A-Za-z:.]+\]\))? by ` + hostPattern +
		`( with [^ ()]+)?( \([^()\\ ]+ [^()\\ ]+\))? id ([0-9a-v]{26})( for <.*>)?; (.{31})$`)
)

// checkReceived parses the field again: one field, of the grammar of RFC 5321 section 4.4, in lines of legal length.
func checkReceived(t *testing.T, field string) {
	t.Helper()
	h, err := ReadHeader(strings.NewReader(field), HeaderLimits{})
	if err != nil || len(h.Fields) != 1 || h.Malformed != 0 || h.Fields[0].Name != "Received" || h.BodyOffset != int64(len(field)) {
		t.Fatalf("%q is not one field: %+v, %v", field, h, err)
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(field, "\r\n"), "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n\x00") {
			t.Fatalf("line %q", line)
		}
	}
	parts := receivedPattern.FindStringSubmatch(h.Fields[0].Value())
	if parts == nil {
		t.Fatalf("%q is not well-formed", field)
	}
	if _, err := mail.ParseDate(parts[len(parts)-1]); err != nil {
		t.Fatalf("date of %q: %v", field, err)
	}
}

func FuzzReceived(f *testing.F) {
	f.Add("mail.example.org", "host.example.org", "mx.example.net", "ESMTPS", "<anna@example.org>", []byte{192, 0, 2, 1}, uint16(tls.VersionTLS13))
	f.Add("[192.0.2.1]", "", "mx", "", "<>", []byte(nil), uint16(0))
	f.Add("x\r\nBcc: y", "a b", "(c)", "with; ", "<\"a b>;\"@x.example>", make([]byte, 16), uint16(7))
	f.Add("bücher.example", "\x00", "a\\", "ESMTP id x", "<jürgen@x.example>", make([]byte, 4), uint16(tls.VersionTLS12))
	f.Add("x", "x", "x", strings.Repeat("w", 5000), "<>", []byte(nil), uint16(0)) // found by fuzzing: a line without a limit
	f.Fuzz(func(t *testing.T, helo, rdns, by, with, forPath string, ip []byte, version uint16) {
		r := Received{Helo: helo, FromRDNS: rdns, By: by, With: with, ID: NewID(), Time: noon}
		r.FromIP, _ = netip.AddrFromSlice(ip)
		if version != 0 {
			r.TLS = &tls.ConnectionState{Version: version, CipherSuite: version}
		}
		if p, _, err := addr.ParsePath(forPath); err == nil {
			r.For = []addr.Path{p}
		}
		checkReceived(t, string(r.Append(nil)))
		if h, err := ReadHeader(strings.NewReader(string(ReturnPath(forPath))+string(DeliveredTo(forPath))), HeaderLimits{}); err != nil || len(h.Fields) != 2 || h.Malformed != 0 {
			t.Errorf("Return-Path and Delivered-To of %q: %+v, %v", forPath, h, err)
		}
	})
}

func TestWith(t *testing.T) {
	for want, tc := range map[string]struct{ esmtp, tls, auth, utf8 bool }{
		"SMTP":       {},
		"ESMTP":      {esmtp: true},
		"ESMTPS":     {esmtp: true, tls: true},
		"ESMTPA":     {esmtp: true, auth: true},
		"ESMTPSA":    {esmtp: true, tls: true, auth: true},
		"UTF8SMTP":   {esmtp: true, utf8: true},
		"UTF8SMTPS":  {esmtp: true, tls: true, utf8: true},
		"UTF8SMTPA":  {esmtp: true, auth: true, utf8: true},
		"UTF8SMTPSA": {esmtp: true, tls: true, auth: true, utf8: true},
	} {
		if got := With(tc.esmtp, tc.tls, tc.auth, tc.utf8); got != want {
			t.Errorf("With(%+v) = %s, want %s", tc, got, want)
		}
	}
}

func TestPrefixFields(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{string(ReturnPath("<a@b.example>")), "Return-Path: <a@b.example>\r\n"},
		{string(ReturnPath("a@b.example")), "Return-Path: <a@b.example>\r\n"},
		{string(ReturnPath("<>")), "Return-Path: <>\r\n"},
		{string(ReturnPath("")), "Return-Path: <>\r\n"},
		{string(ReturnPath("a\r\nX: y")), "Return-Path: <a??X: y>\r\n"},
		{string(DeliveredTo("jürgen@b.example")), "Delivered-To: jürgen@b.example\r\n"},
		{string(DeliveredTo("a\nX: y")), "Delivered-To: a?X: y\r\n"},
	} {
		if tc.got != tc.want {
			t.Errorf("got %q, want %q", tc.got, tc.want)
		}
	}
}

func BenchmarkReceived(b *testing.B) {
	r := Received{
		Helo: "mail.example.org", FromIP: netip.MustParseAddr("192.0.2.1"), FromRDNS: "mail.example.org", By: "mx.example.net", With: "ESMTPS",
		ID: NewID(), TLS: &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256},
		For: paths(b, "<anna@example.net>"), Time: noon,
	}
	buffer := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		_ = r.Append(buffer)
	}
}

// TestPrivateReceived has no from clause: nothing of where a letter was handed in leaves with it.
func TestPrivateReceived(t *testing.T) {
	got := string(Received{Private: true, Helo: "laptop.home", FromIP: netip.MustParseAddr("192.0.2.1"), FromRDNS: "home.example", By: "mx.example.net",
		With: "ESMTPSA", Time: noon}.Append(nil))
	if !strings.HasPrefix(got, "Received: by mx.example.net with ESMTPSA\r\n id ") || strings.Contains(got, "192.0.2.1") || strings.Contains(got, "home") {
		t.Errorf("got %q", got)
	}
}
