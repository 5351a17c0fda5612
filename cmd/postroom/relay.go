package main

import (
	"context"
	"errors"
	"net"
	"strconv"

	"github.com/postroom/postroom/delivery"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/maillog"
)

type relayCommand struct {
	Set    relaySet    `cmd:"" help:"Send mail through another server, for all mail, that from one domain or that to one."`
	List   relayList   `cmd:"" help:"List the smarthosts."`
	Remove relayRemove `cmd:"" help:"Send that mail directly again."`
}

// relayScope is the mail that a smarthost is for.
type relayScope struct {
	Sender      domainArgument `placeholder:"DOMAIN" xor:"scope" help:"For mail from this domain (default: for all mail)."`
	Destination domainArgument `placeholder:"DOMAIN" xor:"scope" help:"For mail to this domain."`
}

func (p *program) withRelays(ctx context.Context, fn func(*delivery.Smarthosts) error) error {
	return p.withStores(ctx, func(s *stores) error {
		relays := delivery.NewSmarthosts(s.db, s.key.For("relay"))
		defer relays.Close()
		return fn(relays)
	})
}

type relaySet struct {
	relayScope
	Host  string `arg:"" help:"Its name or address."`
	Port  uint16 `help:"Its port (default: 587, or 465 with --tls=tls)."`
	TLS   string `default:"starttls" enum:"starttls,tls" help:"STARTTLS, or TLS from the first octet: ${enum}."`
	Login string `help:"The name to log in with. The password is read from standard input."`
}

func (c *relaySet) Run(ctx context.Context, p *program) error {
	password := ""
	if c.Login != "" {
		var err error
		if password, err = firstLine(p.stdin); err != nil {
			return err
		}
	}
	return p.withRelays(ctx, func(r *delivery.Smarthosts) error {
		err := r.SetRelay(ctx, delivery.Relay{Sender: c.Sender.Domain, Destination: c.Destination.Domain, Host: c.Host, Port: c.Port,
			TLS: delivery.RelayMode(c.TLS), Login: c.Login, Password: maillog.Secret(password)})
		if err == nil {
			p.say("%s goes through %s from now on.", scopeName(c.Sender.Domain, c.Destination.Domain), c.Host)
		}
		return err
	})
}

// scopeName is what a smarthost is for, in words.
func scopeName(sender, destination addr.Domain) string {
	switch {
	case !sender.IsZero():
		return "mail from " + sender.ASCII()
	case !destination.IsZero():
		return "mail to " + destination.ASCII()
	}
	return "all mail"
}

// shownRelay is a smarthost as --json prints it.
type shownRelay struct {
	Sender      string `json:"sender"`
	Destination string `json:"destination"`
	Host        string `json:"host"`
	Port        uint16 `json:"port"`
	TLS         string `json:"tls"`
	Login       string `json:"login"`
}

type relayList struct{ asJSON }

func (c *relayList) Run(ctx context.Context, p *program) error {
	return p.withRelays(ctx, func(r *delivery.Smarthosts) error {
		all, err := r.Relays(ctx)
		if err != nil {
			return err
		}
		shown := []shownRelay{}
		t := &table{head: []string{"FOR", "SERVER", "TLS", "LOGIN"}, empty: "no smarthost: mail goes to its servers directly"}
		for _, s := range all {
			shown = append(shown, shownRelay{s.Sender.ASCII(), s.Destination.ASCII(), s.Host, s.Port, string(s.TLS), s.Login})
			t.add(scopeName(s.Sender, s.Destination), net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port))), string(s.TLS), orDash(s.Login))
		}
		return c.show(p.stdout, shown, t)
	})
}

type relayRemove struct{ relayScope }

func (c *relayRemove) Run(ctx context.Context, p *program) error {
	return p.withRelays(ctx, func(r *delivery.Smarthosts) error {
		err := r.RemoveRelay(ctx, c.Sender.Domain, c.Destination.Domain)
		if errors.Is(err, delivery.ErrNoRelay) {
			return nof("there is no smarthost for %s: `postroom relay list` shows them", scopeName(c.Sender.Domain, c.Destination.Domain))
		}
		if err != nil {
			return err
		}
		p.say("%s is sent directly from now on.", scopeName(c.Sender.Domain, c.Destination.Domain))
		return nil
	})
}
