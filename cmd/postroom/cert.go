package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/config"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/tlsconf"
)

type certCommand struct {
	List   certList   `cmd:"" help:"List the certificates: who issued them, how long they last, what failed and when the next try is."`
	Add    certAdd    `cmd:"" help:"Get a certificate for one more name that leads here, such as mail.customer.example."`
	Remove certRemove `cmd:"" help:"Get none any more for a name that was added."`
	Renew  certRenew  `cmd:"" help:"Have the server get a new certificate now, with the same key."`
	Roll   certRoll   `cmd:"" help:"Make the next key of a name, which is used once its TLSA record is known everywhere; run again, it says how far that is."`
}

// renewPatience is how long renew waits for the server.
const renewPatience = 3 * time.Minute

// withCertificates runs fn on the certificates that the server gets from an authority.
func (p *program) withCertificates(ctx context.Context, fn func(*config.Config, *stores, *tlsconf.Store) error) error {
	c, err := p.load()
	if err != nil {
		return err
	}
	if c.TLS.Source != "acme" {
		return nof("the certificate comes from tls.source = %q, where nothing is ordered: set tls.source = \"acme\" for certificates of a public authority", c.TLS.Source)
	}
	return p.withStores(ctx, func(s *stores) error { return fn(c, s, tlsconf.NewStore(s.db, s.key.For("tls"))) })
}

// shownCertificate is a certificate as --json prints it.
type shownCertificate struct {
	Name     string     `json:"name"`
	State    string     `json:"state"`
	Issuer   string     `json:"issuer"`
	Expires  *time.Time `json:"expires"`
	DaysLeft *int       `json:"days_left"`
	Key      string     `json:"key"`
	TLSA     []string   `json:"tlsa"`
	NextKey  string     `json:"next_key"`
	Roll     string     `json:"roll"`
	Reason   string     `json:"reason"`
	Failures int        `json:"failures"`
	Failed   *time.Time `json:"failed"`
	NextTry  *time.Time `json:"next_try"`
}

func showCertificate(s tlsconf.Status, now time.Time) shownCertificate {
	v := shownCertificate{
		Name: s.Name, State: string(s.State), Issuer: s.Issuer, Expires: moment(s.Expires), TLSA: []string{}, Roll: s.Roll, Reason: s.Reason,
		Failures: s.Failures, Failed: moment(s.Failed), NextTry: moment(s.Next),
	}
	if v.Expires != nil {
		days := daysLeft(s.Expires, now)
		v.DaysLeft = &days
	}
	for _, k := range s.Keys {
		v.TLSA = append(v.TLSA, k.String())
		if k.Next {
			v.NextKey = k.ID()
		} else {
			v.Key = k.ID()
		}
	}
	return v
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// daysLeft counts whole days; a certificate that has ended has fewer than none.
func daysLeft(expires, now time.Time) int {
	return int(math.Floor(expires.Sub(now).Hours() / 24))
}

type certList struct{ asJSON }

func (c *certList) Run(ctx context.Context, p *program) error {
	configured, err := p.load()
	if err != nil {
		return err
	}
	if configured.TLS.Source != "acme" {
		status, err := tlsconf.Look(tlsconf.Options{
			Source: configured.TLS.Source, CertFile: configured.TLS.Cert, DataDir: configured.DataDir, Hostname: configured.Hostname,
		})
		if err != nil {
			return err
		}
		return c.list(p, []tlsconf.Status{status})
	}
	return p.withCertificates(ctx, func(_ *config.Config, _ *stores, s *tlsconf.Store) error {
		all, err := s.List(ctx)
		if err != nil {
			return err
		}
		return c.list(p, all)
	})
}

func (c *certList) list(p *program, all []tlsconf.Status) error {
	shown, now := []shownCertificate{}, time.Now()
	t := &table{head: []string{"NAME", "STATE", "ISSUER", "EXPIRES", "DAYS", "KEY", "NOTE"}, empty: "no certificates yet: `postroom serve` gets them"}
	for _, s := range all {
		v := showCertificate(s, now)
		shown = append(shown, v)
		expires, days := "-", "-"
		if v.DaysLeft != nil {
			expires, days = v.Expires.Format(time.DateOnly), strconv.Itoa(*v.DaysLeft)
		}
		t.add(v.Name, v.State, orDash(v.Issuer), expires, days, v.Key, orDash(certificateNote(v)))
	}
	return c.show(p.stdout, shown, t)
}

// certificateNote says what is not as it should be, and what happens next.
func certificateNote(v shownCertificate) string {
	note := ""
	switch {
	case v.State == string(tlsconf.Failed):
		note = fmt.Sprintf("%s; failed at %s, next try at %s", v.Reason, v.Failed.Format(time.RFC3339), v.NextTry.Format(time.RFC3339))
	case v.State == string(tlsconf.Skipped):
		note = v.Reason
	}
	if v.NextKey != "" {
		if note != "" {
			note += "; "
		}
		note += "next key " + v.NextKey
		if v.Roll != "" {
			note += ": " + v.Roll
		}
	}
	return note
}

type certAdd struct {
	Name domainArgument `arg:"" help:"The name."`
}

func (c *certAdd) Run(ctx context.Context, p *program) error {
	return p.withCertificates(ctx, func(_ *config.Config, _ *stores, s *tlsconf.Store) error {
		if err := s.Add(ctx, c.Name.ASCII()); err != nil {
			return err
		}
		p.say("The server gets a certificate for %s once that name leads to it: `postroom cert list` shows how it stands.", c.Name.ASCII())
		return nil
	})
}

type certRemove struct {
	Name domainArgument `arg:"" help:"The name."`
}

func (c *certRemove) Run(ctx context.Context, p *program) error {
	return p.withCertificates(ctx, func(_ *config.Config, _ *stores, s *tlsconf.Store) error {
		err := s.Remove(ctx, c.Name.ASCII())
		if errors.Is(err, tlsconf.ErrUnknownName) {
			return nof("%s was not added: the host name and the names of domains have certificates while they lead here", c.Name.ASCII())
		}
		return err
	})
}

type certRenew struct {
	Name domainArgument `arg:"" help:"The name, such as mail.example.org."`
}

// Run leaves word with the server and waits for what comes of it.
func (c *certRenew) Run(ctx context.Context, p *program) error {
	return p.withCertificates(ctx, func(_ *config.Config, s *stores, certificates *tlsconf.Store) error {
		changed, stop := certificates.Changed()
		defer stop()
		if err := c.unknown(certificates.Renew(ctx, c.Name.ASCII())); err != nil {
			return err
		}
		if err := s.db.LockServer(); !errors.Is(err, database.ErrServerRuns) {
			return nof("no server runs: it will get the new certificate of %s when it starts", c.Name.ASCII())
		}
		ctx, cancel := context.WithTimeout(ctx, renewPatience)
		defer cancel()
		for {
			select {
			case <-ctx.Done():
				return unsuref("no new certificate of %s within %s: the server tries on, and `postroom cert list` shows how it stands", c.Name.ASCII(), renewPatience)
			case <-changed:
			}
			if done, err := c.outcome(ctx, p, certificates); done || err != nil {
				return err
			}
		}
	})
}

func (c *certRenew) unknown(err error) error {
	if errors.Is(err, tlsconf.ErrUnknownName) {
		return nof("no certificate is managed for %s: `postroom cert list` shows the names", c.Name.ASCII())
	}
	return err
}

// outcome says what came of it, once the server has tried.
func (c *certRenew) outcome(ctx context.Context, p *program, certificates *tlsconf.Store) (done bool, err error) {
	all, err := certificates.List(ctx)
	if err != nil {
		return false, err
	}
	for _, s := range all {
		switch {
		case s.Name != c.Name.ASCII():
		case s.Asked:
			return false, nil
		case s.State == tlsconf.Good:
			p.say("%s has a new certificate, until %s.", s.Name, s.Expires.Format(time.DateOnly))
			return true, nil
		default:
			return true, nof("no new certificate of %s: %s", s.Name, s.Reason)
		}
	}
	return true, c.unknown(tlsconf.ErrUnknownName)
}

type certRoll struct {
	Name domainArgument `arg:"" optional:"" help:"The name (default: the host name)."`
}

// Run makes the next key, and prints the records that port 25 needs.
func (c *certRoll) Run(ctx context.Context, p *program) error {
	return p.withCertificates(ctx, func(configured *config.Config, _ *stores, certificates *tlsconf.Store) error {
		host, err := addr.ParseDomain(configured.Hostname)
		if err != nil {
			return err // the configuration was checked
		}
		name := host.ASCII()
		if !c.Name.IsZero() {
			name = c.Name.ASCII()
		}
		made, err := certificates.Roll(ctx, name)
		if errors.Is(err, tlsconf.ErrUnknownName) {
			return nof("no certificate is managed for %s: `postroom cert list` shows the names", name)
		}
		if err != nil {
			return err
		}
		keys, err := certificates.Keys(ctx, name)
		if err != nil {
			return err
		}
		if made {
			p.say("The next key of %s is made. Where its zone has TLSA records, publish both of these now. The server asks all name servers, and uses the next key once they have shown its record for longer than older ones are remembered; then the first of these may go.\n", name)
		} else {
			p.say("%s has a next key already, which waits: `postroom cert list` says for what. Both records must be published.\n", name)
		}
		for _, k := range keys {
			if _, err := fmt.Fprintf(p.stdout, "_25._tcp.%s. 3600 IN TLSA %s\n", name, k); err != nil {
				return err
			}
		}
		return nil
	})
}
