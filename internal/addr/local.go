package addr

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// parseLocal parses the local part at the start of s, a dot-string or a quoted string (RFC 5321 section 4.1.2, extended by
// RFC 6531 section 3.3). It returns the local part unquoted, the number of octets that it took, and what follows.
func parseLocal(s string) (local string, written int, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		local, written, err = parseQuoted(s)
	} else {
		local, written, err = parseDotString(s)
	}
	switch {
	case err != nil:
		return "", 0, "", err
	case written > maxLocal:
		return "", 0, "", tooLong("the local part is longer than 64 octets")
	case !isASCII(local) && !isText(local):
		return "", 0, "", syntax("the local part is not valid UTF-8, or has a control character")
	}
	return local, written, s[written:], nil
}

// parseDotString parses atoms with single dots between them.
func parseDotString(s string) (string, int, error) {
	n := 0
	for n < len(s) && n <= maxLocal && (isAtext(s[n]) || s[n] == '.') {
		n++
	}
	local := s[:n]
	switch {
	case n == 0 && strings.HasPrefix(s, "@"):
		return "", 0, syntax("the address has no local part")
	case n == 0:
		return "", 0, syntax("the address does not begin with a local part")
	case local[0] == '.' || local[n-1] == '.' || strings.Contains(local, ".."):
		return "", 0, syntax("the local part has a misplaced dot")
	}
	return local, n, nil
}

// parseQuoted parses a quoted string. RFC 5321: qtextSMTP is any printable ASCII or blank but the quote and the backslash,
// and a backslash may stand before any printable ASCII or blank.
func parseQuoted(s string) (string, int, error) {
	var plain strings.Builder // in use after the first backslash
	start := 1                // of the octets not yet in plain
	for i := 1; i < len(s) && i <= maxLocal; i++ {
		switch c := s[i]; {
		case c == '"' && start == 1:
			return s[1:i], i + 1, nil
		case c == '"':
			plain.WriteString(s[start:i])
			return plain.String(), i + 1, nil
		case c == '\\':
			plain.WriteString(s[start:i])
			i++
			if i == len(s) || s[i] < ' ' || s[i] > '~' {
				return "", 0, syntax("the local part has a backslash before a character that it cannot quote")
			}
			start = i
		case c < ' ' || c == 0x7f:
			return "", 0, syntax("the local part has a control character")
		}
	}
	if len(s) > maxLocal {
		return "", 0, tooLong("the quoted local part is longer than 64 octets, or has no end")
	}
	return "", 0, syntax("the quoted local part has no end")
}

// quoteLocal is the inverse of parseLocal: with quotes only where they are needed.
func quoteLocal(local string) string {
	if n := dotString(local); n == len(local) && n > 0 {
		return local
	}
	b := make([]byte, 0, len(local)+8)
	b = append(b, '"')
	for i := range len(local) {
		if c := local[i]; c == '"' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, local[i])
	}
	return string(append(b, '"'))
}

// dotString is how many octets at the start of s are atoms with single dots between them, if all of s is.
func dotString(s string) int {
	_, n, err := parseDotString(s)
	if err != nil {
		return 0
	}
	return n
}

// isText tells whether s is valid UTF-8 without control characters, which RFC 6531 does not forbid but no mailbox has.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// isAtext tells whether c may be in an atom: RFC 5321 atext, and any part of a UTF-8 sequence (RFC 6531 section 3.3).
func isAtext(c byte) bool {
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '/', '=', '?', '^', '_', '`', '{', '|', '}', '~':
		return true
	}
	return isLetterDigit(c) || c >= utf8.RuneSelf
}
