package config

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/postroom/postroom/internal/addr"
)

// check finds what cannot work. It looks at the values alone: no file, no network.
func (c *Config) check(r *report) {
	c.checkNames(r)
	c.checkListen(r)
	c.checkTLS(r)
	c.checkLimits(r)
	for _, resolver := range c.DNS.Resolvers {
		if _, err := netip.ParseAddrPort(resolver); err != nil {
			r.add("dns.resolvers", "%q is not an address and port such as 127.0.0.1:53", resolver)
		}
	}
	if c.Alerts.To != "" {
		if _, err := addr.Parse(c.Alerts.To); err != nil {
			r.add("alerts.to", "%q is not a mail address", c.Alerts.To)
		}
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		r.add("log.format", "%q is neither text nor json", c.Log.Format)
	}
}

func (c *Config) checkNames(r *report) {
	switch d, err := addr.ParseDomain(c.Hostname); {
	case c.Hostname == "":
		r.add("hostname", "missing: write the full name of this host, such as mail.example.org")
	case err != nil:
		r.add("hostname", "%q is not a host name: %v", c.Hostname, err)
	case !strings.Contains(d.ASCII(), "."):
		r.add("hostname", "%q has no domain: write the full name, such as mail.example.org", c.Hostname)
	}
	for _, ip := range c.Public {
		if _, err := netip.ParseAddr(ip); err != nil {
			r.add("public_addresses", "%q is not an address", ip)
		}
	}
	if !filepath.IsAbs(c.DataDir) {
		r.add("data_dir", "%q does not begin with a slash", c.DataDir)
	}
	switch scheme, rest, _ := strings.Cut(c.Database, ":"); {
	case scheme == "postgres" || scheme == "postgresql":
		r.add("database", "PostgreSQL is not built in yet: use sqlite:postroom.db")
	case scheme != "sqlite" || rest == "":
		r.add("database", "%q is not a database: use sqlite: and a file name", c.Database)
	}
}

// services lists the listeners with their keys.
func (l *Listen) services() []struct {
	name  string
	addrs []string
} {
	return []struct {
		name  string
		addrs []string
	}{
		{"smtp", l.SMTP}, {"submission", l.Submission}, {"submissions", l.Submissions}, {"pop3", l.POP3}, {"pop3s", l.POP3S},
		{"http", l.HTTP}, {"https", l.HTTPS}, {"admin", l.Admin},
	}
}

func (c *Config) checkListen(r *report) {
	taken := map[string]string{}
	for _, s := range c.Listen.services() {
		for _, a := range s.addrs {
			key := "listen." + s.name
			host, port, err := net.SplitHostPort(a)
			if err != nil {
				r.add(key, "%q is not an address and port such as :25 or 127.0.0.1:2525", a)
				continue
			}
			if n, err := strconv.ParseUint(port, 10, 16); err != nil {
				r.add(key, "%q has no port from 0 to 65535", a)
			} else if n == 0 {
				continue // any free port: it is taken by nobody
			}
			if _, err := netip.ParseAddr(host); host != "" && err != nil && host != "localhost" {
				r.add(key, "%q is not an IP address: a server listens on addresses, not on names", host)
			}
			if other, ok := taken[a]; ok {
				r.add(key, "%s is taken by %s already", a, other)
			}
			taken[a] = key
		}
	}
}

func (c *Config) checkTLS(r *report) {
	t := &c.TLS
	switch t.Source {
	case "local":
	case "files":
		for _, f := range []struct{ key, path string }{{"tls.cert", t.Cert}, {"tls.key", t.Key}} {
			if !filepath.IsAbs(f.path) {
				r.add(f.key, "%q: source = \"files\" needs a path that begins with a slash", f.path)
			}
		}
	case "acme":
		c.checkACME(r)
	default:
		r.add("tls.source", "%q is neither \"acme\", \"files\" nor \"local\"", t.Source)
		return
	}
	usual := Default().TLS
	if t.Source != "files" && (t.Cert != "" || t.Key != "") {
		r.add("tls.source", "cert and key are for source = \"files\"")
	}
	if usual.Source, usual.Cert, usual.Key = t.Source, t.Cert, t.Key; t.Source != "acme" && *t != usual {
		r.add("tls.source", "of the keys here, only source, cert and key are for source = %q", t.Source)
	}
}

// checkACME looks at what certificates of a public authority need.
func (c *Config) checkACME(r *report) {
	t := &c.TLS
	switch u, err := url.Parse(t.CA); {
	case t.CA == "letsencrypt", t.CA == "zerossl", t.CA == "google":
	case err != nil || u.Scheme != "https" || u.Host == "":
		r.add("tls.ca", "%q is neither letsencrypt, zerossl or google nor the https:// URL of an ACME directory", t.CA)
	}
	if t.Email != "" {
		if _, err := addr.Parse(t.Email); err != nil {
			r.add("tls.email", "%q is not a mail address", t.Email)
		}
	}
	if (t.EABKeyID == "") != (t.EABKeyFile == "") {
		r.add("tls.eab_kid", "eab_kid and eab_key_file come together: the authority gives you both")
	}
	if t.EABKeyID == "" && (t.CA == "zerossl" || t.CA == "google") {
		r.add("tls.ca", "%s wants an external account: set eab_kid and eab_key_file, which it gives you", t.CA)
	}
	for _, f := range []struct{ key, path string }{{"tls.ca_roots", t.CARoots}, {"tls.eab_key_file", t.EABKeyFile}, {"tls.dns_key_file", t.KeyFile}} {
		if f.path != "" && !filepath.IsAbs(f.path) {
			r.add(f.key, "%q does not begin with a slash", f.path)
		}
	}
	c.checkChallenge(r)
}

func (c *Config) checkChallenge(r *report) {
	t := &c.TLS
	switch t.Challenge {
	case "auto":
		if len(c.Listen.HTTP)+len(c.Listen.HTTPS) == 0 {
			r.add("tls.challenge", "authorities look at port 80 or 443: set listen.http or listen.https, or challenge = \"dns-01\"")
		}
	case "http-01":
		if len(c.Listen.HTTP) == 0 {
			r.add("tls.challenge", "\"http-01\" needs listen.http, usually [\":80\"]")
		}
	case "tls-alpn-01":
		if len(c.Listen.HTTPS) == 0 {
			r.add("tls.challenge", "\"tls-alpn-01\" needs listen.https, usually [\":443\"]")
		}
	case "dns-01":
		c.checkProvider(r)
		return
	default:
		r.add("tls.challenge", "%q is none of auto, http-01, tls-alpn-01 and dns-01", t.Challenge)
	}
	if t.Provider+t.Server+t.KeyName+t.KeyFile != "" {
		r.add("tls.challenge", "dns_provider and the keys beside it are for challenge = \"dns-01\"")
	}
}

func (c *Config) checkProvider(r *report) {
	t := &c.TLS
	switch t.Provider {
	case "rfc2136":
		if _, _, err := net.SplitHostPort(t.Server); err != nil {
			r.add("tls.dns_server", "%q: dns_provider = \"rfc2136\" needs the primary name server with its port, such as 192.0.2.53:53", t.Server)
		}
		if t.KeyName == "" || t.KeyFile == "" {
			r.add("tls.dns_key_name", "dns_provider = \"rfc2136\" needs dns_key_name, the TSIG key's name, and dns_key_file, a file with its secret in base64")
		}
	case "cloudflare", "hetzner":
		if t.KeyFile == "" {
			r.add("tls.dns_key_file", "dns_provider = %q needs a file with the API token", t.Provider)
		}
	case "route53":
		if (t.KeyName == "") != (t.KeyFile == "") {
			r.add("tls.dns_key_name", "dns_key_name, the access key's id, and dns_key_file, a file with the secret key, come together; without both, the environment's are used")
		}
	default:
		r.add("tls.dns_provider", "%q is none of rfc2136, cloudflare, route53 and hetzner", t.Provider)
	}
}

func (c *Config) checkLimits(r *report) {
	for _, l := range []struct {
		key          string
		value, least int64
	}{
		{"limits.message_size", int64(c.Limits.MessageSize), 64 << 10}, // RFC 5321 section 4.5.3.1.7
		{"limits.recipients", int64(c.Limits.Recipients), 100},         // section 4.5.3.1.8
		{"limits.connections", int64(c.Limits.Connections), 1},
		{"limits.connections_per_address", int64(c.Limits.ConnectionsPerAddress), 1},
		{"limits.connections_per_account", int64(c.Limits.ConnectionsPerAccount), 1},
		{"limits.disk_reserve", int64(c.Limits.DiskReserve), 0},
	} {
		if l.value < l.least {
			r.add(l.key, "%d is too little: at least %d", l.value, l.least)
		}
	}
}

// Notes says what may not be meant, a sentence each.
func (c *Config) Notes() (notes []string) {
	for _, a := range c.Listen.Admin {
		host, _, err := net.SplitHostPort(a)
		ip, ipErr := netip.ParseAddr(host)
		if err == nil && host != "localhost" && (ipErr != nil || !ip.IsLoopback()) {
			notes = append(notes, "listen.admin has "+a+", which is more than this machine: whoever reaches it reads the metrics, without a login")
		}
	}
	return notes
}

// knownKeys lists every key with its table.
func knownKeys() []string {
	keys := []string{"hostname", "public_addresses", "data_dir", "database", "tls.source", "tls.cert", "tls.key", "tls.ca", "tls.ca_roots",
		"tls.email", "tls.eab_kid", "tls.eab_key_file", "tls.challenge", "tls.dns_provider", "tls.dns_server", "tls.dns_key_name", "tls.dns_key_file", "dns.resolvers", "dns.trust_ad",
		"limits.message_size", "limits.recipients", "limits.connections", "limits.connections_per_address",
		"limits.connections_per_account", "limits.disk_reserve", "proxy.trusted", "alerts.to", "log.level", "log.format"}
	for _, s := range (&Listen{}).services() {
		keys = append(keys, "listen."+s.name)
	}
	return keys
}

// nearest returns the known key that a wrong one was probably meant to be: few letters differ, or only its table does.
func nearest(key string, known []string) string {
	best, distance := "", 1+len(key)/3
	_, last, _ := strings.Cut("."+key, ".")
	if i := strings.LastIndexByte(key, '.'); i >= 0 {
		last = key[i+1:]
	}
	for _, k := range known {
		if strings.HasSuffix(k, "."+last) || k == last {
			return k
		}
		if d := editDistance(key, k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// editDistance counts the letters to insert, drop or change.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
