package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/mailbox"
)

type accountCommand struct {
	Add      accountAdd      `cmd:"" help:"Add an account."`
	List     accountList     `cmd:"" help:"List the accounts."`
	Show     accountShow     `cmd:"" help:"Show one account, and what it uses."`
	Password accountPassword `cmd:"" help:"Give an account a new password."`
	Quota    accountQuota    `cmd:"" help:"Limit what an account may keep."`
	Disable  accountDisable  `cmd:"" help:"Refuse logins and end open sessions. Mail is still received."`
	Enable   accountEnable   `cmd:"" help:"Allow logins again."`
	Remove   accountRemove   `cmd:"" help:"Remove an account. Mail for it is refused at once; what it has is erased after 30 days."`
	Device   deviceCommand   `cmd:"" help:"Passwords for single devices."`
}

type accountAdd struct {
	Address addressArgument `arg:"" help:"The account's address, and login."`
	Name    string          `help:"The name of its owner."`
	Quota   size            `placeholder:"SIZE" help:"What it may keep, such as 5GiB (default: no limit)."`
	passwordFlags
}

func (c *accountAdd) Run(ctx context.Context, p *program) error {
	password, generated, err := c.read(ctx, p, c.Address.Unicode())
	if err != nil {
		return err
	}
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		a, err := s.AddAccount(ctx, accounts.NewAccount{Address: c.Address.Address, Password: password, Name: c.Name, Quota: int64(c.Quota)})
		if err != nil {
			return err
		}
		p.say("%s is added.", a.Address)
		return p.tellPassword(password, generated)
	})
}

// tellPassword prints a password that nobody has seen yet.
func (p *program) tellPassword(password string, generated bool) error {
	if !generated {
		return nil
	}
	_, err := fmt.Fprintln(p.stdout, password)
	return err
}

// shownAccount is an account as --json prints it.
type shownAccount struct {
	ID       int64     `json:"id"`
	Address  string    `json:"address"`
	Name     string    `json:"name"`
	Quota    int64     `json:"quota"` // octets, 0: none
	Disabled bool      `json:"disabled"`
	Created  time.Time `json:"created"`
	Messages int       `json:"messages"`
	Octets   int64     `json:"octets"`
}

// withUsage joins an account with what it keeps.
func withUsage(ctx context.Context, box *mailbox.Store, a accounts.Account) (shownAccount, error) {
	messages, octets, err := box.Usage(ctx, a.ID)
	return shownAccount{a.ID, a.Address, a.Name, a.Quota, a.Disabled, a.Created, messages, octets}, err
}

func (a shownAccount) state() string {
	if a.Disabled {
		return "disabled"
	}
	return "active"
}

func (a shownAccount) quota() string {
	if a.Quota == 0 {
		return "none"
	}
	return size(a.Quota).String()
}

type accountList struct{ asJSON }

func (c *accountList) Run(ctx context.Context, p *program) error {
	return p.withStores(ctx, func(s *stores) error {
		all, err := s.accounts.Accounts(ctx)
		if err != nil {
			return err
		}
		shown := []shownAccount{}
		t := &table{head: []string{"ACCOUNT", "STATE", "LETTERS", "USED", "QUOTA"}, empty: "no account yet: `postroom account add anna@example.org` adds one"}
		for _, a := range all {
			v, err := withUsage(ctx, s.mailbox, a)
			if err != nil {
				return err
			}
			shown = append(shown, v)
			t.add(v.Address, v.state(), strconv.Itoa(v.Messages), size(v.Octets).String(), v.quota())
		}
		return c.show(p.stdout, shown, t)
	})
}

type accountShow struct {
	asJSON
	Address addressArgument `arg:"" help:"The account's address."`
}

func (c *accountShow) Run(ctx context.Context, p *program) error {
	return p.withStores(ctx, func(s *stores) error {
		a, err := s.accounts.Account(ctx, c.Address.Address)
		if err != nil {
			return err
		}
		v, err := withUsage(ctx, s.mailbox, a)
		if err != nil {
			return err
		}
		t := &table{head: []string{"account", v.Address}}
		t.add("name", orDash(v.Name))
		t.add("id", strconv.FormatInt(v.ID, 10))
		t.add("state", v.state())
		t.add("letters", strconv.Itoa(v.Messages))
		t.add("used", size(v.Octets).String())
		t.add("quota", v.quota())
		t.add("added", v.Created.Format(time.RFC3339))
		return c.show(p.stdout, v, t)
	})
}

type accountPassword struct {
	Address addressArgument `arg:"" help:"The account's address."`
	passwordFlags
}

func (c *accountPassword) Run(ctx context.Context, p *program) error {
	password, generated, err := c.read(ctx, p, c.Address.Unicode())
	if err != nil {
		return err
	}
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		if err := s.SetPassword(ctx, c.Address.Address, password); err != nil {
			return err
		}
		p.say("%s has a new password; device passwords stay as they are.", c.Address.Unicode())
		return p.tellPassword(password, generated)
	})
}

type accountQuota struct {
	Address addressArgument `arg:"" help:"The account's address."`
	Quota   size            `arg:"" help:"What it may keep, such as 5GiB; 0 is no limit."`
}

func (c *accountQuota) Run(ctx context.Context, p *program) error {
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		return s.SetQuota(ctx, c.Address.Address, int64(c.Quota))
	})
}

type accountDisable struct {
	Address addressArgument `arg:"" help:"The account's address."`
}

func (c *accountDisable) Run(ctx context.Context, p *program) error {
	return p.withAccounts(ctx, func(s *accounts.Service) error { return s.Disable(ctx, c.Address.Address) })
}

type accountEnable struct {
	Address addressArgument `arg:"" help:"The account's address."`
}

func (c *accountEnable) Run(ctx context.Context, p *program) error {
	return p.withAccounts(ctx, func(s *accounts.Service) error { return s.Enable(ctx, c.Address.Address) })
}

type accountRemove struct {
	Address addressArgument `arg:"" help:"The account's address."`
	Now     bool            `help:"Erase its mail, passwords and traces now, for good."`
}

func (c *accountRemove) Run(ctx context.Context, p *program) error {
	return p.withStores(ctx, func(s *stores) error {
		id, err := s.accounts.Remove(ctx, c.Address.Address)
		if err != nil {
			return err
		}
		if !c.Now {
			p.say("%s is removed; its mail is kept for 30 days.", c.Address.Unicode())
			return nil
		}
		if err := s.erase(ctx, id); err != nil {
			return fmt.Errorf("%s is removed, and the server erases what is left of it after 30 days: %w", c.Address.Unicode(), err)
		}
		p.say("%s and all of its mail are gone.", c.Address.Unicode())
		return nil
	})
}
