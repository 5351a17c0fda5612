package main

import (
	"context"
	"strings"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
)

type aliasCommand struct {
	Add    aliasAdd    `cmd:"" help:"Add an address that leads to other addresses here."`
	List   aliasList   `cmd:"" help:"List the aliases."`
	Remove aliasRemove `cmd:"" help:"Remove an alias."`
}

type aliasAdd struct {
	Address addressArgument   `arg:"" help:"The new address."`
	Targets []addressArgument `arg:"" name:"target" help:"Where its mail goes: accounts or aliases of this server."`
}

func (c *aliasAdd) Run(ctx context.Context, p *program) error {
	targets := make([]addr.Address, len(c.Targets))
	for i, t := range c.Targets {
		targets[i] = t.Address
	}
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		return s.AddAlias(ctx, c.Address.Address, targets)
	})
}

// shownAlias is an alias as --json prints it.
type shownAlias struct {
	Address string   `json:"address"`
	Targets []string `json:"targets"`
}

type aliasList struct{ asJSON }

func (c *aliasList) Run(ctx context.Context, p *program) error {
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		all, err := s.Aliases(ctx)
		if err != nil {
			return err
		}
		shown := []shownAlias{}
		t := &table{head: []string{"ALIAS", "LEADS TO"}, empty: "no alias yet: `postroom alias add info@example.org anna@example.org` adds one"}
		for _, a := range all {
			shown = append(shown, shownAlias(a))
			t.add(a.Address, strings.Join(a.Targets, ", "))
		}
		return c.show(p.stdout, shown, t)
	})
}

type aliasRemove struct {
	Address addressArgument `arg:"" help:"The alias."`
}

func (c *aliasRemove) Run(ctx context.Context, p *program) error {
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		return s.RemoveAlias(ctx, c.Address.Address)
	})
}
