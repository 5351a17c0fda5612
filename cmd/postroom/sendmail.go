package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/submission"
)

// Exit statuses of sendmail, from sysexits.h: programs that call it know them.
const (
	statusUnavailable = 69 // refused for good
	statusTemporary   = 75 // refused for now
)

type sendmailCommand struct {
	FromHeader bool              `short:"t" help:"Send to those in the To, Cc and Bcc fields, too."`
	Dots       bool              `short:"i" help:"A line with a single dot does not end the letter."`
	Sender     addressArgument   `short:"f" placeholder:"ADDRESS" help:"The account's address to send as (default: that of the From field)."`
	Reverse    addressArgument   `short:"r" placeholder:"ADDRESS" help:"The same as -f."`
	Mode       string            `short:"b" default:"m" enum:"m" placeholder:"m" help:"-bm, the only mode: a letter on standard input."`
	Name       string            `short:"F" help:"Taken for compatibility, and not used, as -G, -n, -v, -N and -V."`
	Options    []string          `short:"o" help:"Taken for compatibility; -oi is -i."`
	Gateway    bool              `short:"G" hidden:""`
	NoAlias    bool              `short:"n" hidden:""`
	Verbose    bool              `short:"v" hidden:""`
	Notify     string            `short:"N" hidden:""`
	Envelope   string            `short:"V" hidden:""`
	To         []addressArgument `arg:"" optional:"" name:"recipient" help:"Who gets the letter."`
}

// Run hands a letter in that comes on standard input, for programs on this machine that call sendmail.
func (c *sendmailCommand) Run(ctx context.Context, p *program) error {
	conf, err := p.load()
	if err != nil {
		return err
	}
	letter, err := c.read(p.stdin, int64(conf.Limits.MessageSize))
	if err != nil {
		return err
	}
	if c.Sender.Domain.IsZero() {
		c.Sender = c.Reverse
	}
	header, err := message.ReadHeader(bytes.NewReader(letter), message.HeaderLimits{})
	if err != nil {
		return unsuref("the letter cannot be read: %s", reason(err))
	}
	if header.Count("From") == 0 && !c.Sender.Domain.IsZero() && header.Malformed == 0 {
		letter = append([]byte("From: <"+c.Sender.String()+">\n"), letter...) // as every sendmail does
	}
	to, err := c.recipients(header)
	if err != nil {
		return err
	}
	from, err := c.from(header)
	if err != nil {
		return err
	}
	return p.withStores(ctx, func(s *stores) error {
		account, err := accountOf(ctx, s, from)
		if err != nil {
			return err
		}
		q, err := queue.New(queue.Options{Hostname: conf.Hostname, DB: s.db, Store: queueStore{s}})
		if err != nil {
			return err
		}
		h, err := submission.New(submission.Options{Hostname: conf.Hostname, Accounts: s.accounts, Mailbox: s.mailbox, Queue: q, DB: s.db,
			SpoolDir: conf.DataDir, Reserve: int64(conf.Limits.DiskReserve)})
		if err != nil {
			return err
		}
		reply, err := h.HandIn(ctx, account, addr.Path{Address: from}, to, bytes.NewReader(letter))
		switch {
		case err != nil:
			return &failure{statusTemporary, "the letter was not taken: " + reason(err)}
		case reply.Positive():
			return nil
		case reply.Code < 500:
			return &failure{statusTemporary, "the letter was not taken now: " + reply.String()}
		}
		return &failure{statusUnavailable, "the letter was not taken: " + reply.String()}
	})
}

// read reads the letter, up to a line with a single dot where that ends it.
func (c *sendmailCommand) read(r io.Reader, limit int64) ([]byte, error) {
	dots := c.Dots || slices.Contains(c.Options, "i")
	in := bufio.NewReader(io.LimitReader(r, limit+1))
	var letter []byte
	for {
		line, err := in.ReadBytes('\n')
		if !dots && string(bytes.TrimRight(line, "\r\n")) == "." {
			return letter, nil
		}
		if len(letter) > 0 || !bytes.HasPrefix(line, []byte("From ")) { // which an mbox file has before each letter
			letter = append(letter, line...)
		}
		switch {
		case int64(len(letter)) > limit:
			return nil, &failure{statusUnavailable, "the letter is larger than limits.message_size"}
		case errors.Is(err, io.EOF):
			return letter, nil
		case err != nil:
			return nil, unsuref("the letter could not be read from standard input: %s", reason(err))
		}
	}
}

// recipients are those of the command line, and of the header where that was asked for.
func (c *sendmailCommand) recipients(h *message.Header) (all []addr.Path, err error) {
	for _, a := range c.To {
		all = append(all, addr.Path{Address: a.Address})
	}
	if c.FromHeader {
		for _, name := range []string{"To", "Cc", "Bcc"} {
			for f := range h.All(name) {
				if strings.TrimSpace(f.Value()) == "" {
					continue
				}
				found, err := message.ParseMailboxes(f.Value())
				if err != nil {
					return nil, usagef("the %s field cannot be read: %s", name, f.Value())
				}
				for _, m := range found {
					a, err := asAddress(m)
					if err != nil {
						return nil, usagef("the %s field has no address in %q", name, m.Local+"@"+m.Domain)
					}
					all = append(all, addr.Path{Address: a})
				}
			}
		}
	}
	if len(all) == 0 {
		return nil, usagef("nobody to send to: name recipients, or use -t")
	}
	return all, nil
}

func asAddress(m message.Mailbox) (addr.Address, error) {
	d, err := addr.ParseDomain(m.Domain)
	return addr.Address{Local: m.Local, Domain: d}, err
}

// from is who sends.
func (c *sendmailCommand) from(h *message.Header) (addr.Address, error) {
	if !c.Sender.Domain.IsZero() {
		return c.Sender.Address, nil
	}
	found, err := message.ParseMailboxes(h.Get("From"))
	if err != nil || len(found) == 0 {
		return addr.Address{}, usagef("nobody sends it: the letter needs a From field, or the command -f ADDRESS")
	}
	a, err := asAddress(found[0])
	if err != nil {
		return addr.Address{}, usagef("the From field has no address in a domain")
	}
	return a, nil
}

// accountOf finds the one account that an address leads to.
func accountOf(ctx context.Context, s *stores, a addr.Address) (accounts.Account, error) {
	route, err := s.accounts.Resolve(ctx, addr.Path{Address: a})
	if err != nil {
		return accounts.Account{}, err
	}
	if route.Kind != accounts.Deliver || len(route.Targets) != 1 {
		return accounts.Account{}, &failure{statusUnavailable, a.String() + " is not the address of one account here: `postroom resolve " + a.String() + "` tells where it leads"}
	}
	owner, err := addr.Parse(route.Targets[0].Address)
	if err != nil {
		return accounts.Account{}, err
	}
	return s.accounts.Account(ctx, owner)
}
