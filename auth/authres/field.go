package authres

// Field is one Authentication-Results field.
type Field struct {
	ServID  string   // authserv-id: the name of the server that did the checks, RFC 8601 section 2.5
	Results []Result // none says that nothing was checked
}

// Result is what one check found: RFC 8601 section 2.2, resinfo.
type Result struct {
	Method     string // such as "spf", "dkim", "dmarc", "iprev", "arc"
	Value      string // such as "pass"; the words of each method are in RFC 8601 section 2.7
	Comment    string // free text for people
	Reason     string // why the result is what it is, in words
	Properties []Property
}

// Property is one thing that a check looked at, written as Type.Name=Value: smtp.mailfrom=sam@example.org.
type Property struct{ Type, Name, Value string }

const (
	fieldName = "Authentication-Results:"

	maxKeyword    = 64       // of a method, a result, and each half of a property's name; those registered are shorter
	maxText       = 512      // octets of a value or a comment as written, so that no line passes 998 (RFC 5322 section 2.1.1)
	maxResults    = 40       // that Append writes
	maxProperties = 20       // that Append writes of one result
	maxDetails    = 32 << 10 // octets of a field after which Append writes the method and the result only
	maxBody       = 64 << 10 // octets of a field that we read
	maxRead       = 200      // results of a field that we read
)

// isKeyword tells whether s is a Keyword, RFC 5321 section 4.1.2: letters, digits and hyphens, the last no hyphen.
func isKeyword(s string) bool {
	if s == "" || len(s) > maxKeyword || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if !isLetterDigit(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

// isToken tells whether s is a token, RFC 2045 section 5.1. A domain name is one, and so is the local part of most
// addresses.
func isToken(s string) bool {
	for i := range len(s) {
		if !isTokenOctet(s[i]) {
			return false
		}
	}
	return s != ""
}

func isTokenOctet(c byte) bool {
	switch c {
	case '(', ')', '<', '>', '@', ',', ';', ':', '\\', '"', '/', '[', ']', '?', '=':
		return false
	}
	return ' ' < c && c < 0x7f
}

func isLetterDigit(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || isDigit(c)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isBlank tells whether c is white space or part of a fold. A lone CR or LF counts: what reads the field after us may
// take it for a line's end.
func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
