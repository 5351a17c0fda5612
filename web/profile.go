package web

import (
	"bytes"
	"crypto/sha1"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"

	"github.com/postroom/postroom/internal/addr"
)

// pair and dict are a dictionary of a property list, in the order in which it is written.
type pair struct {
	key   string
	value any // string, int, bool, dict or []dict
}

type dict []pair

const plistHead = xml.Header + `<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
`

// plist writes a property list.
func plist(d dict) []byte {
	var b bytes.Buffer
	b.WriteString(plistHead)
	writeValue(&b, d, "")
	b.WriteString("</plist>\n")
	return b.Bytes()
}

func writeValue(b *bytes.Buffer, value any, indent string) {
	switch v := value.(type) {
	case string:
		fmt.Fprintf(b, "%s<string>%s</string>\n", indent, escaped(v))
	case int:
		fmt.Fprintf(b, "%s<integer>%d</integer>\n", indent, v)
	case bool:
		fmt.Fprintf(b, "%s<%t/>\n", indent, v)
	case dict:
		fmt.Fprintf(b, "%s<dict>\n", indent)
		for _, p := range v {
			fmt.Fprintf(b, "%s\t<key>%s</key>\n", indent, escaped(p.key))
			writeValue(b, p.value, indent+"\t")
		}
		fmt.Fprintf(b, "%s</dict>\n", indent)
	case []dict:
		fmt.Fprintf(b, "%s<array>\n", indent)
		for _, d := range v {
			writeValue(b, d, indent+"\t")
		}
		fmt.Fprintf(b, "%s</array>\n", indent)
	default:
		panic(fmt.Sprintf("web: a property list has no %T", value)) // our own bug
	}
}

func escaped(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}

// profile is a configuration profile with a mail account. There is no password in it: the device asks for it.
func (s *Site) profile(a addr.Address) []byte {
	in, out := s.Ports.incoming(s.Hostname), s.Ports.outgoing(s.Hostname)
	account, whole := stableID("account", a), stableID("profile", a)
	id := reversed(s.Hostname) + "."
	return plist(dict{
		{"PayloadContent", []dict{{
			{"EmailAccountDescription", a.Unicode()},
			{"EmailAccountType", "EmailTypePOP"},
			{"EmailAddress", a.String()},
			{"IncomingMailServerAuthentication", "EmailAuthPassword"},
			{"IncomingMailServerHostName", in.Host},
			{"IncomingMailServerPortNumber", int(in.Port)},
			{"IncomingMailServerUseSSL", true},
			{"IncomingMailServerUsername", a.String()},
			{"OutgoingMailServerAuthentication", "EmailAuthPassword"},
			{"OutgoingMailServerHostName", out.Host},
			{"OutgoingMailServerPortNumber", int(out.Port)},
			{"OutgoingMailServerUseSSL", true},
			{"OutgoingMailServerUsername", a.String()},
			{"OutgoingPasswordSameAsIncomingPassword", true},
			{"PayloadDisplayName", "Mail for " + a.Unicode()},
			{"PayloadIdentifier", id + account},
			{"PayloadType", "com.apple.mail.managed"},
			{"PayloadUUID", account},
			{"PayloadVersion", 1},
		}}},
		{"PayloadDescription", "Sets up mail for " + a.Unicode() + ". You will be asked for the password."},
		{"PayloadDisplayName", a.Unicode()},
		{"PayloadIdentifier", id + whole},
		{"PayloadOrganization", a.Domain.Unicode()},
		{"PayloadRemovalDisallowed", false},
		{"PayloadType", "Configuration"},
		{"PayloadUUID", whole},
		{"PayloadVersion", 1},
	})
}

// namespace is the one that RFC 9562 section 6.6 gives to URLs.
var namespace = [16]byte{0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8}

// stableID is a UUID of version 5 (RFC 9562 section 5.5), the same for all spellings of an address: a profile that is installed
// again replaces the one that is there.
func stableID(what string, a addr.Address) string {
	h := sha1.New()
	h.Write(namespace[:])
	h.Write([]byte("postroom:" + what + ":" + a.Key()))
	u := h.Sum(nil)[:16]
	u[6], u[8] = u[6]&0x0f|0x50, u[8]&0x3f|0x80
	return fmt.Sprintf("%X-%X-%X-%X-%X", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// reversed is a host name as Apple writes identifiers: org.example.mail.
func reversed(host string) string {
	labels := strings.Split(host, ".")
	slices.Reverse(labels)
	return strings.Join(labels, ".")
}
