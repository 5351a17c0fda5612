package dkim

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/internal/addr"
)

// Limits of what is looked at. A letter needs one good signature; the others are somebody's work to make us work.
const (
	maxSignatures  = 8   // verified
	maxParsed      = 100 // looked at to choose those
	maxSignedNames = 200 // in h=
)

// Signature is one DKIM-Signature field, RFC 6376 section 3.5.
type Signature struct {
	Domain    string // d=, in lower-case A-labels
	Selector  string // s=
	Identity  string // i=, as written, "@" and the domain where it is absent
	Algorithm string // a=
	Signed    []string
	B         string // b= without blanks
	query     string

	signature, bodyHash        []byte
	relaxedHeader, relaxedBody bool
}

// Short is the start of b=, which tells signatures of one domain apart: RFC 6008 section 4.
func (s Signature) Short() string { return s.B[:min(8, len(s.B))] }

// keyName is where the public key is: RFC 6376 section 3.6.2.1.
func (s Signature) keyName() string { return s.Selector + "._domainkey." + s.Domain }

// Covers tells whether h= names the field.
func (s Signature) Covers(name string) bool {
	return slices.ContainsFunc(s.Signed, func(n string) bool { return strings.EqualFold(n, name) })
}

// unfit is why a signature is not verified.
type unfit struct {
	status Status
	reason string
}

func (u *unfit) Error() string { return u.reason }

func permanent(format string, args ...any) error {
	return &unfit{PermError, fmt.Sprintf(format, args...)}
}

var (
	errTooManyNames = &unfit{Policy, fmt.Sprintf("h= names more than %d fields", maxSignedNames)}
	errLength       = &unfit{Policy, "l= leaves a part of the body unsigned"}
	errWeakHash     = &unfit{Policy, "rsa-sha1 is too weak"} // RFC 8301 section 3.1
	errExpired      = &unfit{Fail, "the signature has expired"}
)

// parseSignature reads the body of a DKIM-Signature field. What it returns is as much as could be read, even with an error.
func parseSignature(body string, now time.Time) (Signature, error) {
	tags, err := parseTags(body)
	if err != nil {
		return Signature{}, permanent("%s", err)
	}
	s := Signature{Selector: tags["s"], Algorithm: strings.ToLower(tags["a"]), B: tags["b"], query: tags["q"]}
	domain, err := addr.ParseDomain(tags["d"])
	if err != nil {
		return s, permanent("d= is no domain")
	}
	s.Domain = domain.ASCII()
	for _, check := range []func(map[string]string) error{s.checkTags, s.readSigned, s.readIdentity, s.readCanonical, s.readHashes, checkTimes(now)} {
		if err := check(tags); err != nil {
			return s, err
		}
	}
	return s, nil
}

// checkTags judges the tags that are taken as they are.
func (s *Signature) checkTags(tags map[string]string) error {
	for _, required := range []string{"v", "a", "b", "bh", "d", "h", "s"} {
		if tags[required] == "" {
			return permanent("%s= is missing", required)
		}
	}
	_, length := tags["l"]
	switch {
	case tags["v"] != "1":
		return permanent("v= is not 1")
	case !isSelector(s.Selector):
		return permanent("s= is no selector")
	case s.Algorithm == "rsa-sha1":
		return errWeakHash
	case s.Algorithm != "rsa-sha256" && s.Algorithm != "ed25519-sha256":
		return permanent("a= is unknown")
	case tags["a"] != s.Algorithm:
		return permanent("a= is not lower-case") // RFC 6376 section 3.2: values are case-sensitive
	case length:
		return errLength
	case s.query != "" && !slices.Contains(strings.Split(s.query, ":"), "dns/txt"):
		return permanent("q= has no method that is known")
	}
	return nil
}

// readSigned reads h=. RFC 6376 section 5.4: From must be signed.
func (s *Signature) readSigned(tags map[string]string) error {
	if strings.Count(tags["h"], ":") >= maxSignedNames {
		return errTooManyNames
	}
	s.Signed = strings.Split(tags["h"], ":")
	if !s.Covers("From") {
		return permanent("From is not signed")
	}
	return nil
}

// readIdentity reads i=. RFC 6376 section 3.5: its domain is that of d= or below it.
func (s *Signature) readIdentity(tags map[string]string) error {
	s.Identity = tags["i"]
	if s.Identity == "" {
		s.Identity = "@" + s.Domain
		return nil
	}
	domain, err := addr.ParseDomain(s.Identity[strings.LastIndexByte(s.Identity, '@')+1:])
	if err != nil || domain.ASCII() != s.Domain && !strings.HasSuffix(domain.ASCII(), "."+s.Domain) {
		return permanent("i= is outside of d=")
	}
	return nil
}

// readCanonical reads c=, simple/simple where it is absent.
func (s *Signature) readCanonical(tags map[string]string) error {
	header, body, _ := strings.Cut(tags["c"], "/")
	for _, c := range []string{header, body} {
		if c != "" && c != "simple" && c != "relaxed" {
			return permanent("c= is unknown")
		}
	}
	s.relaxedHeader, s.relaxedBody = header == "relaxed", body == "relaxed"
	return nil
}

// readHashes reads b= and bh=.
func (s *Signature) readHashes(tags map[string]string) (err error) {
	if s.signature, err = base64.StdEncoding.DecodeString(tags["b"]); err != nil {
		return permanent("b= is not base64")
	}
	if s.bodyHash, err = base64.StdEncoding.DecodeString(tags["bh"]); err != nil {
		return permanent("bh= is not base64")
	}
	return nil
}

// checkTimes judges t= and x=, RFC 6376 section 3.5. A t= in the future is taken: clocks differ.
func checkTimes(now time.Time) func(map[string]string) error {
	return func(tags map[string]string) error {
		signed, err := seconds(tags["t"])
		if err != nil {
			return permanent("t= is no time")
		}
		expires, err := seconds(tags["x"])
		switch {
		case err != nil:
			return permanent("x= is no time")
		case expires == 0:
			return nil
		case expires < signed:
			return permanent("x= is before t=")
		case now.Unix() > expires:
			return errExpired
		}
		return nil
	}
}

// seconds reads a time of up to 12 digits (RFC 6376 section 3.5, t=).
func seconds(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || len(s) > 12 {
		return 0, strconv.ErrRange
	}
	return int64(n), nil
}

// isSelector tells whether s is a selector: sub-domains with dots between them, underscores as seen in the wild.
func isSelector(s string) bool {
	if s == "" || len(s) > 200 || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f || strings.IndexByte(`"\;@()<>,:[]/`, c) >= 0 {
			return false
		}
	}
	return true
}

var (
	errTagSyntax = errors.New("a tag is malformed")
	errTagTwice  = errors.New("a tag is there twice")
)

// parseTags reads a tag list, RFC 6376 section 3.2. Values come without any blanks: no tag that is used here has
// blanks that mean something.
func parseTags(list string) (map[string]string, error) {
	tags := map[string]string{}
	for part := range strings.SplitSeq(list, ";") {
		name, value, ok := strings.Cut(part, "=")
		name = strings.Trim(name, " \t\r\n")
		if !ok && name == "" {
			continue // behind the last semicolon; RFC 6376 allows one, others are harmless
		}
		if !ok || !isTagName(name) {
			return nil, errTagSyntax
		}
		if _, twice := tags[name]; twice {
			return nil, errTagTwice // RFC 6376 section 3.2: then the whole list is invalid
		}
		tags[name] = strings.Map(dropBlank, value)
	}
	return tags, nil
}

// dropBlank drops the white space of RFC 6376 section 2.8, and no other.
func dropBlank(r rune) rune {
	if r == ' ' || r == '\t' || r == '\r' || r == '\n' {
		return -1
	}
	return r
}

func isTagName(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (i == 0 || s[i] != '_' && (s[i] < '0' || s[i] > '9')) {
			return false
		}
	}
	return s != ""
}
