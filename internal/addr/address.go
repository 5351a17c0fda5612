package addr

import (
	"net/netip"
	"strings"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Address is a mailbox: a local part at a domain or at an address literal. Two Addresses are equal when they are written
// alike but for quoting and the spelling of the domain; whether they are the same mailbox is told by Key.
type Address struct {
	Local   string     // without quotes and backslashes, otherwise as written; may be empty (""@example.org)
	Domain  Domain     // zero when there is a Literal
	Literal netip.Addr // of user@[192.0.2.1] or user@[IPv6:2001:db8::1]; else the zero Addr
}

// Parse parses a mailbox, local-part "@" ( Domain / address-literal ), with nothing around it.
func Parse(s string) (Address, error) {
	if len(s) > maxWritten {
		return Address{}, tooLong("the address is too long")
	}
	local, written, rest, err := parseLocal(s)
	if err != nil {
		return Address{}, err
	}
	return parseAfterLocal(local, written, rest)
}

// parseAfterLocal parses "@domain" and puts the address together. The local part took so many octets as written.
func parseAfterLocal(local string, written int, rest string) (Address, error) {
	host, ok := strings.CutPrefix(rest, "@")
	if !ok {
		return Address{}, errAfterLocal(rest)
	}
	a := Address{Local: local}
	var err error
	if strings.HasPrefix(host, "[") {
		a.Literal, err = parseLiteral(host)
	} else {
		a.Domain, err = ParseDomain(host)
	}
	if err != nil {
		return Address{}, err
	}
	// Both the form as written and the form that we send must fit into a path.
	if n := written + len("@"); n+len(host) > maxMailbox || n+len(a.Domain.ascii) > maxMailbox {
		return Address{}, tooLong("the address is too long")
	}
	return a, nil
}

func errAfterLocal(rest string) error {
	if rest == "" || rest[0] == '>' {
		return syntax("the address has no domain")
	}
	return syntax("the local part has a character that must be quoted")
}

// parseLiteral parses an address literal in its brackets, RFC 5321 section 4.1.3. General-address-literals are refused:
// no other kind was ever registered.
func parseLiteral(s string) (netip.Addr, error) {
	errLiteral := syntax("the address literal is not an IPv4 or IPv6 address")
	inner, ok := strings.CutSuffix(s[1:], "]")
	if !ok {
		return netip.Addr{}, errLiteral
	}
	const tag = "IPv6:"
	tagged := len(inner) > len(tag) && strings.EqualFold(inner[:len(tag)], tag)
	if tagged {
		inner = inner[len(tag):]
	}
	ip, err := netip.ParseAddr(inner)
	if err != nil || ip.Zone() != "" || ip.Is4() == tagged || elidesOneGroup(inner) {
		return netip.Addr{}, errLiteral
	}
	return ip, nil
}

// elidesOneGroup tells whether "::" stands for one group only. RFC 5321 section 4.1.3: "The '::' represents at least 2
// 16-bit groups of zeros."
func elidesOneGroup(ip6 string) bool {
	before, after, elided := strings.Cut(ip6, "::")
	groups := 0
	for _, side := range []string{before, after} {
		if side != "" {
			groups += 1 + strings.Count(side, ":")
		}
	}
	if strings.Contains(ip6, ".") {
		groups++ // the embedded IPv4 address is two groups
	}
	return elided && groups > 6
}

// IsZero tells whether a is no address.
func (a Address) IsZero() bool { return a.Domain.IsZero() && !a.Literal.IsValid() }

// IsASCII tells whether the address can be sent without SMTPUTF8: the local part decides, since a domain always has an
// ASCII form.
func (a Address) IsASCII() bool { return isASCII(a.Local) }

// String is the address as it goes over the wire: the local part quoted only when it must be, the domain in A-labels.
// Parse reads it back to the same Address.
func (a Address) String() string {
	if a.IsZero() {
		return ""
	}
	return quoteLocal(a.Local) + "@" + a.host(a.Domain.ascii)
}

// Unicode is the address for people to read: the domain has U-labels.
func (a Address) Unicode() string {
	if a.IsZero() {
		return ""
	}
	return quoteLocal(a.Local) + "@" + a.host(a.Domain.Unicode())
}

// host is the given form of the domain, or else the address literal.
func (a Address) host(domain string) string {
	switch {
	case !a.Literal.IsValid():
		return domain
	case a.Literal.Is4():
		return "[" + a.Literal.String() + "]"
	default:
		return "[IPv6:" + a.Literal.String() + "]"
	}
}

// Key is what all spellings of one mailbox have in common, for looking it up: the unquoted local part, case-folded and in
// NFC, at the A-label domain. It is not an address: a local part that needs quotes has none here. The domain begins after
// the last "@".
func (a Address) Key() string {
	return foldLocal(a.Local) + "@" + a.host(a.Domain.ascii)
}

// foldLocal folds case and normalizes. Decomposing first makes it a canonical caseless match (Unicode section 3.13, D145):
// folding may not depend on the order of combining marks.
func foldLocal(s string) string {
	if isASCII(s) {
		return strings.ToLower(s) // no copy when it is lower case already
	}
	return norm.NFC.String(strings.Map(foldCherokee, cases.Fold().String(norm.NFD.String(s))))
}

// foldCherokee mends package cases, which swaps the case of Cherokee letters instead of folding it. They fold to the
// capital ones (CaseFolding.txt of Unicode).
func foldCherokee(r rune) rune {
	switch {
	case 0xab70 <= r && r <= 0xabbf:
		return r - 0xab70 + 0x13a0
	case 0x13f8 <= r && r <= 0x13fd:
		return r - 8
	}
	return r
}

// Base is the address without its tag: with the separator '+', "anna+shop@example.org" has the base "anna@example.org".
// It reports whether there is a tag; an address that begins with the separator has none.
func (a Address) Base(separator byte) (Address, bool) {
	i := strings.IndexByte(a.Local, separator)
	if i <= 0 {
		return a, false
	}
	a.Local = a.Local[:i]
	return a, true
}
