package config

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Print writes the configuration with all keys, as a file that Parse reads back.
func (c *Config) Print(w io.Writer) error {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("hostname = %s # the full name of this host", quote(c.Hostname))
	p("data_dir = %s", quote(c.DataDir))
	p("database = %s # relative to data_dir", quote(c.Database))
	p("\n[listen] # an empty list switches a service off")
	for _, s := range c.Listen.services() {
		note := ""
		switch s.name {
		case "https":
			note = " # settings for mail programs, MTA-STS policies"
		case "admin":
			note = " # metrics and health, for whoever reaches it"
		}
		p("%s = %s%s", s.name, quoteAll(s.addrs), note)
	}
	p("\n[tls]\nsource = %s # \"local\": a certificate authority of its own, for trying out; \"files\": cert and key", quote(c.TLS.Source))
	if c.TLS.Source == "files" {
		p("cert = %s\nkey = %s", quote(c.TLS.Cert), quote(c.TLS.Key))
	}
	p("\n[dns]\nresolvers = %s # such as \"127.0.0.1:53\"; none: those of the system", quoteAll(c.DNS.Resolvers))
	if c.DNS.TrustAD != nil {
		p("trust_ad = %t", *c.DNS.TrustAD)
	}
	l := c.Limits
	p("\n[limits]\nmessage_size = %s\nrecipients = %d", quote(l.MessageSize.String()), l.Recipients)
	p("connections = %d\nconnections_per_address = %d\nconnections_per_account = %d", l.Connections, l.ConnectionsPerAddress, l.ConnectionsPerAccount)
	p("disk_reserve = %s # below it, mail from outside is told to come back", quote(l.DiskReserve.String()))
	p("\n[proxy]\ntrusted = %s # these must speak the PROXY protocol, and nobody else may", quoteAll(c.networks()))
	p("\n[alerts] # an address outside that hears, besides postmaster, what the operator must know\nto = %s", quote(c.Alerts.To))
	p("\n[log]\nlevel = %s # debug, info, warn or error\nformat = %s # text or json", quote(strings.ToLower(c.Log.Level.String())), quote(c.Log.Format))
	_, err := io.WriteString(w, b.String())
	return err
}

func (c *Config) networks() []string {
	all := make([]string, len(c.Proxy.Trusted))
	for i, n := range c.Proxy.Trusted {
		text, _ := n.MarshalText() // never fails
		all[i] = string(text)
	}
	return all
}

// quote writes a TOML basic string: its escapes are those of JSON, and Go's for ASCII are too but for \x and \a.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < ' ' || c == 0x7f:
			b.WriteString(`\u` + strings.Repeat("0", 4-len(strconv.FormatInt(int64(c), 16))) + strconv.FormatInt(int64(c), 16))
		default:
			b.WriteRune(c)
		}
	}
	return b.String() + `"`
}

func quoteAll(all []string) string {
	quoted := make([]string, len(all))
	for i, s := range all {
		quoted[i] = quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
