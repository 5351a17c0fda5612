package delivery

import (
	"strconv"
	"strings"

	"github.com/postroom/postroom/internal/wire"
)

// defaultRecipients is how many recipients every server takes in one transaction. RFC 5321 section 4.5.3.1.8.
const defaultRecipients = 100

// extensions are what a server offers in its answer to EHLO.
type extensions struct {
	names   map[string]bool
	size    int64 // 0: no limit is told
	plain   bool  // AUTH PLAIN
	login   bool  // AUTH LOGIN
	rcptMax int   // RFC 9422: recipients in one transaction
	mailMax int   // transactions in one session; 0: no limit is told
	domains int   // different domains in one transaction; 0: no limit is told
}

func (e extensions) has(name string) bool { return e.names[name] }

// parseExtensions reads the lines behind the first. Keywords have any case (RFC 5321 section 2.4). What cannot be understood
// is not offered.
func parseExtensions(r wire.Reply) extensions {
	e := extensions{names: map[string]bool{}, rcptMax: defaultRecipients}
	for _, line := range r.Lines[min(1, len(r.Lines)):] {
		// The form AUTH=PLAIN is older than RFC 4954.
		words := strings.Fields(strings.Replace(strings.ToUpper(line), "AUTH=", "AUTH ", 1))
		if len(words) == 0 {
			continue
		}
		e.names[words[0]] = true
		switch words[0] {
		case "SIZE":
			e.size = parseSize(words[1:])
		case "AUTH":
			e.addMechanisms(words[1:])
		case "LIMITS":
			e.addLimits(words[1:])
		}
	}
	return e
}

// parseSize reads the argument of SIZE. RFC 1870 section 4: 0, or none, is no limit.
func parseSize(words []string) int64 {
	if len(words) != 1 {
		return 0
	}
	n, err := strconv.ParseInt(words[0], 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

func (e *extensions) addMechanisms(words []string) {
	for _, w := range words {
		e.plain = e.plain || w == "PLAIN"
		e.login = e.login || w == "LOGIN"
	}
}

// addLimits reads the limits of RFC 9422 section 4. Values are whole numbers without a leading zero.
func (e *extensions) addLimits(words []string) {
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		n, err := strconv.Atoi(value)
		if err != nil || n <= 0 || n > 999_999 || value[0] == '0' || value[0] == '+' {
			continue
		}
		switch name {
		case "RCPTMAX":
			e.rcptMax = min(n, maxRecipients)
		case "MAILMAX":
			e.mailMax = n
		case "RCPTDOMAINMAX":
			e.domains = n
		}
	}
}
