// Package mtasts reads what a domain says about the TLS of its mail servers: the record and the policy of SMTP MTA Strict
// Transport Security (RFC 8461). It looks up and fetches nothing.
package mtasts

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrNone says that a domain has no record of this kind, or more than one, which counts as none: RFC 8461 section 3.1.
var ErrNone = errors.New("mtasts: no record")

// Mode is what a sender does with a host that does not fit the policy: RFC 8461 section 5.
type Mode string

// The modes.
const (
	Enforce Mode = "enforce" // does not deliver there
	Testing Mode = "testing" // delivers and reports
	None    Mode = "none"    // as if there were no policy
)

const version = "STSv1"

// MaxSize is how large a policy file may be, in octets: RFC 8461 section 3.3 suggests it.
const MaxSize = 64 << 10

// maxMaxAge is the longest time that a policy may be kept for, about a year: RFC 8461 section 3.2.
const maxMaxAge = 31557600

// ParseTXT finds the one record among the TXT records of _mta-sts.DOMAIN and returns its id, which changes with the policy: RFC
// 8461 section 3.1. Records that do not begin with the version are of another kind.
func ParseTXT(records []string) (id string, err error) {
	found := ""
	for _, r := range records {
		if !isRecord(r) {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("%w: there is more than one", ErrNone)
		}
		found = r
	}
	if found == "" {
		return "", ErrNone
	}
	return parseRecord(found)
}

// isRecord tells whether a record begins with the version and the end of that field.
func isRecord(r string) bool {
	rest, ok := strings.CutPrefix(r, "v="+version)
	return ok && strings.HasPrefix(strings.TrimLeft(rest, " \t"), ";")
}

func parseRecord(record string) (id string, err error) {
	fields := strings.Split(record, ";")
	if strings.Trim(fields[len(fields)-1], " \t") == "" {
		fields = fields[:len(fields)-1] // the delimiter may end the record
	}
	for _, field := range fields[1:] {
		name, value, ok := strings.Cut(strings.Trim(field, " \t"), "=")
		switch {
		case !ok || !isName(name) || value == "" || !printable(value, " ;="):
			return "", fmt.Errorf("mtasts: record %q: bad field %q", record, field)
		case name != "id" || id != "":
		case len(value) > 32 || !alphanumeric(value, ""):
			return "", fmt.Errorf("mtasts: record %q: an id has 1 to 32 letters and digits", record)
		default:
			id = value
		}
	}
	if id == "" {
		return "", fmt.Errorf("mtasts: record %q: no id", record)
	}
	return id, nil
}

// Policy is a policy file: RFC 8461 section 3.2.
type Policy struct {
	Mode   Mode
	MX     []string // lower case; a first label "*" stands for any one label
	MaxAge time.Duration
}

// ParsePolicy reads a policy file. The first of several fields of a name counts, mx apart, and unknown ones are ignored.
func ParsePolicy(content []byte) (Policy, error) {
	p, err := parsePolicy(content)
	if err != nil {
		return Policy{}, fmt.Errorf("mtasts: policy: %w", err)
	}
	return p, nil
}

func parsePolicy(content []byte) (p Policy, err error) {
	if len(content) > MaxSize {
		return p, fmt.Errorf("it is larger than %d octets", MaxSize)
	}
	if !utf8.Valid(content) || bytes.ContainsRune(content, 0) {
		return p, errors.New("it is no text")
	}
	first := map[string]string{}
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if strings.Trim(line, " \t") == "" {
			continue // the grammar has no empty lines, but files end with them
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isName(name) {
			return p, fmt.Errorf("line %q is no field", line)
		}
		value = strings.Trim(value, " \t")
		if name == "mx" {
			pattern, err := parsePattern(value)
			if err != nil {
				return p, err
			}
			p.MX = append(p.MX, pattern)
			continue
		}
		if _, again := first[name]; !again {
			first[name] = value
		}
	}
	return p, p.set(first)
}

// set takes over the fields that may be there once.
func (p *Policy) set(fields map[string]string) error {
	if fields["version"] != version {
		return fmt.Errorf("version is %q instead of %s", fields["version"], version)
	}
	switch p.Mode = Mode(fields["mode"]); p.Mode {
	case Enforce, Testing:
		if len(p.MX) == 0 {
			return fmt.Errorf("mode %s without mx", p.Mode)
		}
	case None:
	default:
		return fmt.Errorf("unknown mode %q", p.Mode)
	}
	age := fields["max_age"]
	seconds, err := strconv.ParseUint(age, 10, 64)
	if err != nil || len(age) > 10 || age[0] == '+' {
		return fmt.Errorf("max_age %q is not 1 to 10 digits", age)
	}
	p.MaxAge = time.Duration(min(seconds, maxMaxAge)) * time.Second
	return nil
}

// parsePattern reads the value of mx: a host name, or "*." and a domain.
func parsePattern(value string) (string, error) {
	pattern := strings.ToLower(strings.TrimSuffix(value, "."))
	if !isHost(strings.TrimPrefix(pattern, "*.")) {
		return "", fmt.Errorf("mx %q is no host name, nor \"*.\" before one", value)
	}
	return pattern, nil
}

// Match tells whether a host of the domain's MX records fits the policy: RFC 8461 section 4.1.
func (p Policy) Match(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, pattern := range p.MX {
		if pattern == host {
			return true
		}
		if domain, ok := strings.CutPrefix(pattern, "*."); ok {
			label, rest, _ := strings.Cut(host, ".")
			if label != "" && rest == domain {
				return true
			}
		}
	}
	return false
}

// isHost tells whether a name, in lower case, is a domain in A-labels.
func isHost(name string) bool {
	if len(name) == 0 || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || !alphanumeric(label, "-_") || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

// isName tells whether a field has a name: a letter or digit, then up to 31 of these, "_", "-" and ".".
func isName(name string) bool {
	return name != "" && len(name) <= 32 && alphanumeric(name[:1], "") && alphanumeric(name, "_-.")
}

func alphanumeric(s, more string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(more, c) >= 0) {
			return false
		}
	}
	return true
}

// printable tells whether s is ASCII that can be seen, without the octets of not.
func printable(s, not string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(not, c) >= 0 {
			return false
		}
	}
	return true
}
