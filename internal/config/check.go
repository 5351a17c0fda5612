package config

import (
	"net"
	"net/netip"
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
	switch c.TLS.Source {
	case "local":
		if c.TLS.Cert != "" || c.TLS.Key != "" {
			r.add("tls.source", "cert and key are for source = \"files\"")
		}
	case "files":
		for _, f := range []struct{ key, path string }{{"tls.cert", c.TLS.Cert}, {"tls.key", c.TLS.Key}} {
			if !filepath.IsAbs(f.path) {
				r.add(f.key, "%q: source = \"files\" needs a path that begins with a slash", f.path)
			}
		}
	case "acme":
		r.add("tls.source", "certificates over ACME are not built in yet: use \"files\" with cert and key, or \"local\" for trying out")
	default:
		r.add("tls.source", "%q is neither \"files\" nor \"local\"", c.TLS.Source)
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
	keys := []string{"hostname", "data_dir", "database", "tls.source", "tls.cert", "tls.key", "dns.resolvers", "dns.trust_ad",
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
