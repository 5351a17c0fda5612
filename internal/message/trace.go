package message

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"time"

	"github.com/postroom/postroom/internal/addr"
)

// Received is the trace field of one hop, RFC 5321 section 4.4. Whatever the peer said, Append writes one well-formed
// field: no value can begin a line, a comment or a clause.
type Received struct {
	Private  bool       // nothing is told of the peer: RFC 6409 section 7, letters that their writers hand in
	Helo     string     // what the peer called itself, as it said it
	FromIP   netip.Addr // where it came from
	FromRDNS string     // the confirmed name of FromIP, or ""
	By       string     // our host name
	With     string     // see With
	ID       ID
	TLS      *tls.ConnectionState // nil without TLS
	For      []addr.Path          // the recipients: named only when there is exactly one, so that none learns of another
	Time     time.Time
}

// With is the keyword of the "with" clause: RFC 3848, and RFC 6531 section 4.3 for a letter sent with SMTPUTF8.
func With(esmtp, tls, auth, utf8 bool) string {
	if !esmtp { // nothing is registered for HELO inside TLS
		return "SMTP"
	}
	keyword := "ESMTP"
	if utf8 {
		keyword = "UTF8SMTP"
	}
	if tls {
		keyword += "S"
	}
	if auth {
		keyword += "A"
	}
	return keyword
}

// Append appends the field with its line ends. Each clause is on its own line; a line is longer than 78 octets only when
// one clause is.
func (r Received) Append(b []byte) []byte {
	b = append(b, "Received:"...)
	if !r.Private {
		b = append(b, " from "...)
		b = append(b, hostName(r.Helo)...)
		b = r.appendSource(b)
		b = append(b, "\r\n"...)
	}
	b = append(b, " by "...)
	b = append(b, hostName(r.By)...)
	if r.With != "" {
		b = append(b, " with "...)
		b = append(b, word(r.With)...)
	}
	if r.TLS != nil {
		b = append(b, "\r\n ("...)
		b = append(b, word(strings.ReplaceAll(tls.VersionName(r.TLS.Version), " ", ""))...)
		b = append(b, ' ')
		b = append(b, word(tls.CipherSuiteName(r.TLS.CipherSuite))...)
		b = append(b, ')')
	}
	b = append(b, "\r\n id "...)
	b = append(b, r.ID.String()...)
	if len(r.For) == 1 && !r.For[0].Null {
		b = append(b, "\r\n for "...)
		b = append(b, oneLine(r.For[0].String())...)
	}
	b = append(b, ";\r\n "...)
	b = r.Time.AppendFormat(b, time.RFC1123Z)
	return append(b, "\r\n"...)
}

// appendSource appends the TCP-info comment, which is what can be trusted about the peer.
func (r Received) appendSource(b []byte) []byte {
	if !r.FromIP.IsValid() {
		return b
	}
	b = append(b, "\r\n ("...)
	if r.FromRDNS != "" {
		b = append(b, hostName(strings.TrimSuffix(r.FromRDNS, "."))...)
		b = append(b, ' ')
	}
	b = append(b, literal(r.FromIP)...)
	return append(b, ')')
}

// ReturnPath is the Return-Path field for a reverse path, given with or without its angle brackets (RFC 5321 section 4.4).
func ReturnPath(path string) []byte {
	path = strings.TrimSuffix(strings.TrimPrefix(path, "<"), ">")
	return []byte("Return-Path: <" + oneLine(path) + ">\r\n")
}

// DeliveredTo is the Delivered-To field for a mailbox.
func DeliveredTo(address string) []byte {
	return []byte("Delivered-To: " + oneLine(address) + "\r\n")
}

// literal is an address literal, RFC 5321 section 4.1.3.
func literal(ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return "[" + ip.String() + "]"
	}
	return "[IPv6:" + ip.String() + "]"
}

const maxHostName = 255

// hostName is a name that some side claims, fit for a Received field: a domain in A-labels, an address literal, or else
// what is left of it when every character is replaced that neither has.
func hostName(s string) string {
	if d, err := addr.ParseDomain(s); err == nil {
		return d.ASCII()
	}
	if a, err := addr.Parse("x@" + s); err == nil && a.Literal.IsValid() {
		return literal(a.Literal)
	}
	if s == "" {
		return "unknown"
	}
	s = s[:min(len(s), maxHostName)]
	return replace(s, func(c byte) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == ':'
	})
}

// word is text that ends neither itself, nor a comment around it, nor the field.
func word(s string) string {
	s = s[:min(len(s), maxHostName)]
	return replace(s, func(c byte) bool { return c > ' ' && c < 0x7f && !strings.ContainsRune(`()<>;"\`, rune(c)) })
}

// oneLine is text that cannot begin a new line. UTF-8 stays.
func oneLine(s string) string {
	return replace(s, func(c byte) bool { return c >= ' ' && c != 0x7f })
}

// replace replaces each octet of s that is not good by a question mark.
func replace(s string, good func(byte) bool) string {
	for i := range len(s) {
		if !good(s[i]) {
			b := []byte(s)
			for ; i < len(b); i++ {
				if !good(b[i]) {
					b[i] = '?'
				}
			}
			return string(b)
		}
	}
	return s
}
