package main

import (
	"fmt"
	"strings"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/config"
	"github.com/postroom/postroom/internal/mtasts"
)

// The types of arguments: what does not parse is wrong usage, and kong names the argument.

type domainArgument struct{ addr.Domain }

// UnmarshalText is what kong calls.
func (d *domainArgument) UnmarshalText(text []byte) (err error) {
	d.Domain, err = addr.ParseDomain(string(text))
	return withSubject(string(text), err)
}

type addressArgument struct{ addr.Address }

// UnmarshalText is what kong calls.
func (a *addressArgument) UnmarshalText(text []byte) (err error) {
	a.Address, err = addr.Parse(string(text))
	return withSubject(string(text), err)
}

// withSubject names what was typed; the error of addr never repeats it, since its text may go to a peer.
func withSubject(text string, err error) error {
	if err == nil {
		return nil
	}
	return &badArgument{text, err}
}

type badArgument struct {
	text string
	err  error
}

func (b *badArgument) Error() string {
	return `"` + printable(b.text) + `": ` + b.err.Error()
}

// printable keeps what others wrote from changing the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, text)
}

func (b *badArgument) Unwrap() error { return b.err }

// size is a number of octets.
type size int64

// UnmarshalText is what kong calls.
func (s *size) UnmarshalText(text []byte) error {
	n, err := config.ParseSize(string(text))
	if err != nil {
		return fmt.Errorf("%w, such as 5GiB", err)
	}
	*s = size(n)
	return nil
}

// String is exact where that is short, else rounded.
func (s size) String() string {
	exact := config.Size(s).String()
	if len(exact) <= len("1023 B") || !strings.HasSuffix(exact, " B") {
		return exact
	}
	value, unit := float64(s), -1
	for value >= 1024 && unit < 2 {
		value /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMG"[unit])
}

// pathArgument is what RCPT takes between its angle brackets, read by the same parser.
type pathArgument struct{ addr.Path }

// UnmarshalText is what kong calls.
func (p *pathArgument) UnmarshalText(text []byte) error {
	path, rest, err := addr.ParseForwardPath("<" + string(text) + ">")
	if err == nil && rest != "" {
		err = addr.ErrSyntax
	}
	p.Path = path
	return withSubject(string(text), err)
}

// modeArgument is the mode of an MTA-STS policy.
type modeArgument struct{ mtasts.Mode }

// UnmarshalText is what kong calls.
func (m *modeArgument) UnmarshalText(text []byte) (err error) {
	m.Mode, err = mtasts.ParseMode(string(text))
	return err
}
