package config

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const acme = "[tls]\nsource = \"acme\"\n"

const least = "hostname = \"mail.example.org\"\n"

func TestParse(t *testing.T) {
	c, err := Parse("p.toml", []byte(least+`
data_dir = "/srv/mail"
[listen]
smtp = ["127.0.0.1:2525", "[::1]:2525"]
pop3 = []
[limits]
message_size = "20 MiB"
disk_reserve = 0
[proxy]
trusted = ["192.0.2.7", "2001:db8::/32"]
[log]
level = "debug"
format = "json"
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Limits.MessageSize != 20<<20 || c.Limits.DiskReserve != 0 || c.Limits.Recipients != 1000 || len(c.Listen.POP3) != 0 ||
		len(c.Listen.POP3S) != 1 || c.Proxy.Trusted[0].String() != "192.0.2.7/32" || c.Log.Level.String() != "DEBUG" {
		t.Errorf("got %+v", c)
	}
	if notes := c.Notes(); len(notes) != 0 {
		t.Errorf("notes %q", notes)
	}
}

// TestProblems has a row for every rule; each names line, key and the words that an operator needs.
func TestProblems(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "p.toml: hostname: missing"},
		{"not TOML", "hostname = \n", "p.toml:1: "},
		{"wrong kind", least + "data_dir = 7\n", "p.toml:2: data_dir: "},
		{"unknown key", least + "datadir = \"/x\"\n", "p.toml:2: datadir: there is no such key; did you mean data_dir?"},
		{"key in the wrong table", least + "smtp = [\":25\"]\n", "p.toml:2: smtp: there is no such key; did you mean listen.smtp?"},
		{"unknown table", least + "[smtpd]\nport = 25\n", "p.toml:2: smtpd"},
		{"nothing like it", least + "[log]\nxyzzy = 1\n", "p.toml:3: log.xyzzy: there is no such key\n"},
		{"hostname", "hostname = \"mail_1.example.org\"\n", "p.toml:1: hostname: \"mail_1.example.org\" is not a host name"},
		{"short hostname", "hostname = \"mail\"\n", "p.toml:1: hostname: \"mail\" has no domain"},
		{"data_dir", least + "data_dir = \"mail\"\n", "p.toml:2: data_dir: "},
		{"database", least + "database = \"mysql:x\"\n", "p.toml:2: database: "},
		{"PostgreSQL", least + "database = \"postgres://x\"\n", "not built in yet"},
		{"no port", least + "[listen]\nsmtp = [\"localhost\"]\n", "p.toml:3: listen.smtp: \"localhost\" is not an address and port"},
		{"bad port", least + "[listen]\nsmtp = [\":70000\"]\n", "listen.smtp: \":70000\" has no port"},
		{"a name", least + "[listen]\nsmtp = [\"example.org:25\"]\n", "is not an IP address"},
		{"taken", least + "[listen]\npop3 = [\":25\"]\n", "p.toml:3: listen.pop3: :25 is taken by listen.smtp already"},
		{"acme without ports", least + acme + "[listen]\nhttp = []\nhttps = []\n", "p.toml: tls.challenge: authorities look at port 80 or 443"},
		{"http-01 without a port", least + acme + "challenge = \"http-01\"\n[listen]\nhttp = []\nhttps = [\":443\"]\n", "p.toml:4: tls.challenge: \"http-01\" needs listen.http"},
		{"tls-alpn-01 without a port", least + acme + "challenge = \"tls-alpn-01\"\n[listen]\nhttp = [\":80\"]\nhttps = []\n", "\"tls-alpn-01\" needs listen.https"},
		{"no such challenge", least + acme + "challenge = \"dns\"\n", "\"dns\" is none of auto, http-01"},
		{"authority", least + acme + "ca = \"http://ca.example\"\n", "p.toml:4: tls.ca: \"http://ca.example\" is neither"},
		{"email", least + acme + "email = \"me\"\n", "tls.email: "},
		{"half an external account", least + acme + "eab_kid = \"k\"\n", "p.toml:4: tls.eab_kid: eab_kid and eab_key_file come together"},
		{"no external account", least + acme + "ca = \"zerossl\"\n", "zerossl wants an external account"},
		{"relative file", least + acme + "eab_kid = \"k\"\neab_key_file = \"x\"\n", "tls.eab_key_file: \"x\" does not begin with a slash"},
		{"provider", least + acme + "challenge = \"dns-01\"\n", "tls.dns_provider: \"\" is none of rfc2136"},
		{"rfc2136 without a server", least + acme + "challenge = \"dns-01\"\ndns_provider = \"rfc2136\"\n", "tls.dns_server: "},
		{"rfc2136 without a key", least + acme + "challenge = \"dns-01\"\ndns_provider = \"rfc2136\"\ndns_server = \"192.0.2.1:53\"\n", "tls.dns_key_name: "},
		{"cloudflare without a token", least + acme + "challenge = \"dns-01\"\ndns_provider = \"cloudflare\"\n", "tls.dns_key_file: "},
		{"half of route53", least + acme + "challenge = \"dns-01\"\ndns_provider = \"route53\"\ndns_key_name = \"x\"\n", "come together"},
		{"provider without dns-01", least + acme + "dns_provider = \"hetzner\"\n[listen]\nhttp = [\":80\"]\n", "are for challenge = \"dns-01\""},
		{"acme's keys elsewhere", least + "[tls]\nemail = \"op@example.org\"\n", "only source, cert and key are for source = \"local\""},
		{"source", least + "[tls]\nsource = \"x\"\n", "tls.source: \"x\" is neither"},
		{"files without paths", least + "[tls]\nsource = \"files\"\n", "tls.cert: "},
		{"local with paths", least + "[tls]\ncert = \"/x\"\n", "cert and key are for source"},
		{"resolver", least + "[dns]\nresolvers = [\"127.0.0.1\"]\n", "p.toml:3: dns.resolvers: "},
		{"small messages", least + "[limits]\nmessage_size = 1000\n", "p.toml:3: limits.message_size: 1000 is too little"},
		{"few recipients", least + "[limits]\nrecipients = 99\n", "limits.recipients: 99 is too little"},
		{"no connections", least + "[limits]\nconnections = 0\n", "limits.connections: 0 is too little"},
		{"size", least + "[limits]\nmessage_size = \"big\"\n", "is not a size"},
		{"negative size", least + "[limits]\ndisk_reserve = -1\n", "is not a size"},
		{"proxy", least + "[proxy]\ntrusted = [\"proxy.example\"]\n", "is neither an address nor a network"},
		{"alerts", least + "[alerts]\nto = \"me\"\n", "p.toml:3: alerts.to: "},
		{"level", least + "[log]\nlevel = \"loud\"\n", "p.toml:3: "},
		{"format", least + "[log]\nformat = \"xml\"\n", "p.toml:3: log.format: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse("p.toml", []byte(tc.text))
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(err.Error()+"\n", tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestSeveralProblems(t *testing.T) {
	_, err := Parse("p.toml", []byte("hostname = \"x\"\ndata_dir = \"y\"\ncolour = 1\n"))
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want three problems, got %v", err)
	}
}

func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.toml")
	if _, err := Load(file); err == nil || !strings.Contains(err.Error(), file+": there is no such file") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(t.TempDir()); err == nil {
		t.Error("a directory was read")
	}
	if err := os.WriteFile(file, []byte(least), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(file); err != nil || c.Hostname != "mail.example.org" {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestPrintReadsBack(t *testing.T) {
	yes := true
	all := Default()
	all.Hostname = "mail.example.org"
	all.DataDir = "/srv/\"odd\" \\ name\x01ü"
	all.Listen.Admin = []string{"127.0.0.1:8025", "[::1]:8025", "localhost:8026", "192.0.2.1:8025", ":8025"}
	all.TLS.Source, all.TLS.Cert, all.TLS.Key = "files", "/c.pem", "/k.pem"
	all.DNS = DNS{[]string{"127.0.0.1:53"}, &yes}
	all.Limits.DiskReserve = 1234567
	all.Alerts.To = "me@example.net"
	plain := Default()
	plain.Hostname = "mail.example.org"
	public := Default()
	public.Hostname = "mail.example.org"
	public.TLS = TLS{
		Source: "acme", CA: "https://ca.example/dir", CARoots: "/roots.pem", Email: "op@example.org", EABKeyID: "k", EABKeyFile: "/eab",
		Challenge: "dns-01", Provider: "rfc2136", Server: "192.0.2.1:53", KeyName: "hmac-sha512:k", KeyFile: "/tsig",
	}
	for _, c := range []*Config{plain, all, public} {
		var b strings.Builder
		if err := c.Print(&b); err != nil {
			t.Fatal(err)
		}
		again, err := Parse("printed", []byte(b.String()))
		if err != nil {
			t.Fatalf("%v in\n%s", err, b.String())
		}
		var second strings.Builder
		if err := again.Print(&second); err != nil || second.String() != b.String() {
			t.Errorf("printed again it is\n%s\nfirst it was\n%s", second.String(), b.String())
		}
		if !reflect.DeepEqual(again.Limits, c.Limits) || again.DataDir != c.DataDir || again.TLS != c.TLS {
			t.Errorf("read back %+v, want %+v", again, c)
		}
	}
	if notes := all.Notes(); len(notes) != 2 || !strings.Contains(notes[0], "192.0.2.1:8025") || !strings.Contains(notes[1], " :8025") {
		t.Errorf("notes %q", notes)
	}
	if notes := plain.Notes(); len(notes) != 0 {
		t.Errorf("notes on the defaults: %q", notes)
	}
}

// TestKnownKeys shows that the list of keys is complete: everything that Print writes is in it.
func TestKnownKeys(t *testing.T) {
	c := Default()
	yes := true
	c.DNS.TrustAD = &yes
	printed := map[string]int{}
	for _, c.TLS.Source = range []string{"files", "acme"} {
		var b strings.Builder
		if err := c.Print(&b); err != nil {
			t.Fatal(err)
		}
		maps.Copy(printed, keyLines([]byte(b.String())))
	}
	known := map[string]bool{"": true}
	for _, k := range knownKeys() {
		known[k] = true
		table, _, ok := strings.Cut(k, ".")
		known[table] = known[table] || ok
	}
	for key := range printed {
		if !known[key] {
			t.Errorf("%s is printed and not known", key)
		}
		delete(known, key)
	}
	delete(known, "")
	if len(known) > 0 {
		t.Errorf("known and not printed: %v", known)
	}
}

// TestExample keeps the example that is handed out equal to the defaults.
func TestExample(t *testing.T) {
	example, err := os.ReadFile("../../deploy/postroom.toml")
	if err != nil {
		t.Fatal(err)
	}
	c := Default()
	c.Hostname = "mail.example.org"
	var b strings.Builder
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	if b.String() != string(example) {
		t.Errorf("deploy/postroom.toml is not what config print says:\n%s", b.String())
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "17": 17, "1 KiB": 1024, "2MiB": 2 << 20, "3 GiB": 3 << 30, "1GB": 1e9, "5M": 5 << 20, "7 B": 7} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
		if again, err := ParseSize(got.String()); err != nil || again != got {
			t.Errorf("%q is written as %q", text, got)
		}
	}
	for _, text := range []string{"", "x", "-1", "1 TiBi", "1.5 GiB", "99999999999 GiB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(least)
	f.Add(least + "[listen]\nsmtp = [\":25\"]\n[limits]\nmessage_size = \"1 MiB\"\n")
	f.Add("hostname = 7\n[[listen]]\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("p.toml", []byte(text))
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || len(e.Problems) == 0 {
				t.Fatalf("got %v", err)
			}
			return
		}
		var b strings.Builder
		if err := c.Print(&b); err != nil {
			t.Fatal(err)
		}
		if _, err := Parse("printed", []byte(b.String())); err != nil {
			t.Fatalf("%v in\n%s", err, b.String())
		}
	})
}

func TestDNS(t *testing.T) {
	yes, no := true, false
	for _, tc := range []struct {
		name      string
		dns       DNS
		servers   int
		trustsTwo bool
	}{
		{"the system's, one on another machine", DNS{}, 0, false},
		{"told to trust", DNS{TrustAD: &yes}, 0, true},
		{"two named", DNS{Resolvers: []string{"127.0.0.1:53", "192.0.2.1:53"}}, 2, false},
		{"on this machine", DNS{Resolvers: []string{"127.0.0.1:53", "[::1]:53"}}, 2, true},
		{"on this machine, told not to trust", DNS{Resolvers: []string{"127.0.0.1:53"}, TrustAD: &no}, 1, false},
	} {
		servers := tc.dns.Servers()
		if len(servers) != tc.servers {
			t.Errorf("%s: servers %v", tc.name, servers)
		}
		if len(servers) == 0 {
			servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("192.0.2.1:53")}
		}
		if got := tc.dns.Trusts(servers); got != tc.trustsTwo {
			t.Errorf("%s: trusts %t", tc.name, got)
		}
	}
}
