package auth

import (
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/message"
)

// AuthorProblem is why a letter has no author domain that DMARC could protect.
type AuthorProblem string

// The problems. RFC 9989 section 4.4 leaves such letters to the receiver.
const (
	AuthorFine       AuthorProblem = ""
	AuthorMissing    AuthorProblem = "missing"
	AuthorRepeated   AuthorProblem = "several fields" // RFC 5322 section 3.6 allows one
	AuthorDomains    AuthorProblem = "several domains"
	AuthorUnreadable AuthorProblem = "unreadable"
)

// Author is what the From field says.
type Author struct {
	Address   addr.Address // the first one
	Domain    addr.Domain  // zero where there is a Problem
	Problem   AuthorProblem
	Deceptive string // why its reader might take it for somebody else's; "" where there is no sign of that
}

// ReadAuthor reads the From field of a letter.
func ReadAuthor(h *message.Header) Author {
	switch h.Count("From") {
	case 0:
		return Author{Problem: AuthorMissing}
	case 1:
	default:
		return Author{Problem: AuthorRepeated}
	}
	value := h.Get("From")
	mailboxes, err := message.ParseMailboxes(value)
	switch {
	case strings.TrimSpace(value) == "":
		return Author{Problem: AuthorMissing}
	case err != nil || len(mailboxes) == 0:
		return Author{Problem: AuthorUnreadable}
	}
	return judgeAuthors(mailboxes)
}

// judgeAuthors finds the one domain of all authors.
func judgeAuthors(mailboxes []message.Mailbox) (a Author) {
	for _, m := range mailboxes {
		domain, err := addr.ParseDomain(strings.TrimSuffix(m.Domain, "."))
		switch {
		case err != nil:
			return Author{Problem: AuthorUnreadable}
		case a.Domain.IsZero():
			a.Domain, a.Address = domain, addr.Address{Local: m.Local, Domain: domain}
		case a.Domain != domain:
			return Author{Problem: AuthorDomains}
		}
	}
	for _, m := range mailboxes {
		if a.Deceptive = deception(m, a.Domain); a.Deceptive != "" {
			break
		}
	}
	return a
}

// deception finds the tricks that make a true address look like another one.
func deception(m message.Mailbox, domain addr.Domain) string {
	if isLookAlike(domain.Unicode()) {
		return "the domain imitates another one with foreign letters"
	}
	for _, shown := range append([]string{m.Name, m.Local}, m.Comments...) {
		if strings.ContainsFunc(shown, turnsText) {
			return "the name changes the direction of the text"
		}
		for _, other := range shownDomains(shown) {
			if !related(other, domain) {
				return "the name shows an address of another domain"
			}
		}
	}
	return ""
}

// turnsText tells the characters that override or embed a direction, and so can make text read backwards (UAX 9).
func turnsText(r rune) bool { return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 }

// shownAddress finds what a reader takes for an address. The domain is what matters.
var shownAddress = regexp.MustCompile(`[^\s<>()\[\]"',;:@]@\s?([\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)+)`)

// shownDomains returns the domains of the addresses in a text, as they look: compatibility forms (a full-width @, letters
// in circles) are what they resemble, and invisible characters are not there.
func shownDomains(text string) (all []addr.Domain) {
	text = norm.NFKC.String(strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Mn, r) {
			return -1
		}
		return r
	}, text))
	for _, found := range shownAddress.FindAllStringSubmatch(text, 10) {
		domain, err := addr.ParseDomain(found[1])
		if err == nil {
			all = append(all, domain)
		}
	}
	return all
}

// related tells whether one of the domains is the other or above it.
func related(a, b addr.Domain) bool {
	x, y := a.ASCII(), b.ASCII()
	return x == y || strings.HasSuffix(x, "."+y) || strings.HasSuffix(y, "."+x)
}

// likeLatin are letters of other scripts that look like letters a to z, digits or hyphens in most fonts.
const likeLatin = "асԁеһіјӏорԛѕԝхуѵк" + // Cyrillic
	"αινορυκχγ" + // Greek
	"օոսցհյզք" // Armenian

// isLookAlike tells whether a label of a domain, in its Unicode form, imitates one in Latin letters: by mixing scripts
// that no language mixes, or by letters of another script that all have a Latin twin, under a Latin top-level domain.
func isLookAlike(domain string) bool {
	labels := strings.Split(domain, ".")
	for i, label := range labels {
		latin, other, twins := false, false, true
		for _, r := range label {
			switch {
			case r < 0x80:
				latin = latin || unicode.IsLetter(r)
			case unicode.In(r, unicode.Cyrillic, unicode.Greek, unicode.Armenian, unicode.Cherokee):
				other = true
				twins = twins && strings.ContainsRune(likeLatin, r)
			case unicode.Is(unicode.Latin, r):
				latin = true
			}
		}
		if other && (latin || twins && i < len(labels)-1 && isASCII(labels[len(labels)-1])) {
			return true
		}
	}
	return false
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}
