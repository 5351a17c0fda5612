package web

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/mtasts"
	"github.com/postroom/postroom/internal/resolve"
)

// Exchangers asks the DNS who takes mail for a domain.
type Exchangers interface {
	MX(ctx context.Context, name string) ([]resolve.MX, error)
}

// Mismatch says that a policy would keep mail away from the domain that it is for.
type Mismatch struct {
	Domain string
	Reason string
}

func (m *Mismatch) Error() string {
	return "the MTA-STS policy of " + m.Domain + " does not fit its MX records: " + m.Reason
}

// Policy returns the MTA-STS policy of a domain. The error is a *Mismatch where the policy must not be published, and another
// one where that cannot be told now. A policy that says "none" fits any domain.
func Policy(ctx context.Context, dns Exchangers, domain addr.Domain, mode mtasts.Mode, host string) (mtasts.Policy, error) {
	p := mtasts.Own(mode, host)
	if mode == mtasts.None {
		return p, nil
	}
	mx, err := dns.MX(ctx, domain.ASCII())
	if err != nil && !resolve.IsNotFound(err) {
		return p, fmt.Errorf("web: MX records of %s: %w", domain, err)
	}
	if reason := misfit(p, mx); reason != "" {
		return p, &Mismatch{domain.ASCII(), reason}
	}
	return p, nil
}

// misfit says what is wrong between a policy and the MX records, or "". A host that the policy does not name would get no mail
// from senders that keep to it.
func misfit(p mtasts.Policy, mx []resolve.MX) string {
	if len(mx) == 0 {
		return "there are none; one must name " + strings.Join(p.MX, " or ")
	}
	for _, m := range mx {
		switch {
		case m.Host == "":
			return "they say that the domain takes no mail (null MX)"
		case !p.Match(m.Host):
			return m.Host + " is not " + strings.Join(p.MX, " or ")
		}
	}
	return ""
}

// isMismatch tells a policy that is wrong from one that cannot be judged.
func isMismatch(err error) bool {
	var m *Mismatch
	return errors.As(err, &m)
}
