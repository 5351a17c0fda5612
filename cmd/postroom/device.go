package main

import (
	"context"
	"time"

	"github.com/postroom/postroom/accounts"
)

type deviceCommand struct {
	Add    deviceAdd    `cmd:"" help:"Make a password for one device, and print it: it cannot be shown again."`
	List   deviceList   `cmd:"" help:"List the devices of an account."`
	Revoke deviceRevoke `cmd:"" help:"Make a device's password worthless, and end its sessions."`
}

type deviceAdd struct {
	Address     addressArgument `arg:"" help:"The account's address."`
	Device      string          `arg:"" help:"A name for the device, such as phone."`
	ReceiveOnly bool            `xor:"use" help:"The password fetches mail, and cannot send."`
	SendOnly    bool            `xor:"use" help:"The password sends mail, and cannot fetch."`
}

func (c *deviceAdd) Run(ctx context.Context, p *program) error {
	use := accounts.Receive | accounts.Send
	switch {
	case c.ReceiveOnly:
		use = accounts.Receive
	case c.SendOnly:
		use = accounts.Send
	}
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		password, err := s.AddDevice(ctx, c.Address.Address, c.Device, use)
		if err != nil {
			return err
		}
		p.say("the password of %q, for %s, %s; it cannot be shown again:", c.Device, c.Address.Unicode(), use)
		return p.tellPassword(password, true)
	})
}

// shownDevice is a device as --json prints it.
type shownDevice struct {
	Name    string     `json:"name"`
	Receive bool       `json:"receive"`
	Send    bool       `json:"send"`
	Created time.Time  `json:"created"`
	Used    *time.Time `json:"used"` // null: never
	Network string     `json:"network"`
}

type deviceList struct {
	asJSON
	Address addressArgument `arg:"" help:"The account's address."`
}

func (c *deviceList) Run(ctx context.Context, p *program) error {
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		all, err := s.Devices(ctx, c.Address.Address)
		if err != nil {
			return err
		}
		shown := []shownDevice{}
		t := &table{head: []string{"DEVICE", "USE", "ADDED", "LAST USED", "FROM"}, empty: c.Address.Unicode() + " has no device passwords"}
		for _, d := range all {
			v := shownDevice{Name: d.Name, Receive: d.Use&accounts.Receive != 0, Send: d.Use&accounts.Send != 0, Created: d.Created, Network: d.Network}
			used := "never"
			if !d.Used.IsZero() {
				v.Used, used = &d.Used, d.Used.Format(time.RFC3339)
			}
			shown = append(shown, v)
			t.add(d.Name, d.Use.String(), d.Created.Format(time.RFC3339), used, orDash(d.Network))
		}
		return c.show(p.stdout, shown, t)
	})
}

type deviceRevoke struct {
	Address addressArgument `arg:"" help:"The account's address."`
	Device  string          `arg:"" help:"The name of the device."`
}

func (c *deviceRevoke) Run(ctx context.Context, p *program) error {
	return p.withAccounts(ctx, func(s *accounts.Service) error {
		return s.RevokeDevice(ctx, c.Address.Address, c.Device)
	})
}
