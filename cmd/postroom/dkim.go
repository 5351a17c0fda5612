package main

import (
	"context"
	"strings"

	"github.com/postroom/postroom/accounts"
)

type dkimCommand struct {
	List   dkimList   `cmd:"" help:"List the keys that a domain's mail is signed with, and their DNS records."`
	Export dkimExport `cmd:"" help:"Print the DNS records of a domain's keys for a BIND zone."`
}

// keyStates are what people read.
var keyStates = map[accounts.KeyState]string{accounts.KeyNew: "new", accounts.KeyActive: "active", accounts.KeyRetired: "retired"}

// shownKey is a key as --json prints it.
type shownKey struct {
	Selector  string `json:"selector"`
	Algorithm string `json:"algorithm"`
	State     string `json:"state"`
	Name      string `json:"name"`
	Record    string `json:"record"`
}

// keyRecord is what is published for a key: RFC 6376 section 3.6.1.
func keyRecord(k accounts.DKIMKey) string {
	kind, _, _ := strings.Cut(k.Algorithm, "-")
	return "v=DKIM1; k=" + kind + "; p=" + k.Public
}

type dkimList struct {
	Domain domainArgument `arg:"" help:"The domain."`
	asJSON
}

func (c *dkimList) Run(ctx context.Context, p *program) error {
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		keys, err := s.DKIMKeys(ctx, c.Domain.Domain)
		if err != nil {
			return err
		}
		shown := []shownKey{}
		t := &table{head: []string{"SELECTOR", "ALGORITHM", "STATE", "NAME", "TXT RECORD"}, empty: "the domain has no keys: its mail is not signed"}
		for _, k := range keys {
			name := k.Selector + "._domainkey." + c.Domain.ASCII()
			shown = append(shown, shownKey{k.Selector, k.Algorithm, keyStates[k.State], name, keyRecord(k)})
			t.add(k.Selector, k.Algorithm, keyStates[k.State], name, keyRecord(k))
		}
		return c.show(p.stdout, shown, t)
	})
}

type dkimExport struct {
	Domain domainArgument `arg:"" help:"The domain."`
}

func (c *dkimExport) Run(ctx context.Context, p *program) error {
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		keys, err := s.DKIMKeys(ctx, c.Domain.Domain)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if k.State == accounts.KeyRetired {
				continue
			}
			if err := p.zoneLine(k.Selector+"._domainkey."+c.Domain.ASCII()+".", keyRecord(k)); err != nil {
				return err
			}
		}
		return nil
	})
}
