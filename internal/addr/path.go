package addr

import "strings"

// Path is what stands between the angle brackets of MAIL FROM and RCPT TO: a mailbox, or one of the two special forms.
type Path struct {
	Address          // zero when Null or Postmaster
	Null        bool // <>, the sender of bounces
	Postmaster  bool // <postmaster> in any case, without a domain: RFC 5321 section 4.5.1
	SourceRoute bool // a source route stood before the mailbox, and was dropped: RFC 5321 section 4.1.1.3, appendix C
	UTF8        bool // written with octets beyond ASCII: only good with SMTPUTF8, RFC 6531 section 3.4
}

// ParsePath parses "<...>" at the start of s, in any of its forms, and returns what follows it without leading blanks:
// the parameters of MAIL and RCPT.
func ParsePath(s string) (p Path, rest string, err error) {
	inner, ok := strings.CutPrefix(s, "<")
	if !ok {
		return Path{}, "", syntax("the address is not in angle brackets")
	}
	if rest, ok := strings.CutPrefix(inner, ">"); ok {
		rest, err := parameters(rest)
		return Path{Null: true}, rest, err
	}
	p, n, err := parseInner(inner)
	if err != nil {
		return Path{}, "", err
	}
	written := inner[:n]
	if len(written)+len("<>") > maxPath {
		return Path{}, "", tooLong("the path is longer than 256 octets")
	}
	p.UTF8 = !isASCII(written)
	rest, err = parameters(inner[n+1:])
	return p, rest, err
}

// ParseReversePath parses the argument of MAIL FROM, which cannot be <postmaster>.
func ParseReversePath(s string) (Path, string, error) {
	p, rest, err := ParsePath(s)
	if err == nil && p.Postmaster {
		return Path{}, "", syntax("the address has no domain")
	}
	return p, rest, err
}

// ParseForwardPath parses the argument of RCPT TO, which cannot be <>.
func ParseForwardPath(s string) (Path, string, error) {
	p, rest, err := ParsePath(s)
	if err == nil && p.Null {
		return Path{}, "", syntax("the recipient is empty")
	}
	return p, rest, err
}

// parseInner parses what is between the brackets, and returns where the closing one is.
func parseInner(s string) (Path, int, error) {
	const postmaster = "postmaster"
	if len(s) > len(postmaster) && s[len(postmaster)] == '>' && strings.EqualFold(s[:len(postmaster)], postmaster) {
		return Path{Postmaster: true}, len(postmaster), nil
	}
	p := Path{SourceRoute: strings.HasPrefix(s, "@")}
	mailbox := s
	if p.SourceRoute {
		var err error
		if mailbox, err = skipSourceRoute(s); err != nil {
			return Path{}, 0, err
		}
	}
	local, written, host, err := parseLocal(mailbox)
	if err != nil {
		return Path{}, 0, err
	}
	end := strings.IndexByte(host, '>')
	if end < 0 {
		return Path{}, 0, syntax("the address has no closing angle bracket")
	}
	p.Address, err = parseAfterLocal(local, written, host[:end])
	return p, len(s) - len(host) + end, err
}

// skipSourceRoute checks "@a.example,@b.example:" and returns what follows. RFC 5321 section 3.6.1 lets us ignore the
// hosts, and section 4.1.2 wants us to accept the form.
func skipSourceRoute(s string) (string, error) {
	for len(s) > 0 && s[0] == '@' {
		n := strings.IndexAny(s, ",:>")
		if n < 0 || n > maxPath {
			break
		}
		if _, err := ParseDomain(s[1:n]); err != nil {
			return "", err
		}
		if s[n] == ':' {
			return s[n+1:], nil
		}
		s = s[n+1:]
	}
	return "", syntax("the source route has no end")
}

// parameters is what follows a path, without leading blanks. RFC 5321 section 4.1.1.2: a blank is between them.
func parameters(s string) (string, error) {
	rest := strings.TrimLeft(s, " ")
	if len(rest) == len(s) && s != "" {
		return "", syntax("there is no blank after the closing angle bracket")
	}
	return rest, nil
}

// String is the path as it goes over the wire, in its angle brackets.
func (p Path) String() string {
	if p.Postmaster {
		return "<postmaster>"
	}
	return "<" + p.Address.String() + ">"
}

// MarshalText is String, so that logs and --json show a path as it is written.
func (p Path) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
