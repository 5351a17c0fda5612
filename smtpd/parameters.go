package smtpd

import (
	"strconv"
	"strings"
)

// parameters goes through "KEY=value KEY" (RFC 5321 section 4.1.2: esmtp-param). take returns the refusal of one, if any.
func parameters(list string, take func(key, value string, hasValue bool) Reply) Reply {
	var seen []string
	for _, p := range strings.Fields(list) {
		key, value, hasValue := strings.Cut(p, "=")
		key = strings.ToUpper(key)
		for _, other := range seen {
			if other == key {
				return replyTwice
			}
		}
		seen = append(seen, key)
		if hasValue && value == "" {
			return replyValue
		}
		if r := take(key, value, hasValue); !r.IsZero() {
			return r
		}
	}
	return Reply{}
}

func (s *session) mailParameters(m *Mail, list string) Reply {
	return parameters(list, func(key, value string, hasValue bool) Reply {
		switch {
		case key == "SIZE":
			return s.sizeParameter(m, value)
		case key == "BODY":
			return bodyParameter(m, value)
		case key == "SMTPUTF8" && !hasValue:
			m.UTF8 = true
		case key == "REQUIRETLS" && !hasValue && s.client.TLS != nil:
			m.RequireTLS = true
		case key == "RET" && s.server.Submission:
			m.Return = strings.ToUpper(value)
			return valid(m.Return == "FULL" || m.Return == "HDRS")
		case key == "ENVID" && s.server.Submission:
			m.EnvelopeID = value
			return valid(isXtext(value) && len(value) <= 100) // RFC 3461 section 4.4
		case key == "AUTH" && s.server.Submission:
			return valid(value == "<>" || isXtext(value)) // RFC 4954 section 5; nobody here is trusted to vouch for another
		default:
			return replyParameter
		}
		return Reply{}
	})
}

// sizeParameter is RFC 1870 section 6: at most 20 digits.
func (s *session) sizeParameter(m *Mail, value string) Reply {
	n, err := strconv.ParseUint(value, 10, 64)
	switch {
	case err != nil && len(value) > 20, err != nil && !digits(value), value == "":
		return replyValue
	case err != nil, n > uint64(s.limits.MessageSize):
		return replyTooLarge
	}
	m.Size = int64(n)
	return Reply{}
}

// bodyParameter is RFC 6152 section 3. BINARYMIME is not offered.
func bodyParameter(m *Mail, value string) Reply {
	switch strings.ToUpper(value) {
	case "7BIT":
	case "8BITMIME":
		m.EightBit = true
	default:
		return replyValue
	}
	return Reply{}
}

func (s *session) rcptParameters(r *Rcpt, list string) Reply {
	return parameters(list, func(key, value string, _ bool) Reply {
		switch {
		case key == "NOTIFY" && s.server.Submission:
			r.Notify = strings.Split(strings.ToUpper(value), ",")
			return valid(isNotify(r.Notify))
		case key == "ORCPT" && s.server.Submission:
			r.Original = value
			kind, address, ok := strings.Cut(value, ";")
			return valid(ok && kind != "" && address != "" && len(value) <= 500) // RFC 3461 section 4.2
		}
		return replyParameter
	})
}

// isNotify is RFC 3461 section 4.1: NEVER stands alone.
func isNotify(values []string) bool {
	for _, v := range values {
		switch v {
		case "SUCCESS", "FAILURE", "DELAY":
		case "NEVER":
			return len(values) == 1
		default:
			return false
		}
	}
	return true
}

func valid(ok bool) Reply {
	if ok {
		return Reply{}
	}
	return replyValue
}

func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// isXtext is RFC 3461 section 4: printable ASCII, where + begins two hexadecimal digits.
func isXtext(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < '!' || c > '~' || c == '=':
			return false
		case c == '+':
			if i+2 >= len(s) || !upperHex(s[i+1]) || !upperHex(s[i+2]) {
				return false
			}
			i += 2
		}
	}
	return s != ""
}

func upperHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' }
