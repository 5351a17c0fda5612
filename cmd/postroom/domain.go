package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/postroom/postroom/accounts"
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
	Accounts  int       `json:"accounts"`
	Created   time.Time `json:"created"`
}

func showDomain(d accounts.Domain) shownDomain {
	return shownDomain{d.Name.Unicode(), d.Name.ASCII(), d.CatchAll, d.Separator, d.Accounts, d.Created}
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
	if set.CatchAll == nil && set.Separator == nil {
		return usagef("nothing to change: give --catch-all ADDRESS, --no-catch-all, --plus CHARACTER or --no-plus")
	}
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		return s.SetDomain(ctx, c.Domain.Domain, set)
	})
}

type domainRemove struct {
	Domain domainArgument `arg:"" help:"The domain."`
}

func (c *domainRemove) Run(ctx context.Context, p *program) error {
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		return s.RemoveDomain(ctx, c.Domain.Domain)
	})
}
