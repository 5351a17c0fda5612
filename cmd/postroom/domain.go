package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/config"
	"github.com/postroom/postroom/internal/mtasts"
	"github.com/postroom/postroom/web"
)

type domainCommand struct {
	Add    domainAdd    `cmd:"" help:"Begin to receive mail for a domain."`
	List   domainList   `cmd:"" help:"List the domains."`
	Show   domainShow   `cmd:"" help:"Show one domain and its settings."`
	Set    domainSet    `cmd:"" help:"Change the settings of a domain."`
	Remove domainRemove `cmd:"" help:"Stop receiving mail for a domain. Its accounts and aliases must be gone."`
}

type domainAdd struct {
	Domain domainArgument `arg:"" help:"The domain, such as example.org."`
}

func (c *domainAdd) Run(ctx context.Context, p *program) error {
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		if err := s.AddDomain(ctx, c.Domain.Domain); err != nil {
			return err
		}
		p.say("%s is added: next, `postroom account add NAME@%s`. Its first account gets postmaster@ and abuse@, too.", c.Domain.Unicode(), c.Domain)
		return nil
	})
}

// shownDomain is a domain as --json prints it.
type shownDomain struct {
	Name      string    `json:"name"`
	ASCII     string    `json:"ascii"`
	CatchAll  string    `json:"catch_all"`
	Separator string    `json:"plus_separator"`
	STS       string    `json:"mta_sts"`
	Accounts  int       `json:"accounts"`
	Created   time.Time `json:"created"`
}

func showDomain(d accounts.Domain) shownDomain {
	return shownDomain{d.Name.Unicode(), d.Name.ASCII(), d.CatchAll, d.Separator, string(d.STS), d.Accounts, d.Created}
}

type domainList struct{ asJSON }

func (c *domainList) Run(ctx context.Context, p *program) error {
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		all, err := s.Domains(ctx)
		if err != nil {
			return err
		}
		shown := []shownDomain{}
		t := &table{head: []string{"DOMAIN", "ACCOUNTS", "CATCH-ALL", "PLUS"}, empty: "no domain yet: `postroom domain add example.org` adds one"}
		for _, d := range all {
			v := showDomain(d)
			shown = append(shown, v)
			t.add(v.Name, strconv.Itoa(v.Accounts), orDash(v.CatchAll), orDash(v.Separator))
		}
		return c.show(p.stdout, shown, t)
	})
}

type domainShow struct {
	asJSON
	Domain domainArgument `arg:"" help:"The domain."`
}

func (c *domainShow) Run(ctx context.Context, p *program) error {
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		d, err := s.Domain(ctx, c.Domain.Domain)
		if err != nil {
			return err
		}
		v := showDomain(d)
		t := &table{head: []string{"domain", v.Name}}
		if v.ASCII != v.Name {
			t.add("in the DNS", v.ASCII)
		}
		t.add("accounts", strconv.Itoa(v.Accounts))
		t.add("catch-all", orDash(v.CatchAll))
		t.add("plus-addressing", plusAddressing(v.Separator))
		t.add("MTA-STS policy", v.STS)
		t.add("added", v.Created.Format(time.RFC3339))
		return c.show(p.stdout, v, t)
	})
}

func plusAddressing(separator string) string {
	if separator == "" {
		return "off"
	}
	return fmt.Sprintf("on: name%stag is name", separator)
}

type domainSet struct {
	Domain     domainArgument  `arg:"" help:"The domain."`
	CatchAll   addressArgument `xor:"catch" placeholder:"ADDRESS" help:"Send what nobody else gets to ADDRESS."`
	NoCatchAll bool            `xor:"catch" help:"Refuse mail for unknown names."`
	Plus       string          `xor:"plus" placeholder:"CHARACTER" help:"Cut names off at CHARACTER, usually +: anna+shop is anna."`
	NoPlus     bool            `xor:"plus" help:"Take names as they are."`
	STS        modeArgument    `name:"mta-sts" placeholder:"MODE" help:"Serve an MTA-STS policy that says MODE: none, testing or enforce."`
}

func (c *domainSet) Run(ctx context.Context, p *program) error {
	var set accounts.DomainSettings
	nothing := ""
	switch {
	case c.NoCatchAll:
		set.CatchAll = &nothing
	case !c.CatchAll.IsZero():
		target := c.CatchAll.String()
		set.CatchAll = &target
	}
	switch {
	case c.NoPlus:
		set.Separator = &nothing
	case c.Plus != "":
		set.Separator = &c.Plus
	}
	if c.STS.Mode != "" {
		set.STS = &c.STS.Mode
	}
	if set == (accounts.DomainSettings{}) {
		return usagef("nothing to change: give --catch-all ADDRESS, --no-catch-all, --plus CHARACTER, --no-plus or --mta-sts MODE")
	}
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		if set.STS == nil {
			return s.SetDomain(ctx, c.Domain.Domain, set)
		}
		return c.setPolicy(ctx, p, s, set)
	})
}

// setPolicy changes settings among which is the MTA-STS mode. A policy that is enforced and does not fit keeps mail away: it is
// looked at first.
func (c *domainSet) setPolicy(ctx context.Context, p *program, s *accounts.Service, set accounts.DomainSettings) error {
	config, err := p.load()
	if err != nil {
		return err
	}
	d, err := s.Domain(ctx, c.Domain.Domain)
	if err != nil {
		return err
	}
	policy := mtasts.Own(*set.STS, config.Hostname)
	if policy.Mode == mtasts.Enforce {
		if err := p.checkPolicy(ctx, config, d); err != nil {
			return err
		}
	}
	if err := s.SetDomain(ctx, c.Domain.Domain, set); err != nil {
		return err
	}
	p.say(`The policy says %s. Publish, now and whenever it changes: _mta-sts.%s TXT "v=STSv1; id=%s"`, policy.Mode, d.Name, policy.ID())
	return nil
}

// checkPolicy refuses what the MX records of a domain do not fit.
func (p *program) checkPolicy(ctx context.Context, c *config.Config, d accounts.Domain) error {
	dns, err := openResolver(c, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer dns.Close()
	_, err = web.Policy(ctx, dns, d.Name, mtasts.Enforce, c.Hostname)
	if mismatch, ok := errors.AsType[*web.Mismatch](err); ok {
		return nof("%s. Mail would be lost to senders that keep to it: mend the records first", mismatch)
	}
	if err != nil {
		return unsuref("it cannot be told whether the policy fits: %s; try again later", oneLine(err))
	}
	return nil
}

type domainRemove struct {
	Domain domainArgument `arg:"" help:"The domain."`
}

func (c *domainRemove) Run(ctx context.Context, p *program) error {
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		return s.RemoveDomain(ctx, c.Domain.Domain)
	})
}
