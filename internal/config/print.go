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
	p("public_addresses = %s # where this machine does not have them itself (NAT)", quoteAll(c.Public))
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
	p("\n[tls]\nsource = %s # \"acme\": a public authority; \"files\": cert and key; \"local\": an authority of its own, for trying out", quote(c.TLS.Source))
	switch t := c.TLS; t.Source {
	case "files":
		p("cert = %s\nkey = %s", quote(t.Cert), quote(t.Key))
	case "acme":
		p("ca = %s # or \"zerossl\", \"google\", or the URL of an ACME directory", quote(t.CA))
		p("ca_roots = %s # a file with the certificates to trust for that URL, where the system's do not do", quote(t.CARoots))
		p("email = %s # the authority may write to it", quote(t.Email))
		p("eab_kid = %s\neab_key_file = %s # external account, where the authority wants one", quote(t.EABKeyID), quote(t.EABKeyFile))
		p("challenge = %s # http-01 (port 80), tls-alpn-01 (port 443), dns-01; auto: both of the first", quote(t.Challenge))
		p("dns_provider = %s # for dns-01: rfc2136, cloudflare, route53 or hetzner", quote(t.Provider))
		p("dns_server = %s # of rfc2136: the primary name server, with its port", quote(t.Server))
		p("dns_key_name = %s # of rfc2136: the TSIG key, as name or hmac-sha512:name; of route53: the access key's id", quote(t.KeyName))
		p("dns_key_file = %s # a file with the TSIG secret, the API token or the secret key", quote(t.KeyFile))
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
