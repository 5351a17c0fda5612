package addr

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Domain is a domain name. Its identity is the lower-case A-label form, so two Domains are the same domain exactly when
// they are equal. An address literal is not a Domain: see Address.Literal. The zero Domain is no domain.
type Domain struct{ ascii string }

// lookup is idna.Lookup (UTS 46, not transitional, RFC 5893 bidi rule) without its rule against hyphens in the third and
// fourth place, which working domains break. What it returns is checked by checkHost again. It is never changed.
var lookup = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.CheckHyphens(false))

// ParseDomain parses a domain name written in ASCII or with U-labels. Labels are letters, digits and inner hyphens
// (RFC 5321 section 4.1.2: sub-domain); a trailing dot, an empty label and an underscore are refused.
func ParseDomain(s string) (Domain, error) {
	if len(s) > maxWritten {
		return Domain{}, tooLong("the domain is too long")
	}
	if !needsIDNA(s) {
		if err := checkHost(s); err != nil {
			return Domain{}, err
		}
		return Domain{strings.ToLower(s)}, nil // no copy when it is lower case already
	}
	if !utf8.ValidString(s) {
		return Domain{}, syntax("the domain is not valid UTF-8")
	}
	ascii, err := lookup.ToASCII(s)
	if err != nil {
		return Domain{}, syntax("the domain is not a valid internationalized name")
	}
	if err := checkHost(ascii); err != nil {
		return Domain{}, err
	}
	d := Domain{strings.ToLower(ascii)}
	// RFC 5890 section 2.3.2.1: an A-label and its U-label stand for each other. One that hides another A-label, as
	// xn--xn--00-00a does, cannot be shown to people and read back.
	if again, err := lookup.ToASCII(d.Unicode()); err != nil || again != d.ascii {
		return Domain{}, syntax("the domain is not a valid internationalized name")
	}
	return d, nil
}

// needsIDNA tells whether s holds octets beyond ASCII, or an A-label, which must be a real one.
func needsIDNA(s string) bool {
	if !isASCII(s) {
		return true
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) >= 4 && strings.EqualFold(label[:4], "xn--") {
			return true
		}
	}
	return false
}

// checkHost checks letters, digits, hyphens and lengths of an ASCII name.
func checkHost(s string) error {
	if len(s) > maxDomain {
		return tooLong("the domain is too long")
	}
	start := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '.' {
			if !isLetterDigit(s[i]) && s[i] != '-' {
				return syntax("the domain has a character that is not allowed")
			}
			continue
		}
		switch label := s[start:i]; {
		case label == "":
			return syntax("the domain has an empty label")
		case len(label) > maxLabel:
			return tooLong("the domain has a label of more than 63 octets")
		case label[0] == '-' || label[len(label)-1] == '-':
			return syntax("the domain has a label that begins or ends with a hyphen")
		}
		start = i + 1
	}
	return nil
}

// ASCII is the domain in lower-case A-labels, as it goes over the wire and into DNS queries.
func (d Domain) ASCII() string { return d.ascii }

// String is the same as ASCII.
func (d Domain) String() string { return d.ascii }

// IsZero tells whether d is no domain.
func (d Domain) IsZero() bool { return d.ascii == "" }

// Unicode is the domain with U-labels, for people to read.
func (d Domain) Unicode() string {
	if !strings.Contains(d.ascii, "xn--") {
		return d.ascii
	}
	if u, err := lookup.ToUnicode(d.ascii); err == nil {
		return u
	}
	return d.ascii
}

func isLetterDigit(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
