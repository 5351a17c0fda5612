package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/dnscheck"
	"github.com/postroom/postroom/internal/maillog"
)

type dkimCommand struct {
	Rotate dkimRotate `cmd:"" help:"Make new keys for a domain, which sign once their records are published; run again, it looks whether they are."`
	List   dkimList   `cmd:"" help:"List the keys that a domain's mail is signed with, and their DNS records."`
	Export dkimExport `cmd:"" help:"Print the DNS records of a domain's keys for a BIND zone."`
}

// shownKey is a key as --json prints it.
type shownKey struct {
	Selector  string    `json:"selector"`
	Algorithm string    `json:"algorithm"`
	State     string    `json:"state"`
	Since     time.Time `json:"since"`
	Name      string    `json:"name"`
	Record    string    `json:"record"`
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
		t := &table{head: []string{"SELECTOR", "ALGORITHM", "STATE", "SINCE", "NAME", "TXT RECORD"}, empty: "the domain has no keys: its mail is not signed"}
		for _, k := range keys {
			name := k.Selector + "._domainkey." + c.Domain.ASCII()
			shown = append(shown, shownKey{k.Selector, k.Algorithm, k.State.String(), k.Changed, name, dnscheck.KeyRecord(k)})
			t.add(k.Selector, k.Algorithm, k.State.String(), k.Changed.Format(time.DateOnly), name, dnscheck.KeyRecord(k))
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
		return p.printKeys(c.Domain, slices.DeleteFunc(keys, forgotten))
	})
}

// forgotten tells whether no letter that a key has signed can be on its way any more.
func forgotten(k accounts.DKIMKey) bool {
	return k.State == accounts.KeyRetired && time.Since(k.Changed) > accounts.KeepRecord
}

// printKeys prints the records of keys for a BIND zone.
func (p *program) printKeys(domain domainArgument, keys []accounts.DKIMKey) error {
	for _, k := range keys {
		record := dnscheck.Record{Name: k.Selector + "._domainkey." + domain.ASCII(), Type: "TXT", Value: dnscheck.KeyRecord(k)}
		if _, err := fmt.Fprintln(p.stdout, record.ZoneLine()); err != nil {
			return err
		}
	}
	return nil
}

type dkimRotate struct {
	Domain domainArgument `arg:"" help:"The domain."`
}

// Run makes new keys, or looks whether those that wait may sign.
func (c *dkimRotate) Run(ctx context.Context, p *program) error {
	return p.withStores(ctx, func(s *stores) error {
		waiting, err := c.keys(ctx, s, accounts.KeyNew)
		if err != nil {
			return err
		}
		if len(waiting) > 0 {
			return c.look(ctx, p, s)
		}
		if err := s.accounts.RotateDKIM(ctx, c.Domain.Domain); err != nil {
			return err
		}
		if waiting, err = c.keys(ctx, s, accounts.KeyNew); err != nil {
			return err
		}
		if len(waiting) == 0 {
			p.say("%s had no keys: it has now, and its mail is signed from now on. Publish what `postroom dkim export %s` prints.", c.Domain, c.Domain)
			return nil
		}
		p.say("New keys for %s. Add these records and leave the old ones where they are. The server looks every ten minutes and signs with the new keys once all name servers of %s show both; `postroom dkim rotate %s` looks at once.\n", c.Domain, c.Domain, c.Domain)
		return p.printKeys(c.Domain, waiting)
	})
}

func (c *dkimRotate) keys(ctx context.Context, s *stores, state accounts.KeyState) ([]accounts.DKIMKey, error) {
	keys, err := s.accounts.DKIMKeys(ctx, c.Domain.Domain)
	return slices.DeleteFunc(keys, func(k accounts.DKIMKey) bool { return k.State != state }), err
}

// look asks the name servers of the domain, and says what they show.
func (c *dkimRotate) look(ctx context.Context, p *program, s *stores) error {
	config, err := p.load()
	if err != nil {
		return err
	}
	log, err := maillog.New(p.stderr, slog.LevelWarn, "text")
	if err != nil {
		return err
	}
	dns, err := openResolver(config, log)
	if err != nil {
		return err
	}
	defer dns.Close()
	seen, done, err := (&dnscheck.Keys{Accounts: s.accounts, DNS: dns, Log: log}).Activate(ctx, c.Domain.Domain)
	if err != nil {
		return unsuref("the name servers of %s could not be asked: %s", c.Domain, reason(err))
	}
	if done {
		p.say("All name servers of %s show the new keys: its mail is signed with them from now on. Leave the old records where they are until %s.",
			c.Domain, time.Now().Add(accounts.KeepRecord).Format(time.DateOnly))
		return nil
	}
	t := &table{head: []string{"SELECTOR", "NAME SERVER", "SHOWN"}, empty: "no name server was asked"}
	for _, v := range seen {
		t.add(v.Selector, v.Server, sighted(v))
	}
	if err := t.print(p.stdout); err != nil {
		return err
	}
	return nof("the new keys of %s are not published everywhere yet, and sign nothing: `postroom dkim export %s` prints the records", c.Domain, c.Domain)
}

func sighted(s dnscheck.Sighting) string {
	switch {
	case s.Silent:
		return fmt.Sprintf("no answer: %s", oneLine(s.Err))
	case s.Err != nil:
		return "no: " + oneLine(s.Err)
	}
	return "yes"
}
