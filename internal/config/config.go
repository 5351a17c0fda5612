package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// Config is the whole configuration. The zero value is not useful: see Default.
type Config struct {
	Hostname string   `toml:"hostname"`
	DataDir  string   `toml:"data_dir"`
	Database string   `toml:"database"`
	Public   []string `toml:"public_addresses"` // of this server, where the machine does not have them itself
	Listen   Listen   `toml:"listen"`
	TLS      TLS      `toml:"tls"`
	DNS      DNS      `toml:"dns"`
	Limits   Limits   `toml:"limits"`
	Proxy    Proxy    `toml:"proxy"`
	Alerts   Alerts   `toml:"alerts"`
	Log      Logging  `toml:"log"`
}

// Listen is where each service listens, host:port or :port each. The names are those of systemd's sockets, too.
type Listen struct {
	SMTP        []string `toml:"smtp"`
	Submission  []string `toml:"submission"`
	Submissions []string `toml:"submissions"`
	POP3        []string `toml:"pop3"`
	POP3S       []string `toml:"pop3s"`
	HTTP        []string `toml:"http"`
	HTTPS       []string `toml:"https"`
	Admin       []string `toml:"admin"`
}

// TLS is where certificates come from. Secrets are read from files of their own: this one may be shown to others.
type TLS struct {
	Source string `toml:"source"` // "acme", "files" or "local"

	Cert string `toml:"cert"` // of source files
	Key  string `toml:"key"`

	CA         string `toml:"ca"` // of source acme, like the rest: a name or the URL of a directory
	CARoots    string `toml:"ca_roots"`
	Email      string `toml:"email"`
	EABKeyID   string `toml:"eab_kid"`
	EABKeyFile string `toml:"eab_key_file"`
	Challenge  string `toml:"challenge"`
	Provider   string `toml:"dns_provider"`
	Server     string `toml:"dns_server"`
	KeyName    string `toml:"dns_key_name"`
	KeyFile    string `toml:"dns_key_file"`
}

// NeedsPorts tells whether authorities prove names at our web ports.
func (t TLS) NeedsPorts() bool { return t.Source == "acme" && t.Challenge != "dns-01" }

// DNS is who is asked: the system's resolvers where none is named. TrustAD says that they tell the truth about DNSSEC (the
// AD bit of RFC 4035 section 3.2.3) over a network where nobody can change it; nil stands for what Trusts says.
type DNS struct {
	Resolvers []string `toml:"resolvers"`
	TrustAD   *bool    `toml:"trust_ad"`
}

// Servers are the resolvers that are named.
func (d DNS) Servers() (servers []netip.AddrPort) {
	for _, text := range d.Resolvers {
		if server, err := netip.ParseAddrPort(text); err == nil { // check has said so otherwise
			servers = append(servers, server)
		}
	}
	return servers
}

// Trusts tells whether the AD bit of these resolvers counts: as configured, else when all are on this machine.
func (d DNS) Trusts(servers []netip.AddrPort) bool {
	if d.TrustAD != nil {
		return *d.TrustAD
	}
	return !slices.ContainsFunc(servers, func(s netip.AddrPort) bool { return !s.Addr().IsLoopback() })
}

// Limits are those of the design that an operator may change.
type Limits struct {
	MessageSize           Size `toml:"message_size"`
	Recipients            int  `toml:"recipients"`
	Connections           int  `toml:"connections"`
	ConnectionsPerAddress int  `toml:"connections_per_address"`
	ConnectionsPerAccount int  `toml:"connections_per_account"`
	DiskReserve           Size `toml:"disk_reserve"`
}

// Proxy lists who must speak the PROXY protocol.
type Proxy struct {
	Trusted []Network `toml:"trusted"`
}

// Prefixes returns the networks.
func (p Proxy) Prefixes() []netip.Prefix {
	all := make([]netip.Prefix, len(p.Trusted))
	for i, n := range p.Trusted {
		all[i] = n.Prefix
	}
	return all
}

// Alerts is who is told what the operator must know.
type Alerts struct {
	To string `toml:"to"`
}

// Logging is what is logged, and how.
type Logging struct {
	Level  slog.Level `toml:"level"`
	Format string     `toml:"format"`
}

// Default is the configuration of an empty file.
func Default() *Config {
	return &Config{
		DataDir:  "/var/lib/postroom",
		Database: "sqlite:postroom.db",
		Listen: Listen{
			SMTP: []string{":25"}, Submission: []string{":587"}, Submissions: []string{":465"}, POP3: []string{":110"}, POP3S: []string{":995"},
			HTTP: []string{":80"}, HTTPS: []string{":443"}, Admin: []string{"127.0.0.1:8025"},
		},
		TLS: TLS{Source: "local", CA: "letsencrypt", Challenge: "auto"},
		Limits: Limits{
			MessageSize: 50 << 20, Recipients: 1000, Connections: 2000,
			ConnectionsPerAddress: 20, ConnectionsPerAccount: 10, DiskReserve: 1 << 30,
		},
		Log: Logging{Level: slog.LevelInfo, Format: "text"},
	}
}

// Problem is one thing that is wrong.
type Problem struct {
	File string
	Line int    // 0: of the whole file
	Key  string // "": of no key
	Text string
}

// String returns the problem as an operator reads it: file:line: key: text.
func (p Problem) String() string {
	s := p.File
	if p.Line > 0 {
		s += fmt.Sprintf(":%d", p.Line)
	}
	if p.Key != "" {
		s += ": " + p.Key
	}
	return s + ": " + p.Text
}

// Error is a configuration that cannot be used, with all that is wrong with it.
type Error struct{ Problems []Problem }

// Error lists the problems, one a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Load reads and checks a file. Its error is an *Error.
func Load(file string) (*Config, error) {
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &Error{[]Problem{{File: file, Text: "there is no such file; --config names another one"}}}
	case errors.Is(err, fs.ErrPermission):
		return nil, &Error{[]Problem{{File: file, Text: "not allowed to read it"}}}
	case err != nil:
		return nil, &Error{[]Problem{{File: file, Text: err.Error()}}}
	}
	return Parse(file, text)
}

// Parse is Load for a text. file is only for messages.
func Parse(file string, text []byte) (*Config, error) {
	c := Default()
	r := &report{file: file, lines: keyLines(text)}
	meta, err := toml.NewDecoder(bytes.NewReader(text)).Decode(c)
	if err != nil {
		r.unreadable(err)
		return nil, &Error{r.problems}
	}
	for _, key := range meta.Undecoded() {
		r.unknown(key.String())
	}
	c.check(r)
	if len(r.problems) > 0 {
		slices.SortStableFunc(r.problems, func(a, b Problem) int { return a.Line - b.Line })
		return nil, &Error{r.problems}
	}
	return c, nil
}

// report collects problems and finds their lines.
type report struct {
	file     string
	lines    map[string]int
	problems []Problem
}

func (r *report) add(key, format string, args ...any) {
	r.problems = append(r.problems, Problem{r.file, r.lines[key], key, fmt.Sprintf(format, args...)})
}

// placed finds line and key in the message of an error that toml gives without its fields.
var placed = regexp.MustCompile(`^toml: line (\d+) \(last key "([^"]*)"\): (.*)$`)

// unreadable is for a text that is not TOML, or a value of the wrong kind.
func (r *report) unreadable(err error) {
	var p toml.ParseError
	if errors.As(err, &p) {
		r.problems = append(r.problems, Problem{r.file, p.Position.Line, p.LastKey, p.Message})
		return
	}
	if m := placed.FindStringSubmatch(err.Error()); m != nil {
		line, _ := strconv.Atoi(m[1]) // digits
		r.problems = append(r.problems, Problem{r.file, line, m[2], m[3]})
		return
	}
	r.problems = append(r.problems, Problem{File: r.file, Text: strings.TrimPrefix(err.Error(), "toml: ")})
}

// unknown names a key that does not exist, and the nearest one that does.
func (r *report) unknown(key string) {
	text := "there is no such key"
	if near := nearest(key, knownKeys()); near != "" {
		text += "; did you mean " + near + "?"
	}
	r.add(key, "%s", text)
}

// keyLines finds the line of every key. It reads only what the decoder has accepted or will reject, so it may be simple:
// a line that is not understood has no key.
func keyLines(text []byte) map[string]int {
	lines := make(map[string]int)
	table := ""
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			name, _, _ := strings.Cut(strings.TrimLeft(line, "["), "]")
			table = strings.TrimSpace(name)
			lines[table] = i + 1
			table += "."
			continue
		}
		if name, _, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			key := table + strings.Trim(strings.TrimSpace(name), `"'`)
			if _, seen := lines[key]; !seen {
				lines[key] = i + 1
			}
		}
	}
	return lines
}
