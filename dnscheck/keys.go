package dnscheck

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/auth/dkim"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/resolve"
)

const (
	// lookInterval is how often the servers of domains with new keys are asked.
	lookInterval = 10 * time.Minute
	// remindInterval is how often it is said that the keys that sign are not seen.
	remindInterval = 6 * time.Hour
)

// Authorities asks the authoritative servers of a name; *resolve.Resolver does.
type Authorities interface {
	AuthoritativeTXT(ctx context.Context, name string) ([]resolve.Testimony, error)
}

var _ Authorities = (*resolve.Resolver)(nil)

// Keys sees to it that mail is signed with keys that the world can see: new ones sign once every authoritative server of the domain
// that answers shows their records.
type Keys struct {
	Accounts *accounts.Service
	DNS      Authorities
	Log      *slog.Logger
}

// Sighting is what one server says of one key.
type Sighting struct {
	Selector, Server string
	Silent           bool  // it said nothing that counts
	Err              error // why the key does not count as published; nil: it does
}

// Run looks now and then until ctx ends.
func (k *Keys) Run(ctx context.Context) {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	remind := time.Time{}
	for {
		k.lookAtNew(ctx)
		if now := time.Now(); now.After(remind) {
			k.lookAtActive(ctx)
			remind = now.Add(remindInterval)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// lookAtNew activates the new keys of all domains that are published.
func (k *Keys) lookAtNew(ctx context.Context) {
	domains, err := k.Accounts.DomainsByKey(ctx, accounts.KeyNew)
	if err != nil && ctx.Err() == nil {
		k.Log.Error("new keys not activated", maillog.Err, err)
	}
	for _, d := range domains {
		if _, _, err := k.Activate(ctx, d); err != nil && ctx.Err() == nil {
			k.Log.Warn("new keys not activated", "domain", d.ASCII(), maillog.Err, err)
		}
	}
}

// lookAtActive warns of keys that sign and that nobody can see: the very first ones sign before they are published.
func (k *Keys) lookAtActive(ctx context.Context) {
	domains, err := k.Accounts.DomainsByKey(ctx, accounts.KeyActive)
	if err != nil && ctx.Err() == nil {
		k.Log.Error("keys not looked up", maillog.Err, err)
	}
	for _, d := range domains {
		seen, err := k.See(ctx, d, accounts.KeyActive)
		for _, s := range seen {
			if s.Err != nil && !s.Silent {
				k.Log.Warn("signed with a key that is not published: `postroom dkim list` shows the record", "domain", d.ASCII(), "selector", s.Selector, "server", s.Server, maillog.Err, s.Err)
				break
			}
		}
		if err != nil && ctx.Err() == nil {
			k.Log.Warn("keys not looked up", "domain", d.ASCII(), maillog.Err, err)
		}
	}
}

// See asks the authoritative servers of a domain for the records of its keys in a state.
func (k *Keys) See(ctx context.Context, domain addr.Domain, state accounts.KeyState) ([]Sighting, error) {
	keys, err := k.Accounts.DKIMKeys(ctx, domain)
	if err != nil {
		return nil, err
	}
	var all []Sighting
	for _, key := range keys {
		if key.State != state {
			continue
		}
		said, err := k.DNS.AuthoritativeTXT(ctx, key.Selector+"._domainkey."+domain.ASCII())
		if err != nil {
			return all, fmt.Errorf("dnscheck: the servers of %s: %w", domain, err)
		}
		for _, t := range said {
			all = append(all, judgeKey(key, t))
		}
	}
	return all, nil
}

// judgeKey compares a key with what a server says.
func judgeKey(key accounts.DKIMKey, t resolve.Testimony) Sighting {
	s := Sighting{Selector: key.Selector, Server: t.Server, Silent: resolve.IsTemporary(t.Err), Err: t.Err}
	if !s.Silent {
		s.Err = dkim.Published(t.Answer.TXT(), key.Algorithm, key.Public)
	}
	return s
}

// Activate makes the new keys of a domain sign where they are published, and says what was seen.
func (k *Keys) Activate(ctx context.Context, domain addr.Domain) (seen []Sighting, done bool, err error) {
	seen, err = k.See(ctx, domain, accounts.KeyNew)
	selectors := published(seen)
	if err != nil || len(selectors) == 0 {
		return seen, false, err
	}
	err = k.Accounts.ActivateDKIM(ctx, domain, selectors...)
	switch {
	case errors.Is(err, accounts.ErrNotFound):
		return seen, false, nil // they changed meanwhile, and the next look sees to them
	case err != nil:
		return seen, false, err
	}
	k.Log.Info("new keys sign", "domain", domain.ASCII(), "selectors", selectors)
	return seen, true, nil
}

// published are the keys seen, where each was shown by a server and nobody who answered showed something else for any of them.
func published(seen []Sighting) (selectors []string) {
	shown := map[string]bool{}
	for _, s := range seen {
		if s.Err != nil && !s.Silent {
			return nil
		}
		shown[s.Selector] = shown[s.Selector] || !s.Silent
	}
	for selector, ok := range shown {
		if !ok {
			return nil
		}
		selectors = append(selectors, selector)
	}
	return selectors
}
