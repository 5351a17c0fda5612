package main

import (
	"context"
	"fmt"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/inbound"
	"github.com/postroom/postroom/internal/wire"
)

type resolveCommand struct {
	asJSON
	Address pathArgument `arg:"" name:"address" help:"A recipient, as RCPT would get it between its angle brackets."`
}

// shownRoute is a route as --json prints it.
type shownRoute struct {
	Address  string   `json:"address"`
	Accepted bool     `json:"accepted"`
	Reply    string   `json:"reply"`
	Steps    []string `json:"steps"`
	Accounts []string `json:"accounts"`
}

// Run prints what RCPT would answer, and why. It asks the same function as RCPT does.
func (c *resolveCommand) Run(ctx context.Context, p *program) error {
	var route accounts.Route
	var reply wire.Reply
	err := p.withStores(ctx, func(s *stores) (err error) {
		route, reply, err = inbound.Judge(ctx, s.accounts, s.mailbox, c.Address.Path, 0)
		return err
	})
	if err != nil {
		return err
	}
	shown := shownRoute{Address: c.Address.Unicode(), Accepted: reply.Positive(), Reply: reply.String(), Steps: route.Steps, Accounts: []string{}}
	if c.Address.Postmaster {
		shown.Address = "postmaster"
	}
	for _, target := range route.Targets {
		shown.Accounts = append(shown.Accounts, target.Address)
	}
	if err := c.print(p, shown); err != nil {
		return err
	}
	if !shown.Accepted {
		return &failure{status: statusNo} // what is printed says why
	}
	return nil
}

func (c *resolveCommand) print(p *program, r shownRoute) error {
	if c.JSON {
		return printJSON(p.stdout, r)
	}
	fmt.Fprintln(p.stdout, r.Address)
	for _, step := range r.Steps {
		fmt.Fprintf(p.stdout, "  %s\n", step)
	}
	verdict := "refused"
	if r.Accepted {
		verdict = "accepted"
	}
	_, err := fmt.Fprintf(p.stdout, "%s: %s\n", verdict, r.Reply)
	return err
}
