package dnscheck

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/resolve/zone"
	"github.com/postroom/postroom/internal/secret"
)

const typeTXT = 16 // RFC 1035 section 3.2.2

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// nameservers are the authoritative servers of every name, by name. A server without a zone is silent.
type nameservers map[string]*zone.Zone

func (n nameservers) AuthoritativeTXT(ctx context.Context, name string) (all []resolve.Testimony, err error) {
	if len(n) == 0 {
		return nil, &resolve.Error{Kind: resolve.ErrTimeout, Name: name}
	}
	for server, z := range n {
		said := resolve.Testimony{Server: server, Err: &resolve.Error{Kind: resolve.ErrTimeout, Name: name}}
		if z != nil {
			r := must(resolve.New(resolve.Options{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}, Exchange: z}))
			said.Answer, said.Err = r.Lookup(ctx, name, typeTXT)
			r.Close()
		}
		all = append(all, said)
	}
	return all, nil
}

// domain is one with the keys that it was added with.
func newKeys(t *testing.T, dns nameservers) (k *Keys, domain addr.Domain, log *bytes.Buffer) {
	t.Helper()
	db := databasetest.Open(t)
	key := must(secret.New(make([]byte, 32)))
	service := must(accounts.New(t.Context(), db, accounts.Options{Cost: bcrypt.MinCost, Iterations: 4096, Seal: key.For("accounts")}))
	t.Cleanup(service.Close)
	domain = must(addr.ParseDomain("example.org"))
	if err := service.AddDomain(t.Context(), domain); err != nil {
		t.Fatal(err)
	}
	log = new(bytes.Buffer)
	return &Keys{Accounts: service, DNS: dns, Log: slog.New(slog.NewTextHandler(log, nil))}, domain, log
}

// publish puts the records of the keys in a state into zones, changed by edit.
func (k *Keys) publish(t *testing.T, state accounts.KeyState, edit func(accounts.DKIMKey, string) string, zones ...*zone.Zone) {
	t.Helper()
	for _, key := range must(k.Accounts.DKIMKeys(t.Context(), must(addr.ParseDomain("example.org")))) {
		kind, _, _ := strings.Cut(key.Algorithm, "-")
		record := "v=DKIM1; k=" + kind + "; p=" + key.Public
		if edit != nil {
			record = edit(key, record)
		}
		if key.State != state || record == "" {
			continue
		}
		for _, z := range zones {
			z.AddTXT(key.Selector+"._domainkey.example.org", record)
		}
	}
}

// signing are the selectors that sign.
func (k *Keys) signing(t *testing.T) (all []string) {
	t.Helper()
	for _, key := range must(k.Accounts.SigningKeys(t.Context(), must(addr.ParseDomain("example.org")))) {
		all = append(all, key.Selector)
	}
	return all
}

// TestActivate shows which records, at which servers, make new keys sign.
func TestActivate(t *testing.T) {
	isRSA := func(k accounts.DKIMKey) bool { return k.Algorithm == "rsa-sha256" }
	for _, tc := range []struct {
		name    string
		dns     func(k *Keys, a, b *zone.Zone) nameservers
		done    bool
		reasons string // why a key is not counted, sorted, one of each
		failed  bool
	}{
		{"both servers show both", func(k *Keys, a, b *zone.Zone) nameservers {
			k.publish(t, accounts.KeyNew, nil, a, b)
			return nameservers{"a": a, "b": b}
		}, true, "", false},
		{"one server is silent", func(k *Keys, a, b *zone.Zone) nameservers {
			k.publish(t, accounts.KeyNew, nil, a)
			return nameservers{"a": a, "b": nil}
		}, true, "silent", false},
		{"all servers are silent", func(k *Keys, a, b *zone.Zone) nameservers { return nameservers{"a": nil, "b": nil} }, false, "silent", false},
		{"the servers cannot be found", func(k *Keys, a, b *zone.Zone) nameservers { return nil }, false, "", true},
		{"nothing is published", func(k *Keys, a, b *zone.Zone) nameservers { return nameservers{"a": a, "b": b} }, false, "there is no record", false},
		{"one server has not heard yet", func(k *Keys, a, b *zone.Zone) nameservers {
			k.publish(t, accounts.KeyNew, nil, a)
			return nameservers{"a": a, "b": b}
		}, false, "there is no record", false},
		{"one of the pair", func(k *Keys, a, b *zone.Zone) nameservers {
			k.publish(t, accounts.KeyNew, func(key accounts.DKIMKey, r string) string {
				if isRSA(key) {
					return ""
				}
				return r
			}, a, b)
			return nameservers{"a": a, "b": b}
		}, false, "there is no record", false},
		{"twice", func(k *Keys, a, b *zone.Zone) nameservers {
			k.publish(t, accounts.KeyNew, nil, a, a)
			return nameservers{"a": a}
		}, false, "there are 2 records", false},
		{"cut off", func(k *Keys, a, b *zone.Zone) nameservers {
			k.publish(t, accounts.KeyNew, func(key accounts.DKIMKey, r string) string {
				if isRSA(key) {
					return r[:len(r)-4]
				}
				return r
			}, a)
			return nameservers{"a": a}
		}, false, "the key record is cut off", false},
		{"only tested", func(k *Keys, a, b *zone.Zone) nameservers {
			k.publish(t, accounts.KeyNew, func(_ accounts.DKIMKey, r string) string { return r + "; t=y" }, a)
			return nameservers{"a": a}
		}, false, "the record says t=y: the key is only tested", false},
		{"revoked", func(k *Keys, a, b *zone.Zone) nameservers {
			k.publish(t, accounts.KeyNew, func(_ accounts.DKIMKey, r string) string { return r[:strings.Index(r, "p=")+2] }, a)
			return nameservers{"a": a}
		}, false, "the key is revoked", false},
		{"of another kind", func(k *Keys, a, b *zone.Zone) nameservers {
			k.publish(t, accounts.KeyNew, func(_ accounts.DKIMKey, r string) string { return strings.Replace(r, "k=ed25519", "k=rsa", 1) }, a)
			return nameservers{"a": a}
		}, false, "the key is for another algorithm", false},
		{"the old one's", func(k *Keys, a, b *zone.Zone) nameservers {
			old := must(k.Accounts.DKIMKeys(t.Context(), must(addr.ParseDomain("example.org"))))
			k.publish(t, accounts.KeyNew, func(key accounts.DKIMKey, r string) string {
				return strings.Replace(r, key.Public, old[slices.IndexFunc(old, func(o accounts.DKIMKey) bool { return o.Algorithm == key.Algorithm })].Public, 1)
			}, a)
			return nameservers{"a": a}
		}, false, "the record is that of another key", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k, domain, _ := newKeys(t, nil)
			before := k.signing(t)
			if err := k.Accounts.RotateDKIM(t.Context(), domain); err != nil {
				t.Fatal(err)
			}
			k.DNS = tc.dns(k, zone.New(), zone.New())
			seen, done, err := k.Activate(t.Context(), domain)
			var reasons []string
			for _, s := range seen {
				switch {
				case s.Silent:
					reasons = append(reasons, "silent")
				case s.Err != nil:
					reasons = append(reasons, s.Err.Error())
				}
			}
			slices.Sort(reasons)
			if got := strings.Join(slices.Compact(reasons), ", "); done != tc.done || (err != nil) != tc.failed || got != tc.reasons {
				t.Errorf("done %t, %v, %q; want %t, %q", done, err, got, tc.done, tc.reasons)
			}
			if after := k.signing(t); len(after) != 2 || slices.Equal(before, after) == tc.done {
				t.Errorf("%v signed, then %v", before, after)
			}
			if _, again, err := k.Activate(t.Context(), domain); again || err != nil && !tc.failed {
				t.Errorf("again: %t, %v", again, err)
			}
		})
	}
}

// TestLook shows what Run does each time, and that it warns of first keys that nobody sees.
func TestLook(t *testing.T) {
	z := zone.New()
	k, domain, log := newKeys(t, nameservers{"a": z})
	k.lookAtActive(t.Context())
	if !strings.Contains(log.String(), "not published") || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("no warning, or several: %s", log)
	}
	log.Reset()
	k.publish(t, accounts.KeyActive, nil, z)
	k.lookAtActive(t.Context())
	if err := k.Accounts.RotateDKIM(t.Context(), domain); err != nil {
		t.Fatal(err)
	}
	k.lookAtNew(t.Context())
	if log.Len() > 0 {
		t.Errorf("said %s", log)
	}
	before := k.signing(t)
	k.publish(t, accounts.KeyNew, nil, z)
	k.lookAtNew(t.Context())
	if !strings.Contains(log.String(), "new keys sign") || slices.Equal(before, k.signing(t)) {
		t.Errorf("%v sign, said %s", k.signing(t), log)
	}
	if err := k.Accounts.RotateDKIM(t.Context(), domain); err != nil {
		t.Fatal(err)
	}
	log.Reset()
	k.DNS = nameservers{}
	k.lookAtNew(t.Context())
	k.lookAtActive(t.Context())
	if !strings.Contains(log.String(), "new keys not activated") || !strings.Contains(log.String(), "keys not looked up") {
		t.Errorf("said %s", log)
	}
	if err := k.Accounts.RotateDKIM(t.Context(), domain); !errors.Is(err, accounts.ErrExists) {
		t.Errorf("a second new pair: %v", err)
	}
}
