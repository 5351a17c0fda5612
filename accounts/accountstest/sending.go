package accountstest

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/secret"
)

// sealing is a service that has DKIM keys.
func sealing(t *testing.T, db *database.DB) *accounts.Service {
	t.Helper()
	key, err := secret.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	s, err := accounts.New(t.Context(), db, accounts.Options{Cost: bcrypt.MinCost, Iterations: 4096, Seal: key.For("accounts")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// testKeys follows the keys of a domain through a rotation, seen from another process, too.
func testKeys(t *testing.T, open Open) {
	synctest.Test(t, func(t *testing.T) { (&world{T: t, db: open(t)}).rotate() })
}

func (w *world) rotate() {
	t := w.T
	s, other := sealing(t, w.db), sealing(t, w.db)
	ctx, name := t.Context(), domain("example.org")
	w.check(s.AddDomain(ctx, name))
	first := w.keys(s, name, accounts.KeyActive, 2)
	if first[0].Algorithm != "rsa-sha256" || first[1].Algorithm != "ed25519-sha256" || first[0].Selector == first[1].Selector {
		t.Errorf("%+v", first)
	}
	w.signs(s, name, first)
	w.signs(other, name, first)

	w.check(s.RotateDKIM(ctx, name))
	if err := s.RotateDKIM(ctx, name); !errors.Is(err, accounts.ErrExists) {
		t.Errorf("a second rotation: %v", err)
	}
	fresh := w.keys(s, name, accounts.KeyNew, 2)
	w.signs(s, name, first)
	if err := s.ActivateDKIM(ctx, name, fresh[0].Selector); err == nil {
		t.Error("half of a pair was activated")
	}
	if err := s.ActivateDKIM(ctx, name, fresh[0].Selector, "other"); !errors.Is(err, accounts.ErrNotFound) {
		t.Errorf("an unknown selector: %v", err)
	}
	w.signs(s, name, first)
	w.check(s.ActivateDKIM(ctx, name, fresh[0].Selector, fresh[1].Selector))
	w.keys(s, name, accounts.KeyRetired, 2)
	w.signs(s, name, fresh)

	w.check(s.RemoveDomain(ctx, name))
	if keys, err := s.SigningKeys(ctx, name); err != nil || len(keys) != 0 {
		t.Errorf("after the domain: %d keys, %v", len(keys), err)
	}
	if _, err := s.DKIMKeys(ctx, name); !errors.Is(err, accounts.ErrNotFound) {
		t.Errorf("keys of no domain: %v", err)
	}
	unsealed := w.service()
	w.check(unsealed.AddDomain(ctx, name))
	if err := unsealed.RotateDKIM(ctx, name); err == nil {
		t.Error("keys without a seal")
	}
	w.check(s.RotateDKIM(ctx, name)) // the very first ones sign at once
	w.keys(s, name, accounts.KeyActive, 2)
}

// keys returns those in a state, which must be so many.
func (w *world) keys(s *accounts.Service, name addr.Domain, state accounts.KeyState, count int) (found []accounts.DKIMKey) {
	w.Helper()
	all, err := s.DKIMKeys(w.Context(), name)
	w.check(err)
	for _, k := range all {
		if k.State == state {
			found = append(found, k)
		}
	}
	if len(found) != count {
		w.Fatalf("%d keys are %s, want %d", len(found), state, count)
	}
	return found
}

// signs wants these keys, and that what they sign fits their public parts.
func (w *world) signs(s *accounts.Service, name addr.Domain, want []accounts.DKIMKey) {
	w.Helper()
	var got []accounts.SigningKey
	for range 100 { // another process notices a change within a second
		var err error
		got, err = s.SigningKeys(w.Context(), name)
		w.check(err)
		if len(got) == len(want) && got[0].Selector == want[0].Selector {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if len(got) != len(want) {
		w.Fatalf("%d keys sign, want %d", len(got), len(want))
	}
	for i, k := range got {
		der, err := base64.StdEncoding.DecodeString(want[i].Public)
		w.check(err)
		digest := sha256.Sum256([]byte("letter"))
		if k.Algorithm == "ed25519-sha256" {
			signature, err := k.Key.Sign(rand.Reader, digest[:], crypto.Hash(0))
			w.check(err)
			if !ed25519.Verify(der, digest[:], signature) {
				w.Error("the Ed25519 key does not fit its public part")
			}
			continue
		}
		signature, err := k.Key.Sign(rand.Reader, digest[:], crypto.SHA256)
		w.check(err)
		public, err := x509.ParsePKIXPublicKey(der)
		w.check(err)
		w.check(rsa.VerifyPKCS1v15(public.(*rsa.PublicKey), crypto.SHA256, digest[:], signature))
	}
}

// testGrants has a row for each way in which an address can belong to an account.
func testGrants(t *testing.T, open Open) {
	w := newWorld(t, open)
	ctx := t.Context()
	catchAll := "anna@example.org"
	w.check(w.s.AddDomain(ctx, domain("catch.example")))
	w.check(w.s.SetDomain(ctx, domain("catch.example"), accounts.DomainSettings{CatchAll: &catchAll}))
	w.check(w.s.AddAlias(ctx, mailbox("team@example.org"), []addr.Address{mailbox("anna@example.org"), mailbox("ben@example.org")}))
	w.check(w.s.AddAlias(ctx, mailbox("boss@example.org"), []addr.Address{mailbox("ben@example.org")}))
	w.check(w.s.Grant(ctx, mailbox("anna@example.org"), mailbox("Shop@catch.example")))
	w.check(w.s.Grant(ctx, mailbox("anna@example.org"), mailbox("shop@catch.example"))) // once more is no harm
	for address, want := range map[string]bool{
		"anna@example.org": true, "ANNA@Example.org": true, "anna+tag@example.org": true, "team@example.org": true, "shop@catch.example": true,
		"boss@example.org": false, "ben@example.org": false, "other@catch.example": false, "anna@elsewhere.example": false, "nobody@example.org": false,
	} {
		if may, err := w.s.MaySendAs(ctx, w.id["anna@example.org"], mailbox(address)); err != nil || may != want {
			t.Errorf("anna as %s: %t, %v", address, may, err)
		}
	}
	if all, err := w.s.Grants(ctx, mailbox("anna@example.org")); err != nil || len(all) != 1 || all[0] != "Shop@catch.example" {
		t.Errorf("%q, %v", all, err)
	}
	if err := w.s.Grant(ctx, mailbox("anna@example.org"), mailbox("x@elsewhere.example")); !errors.Is(err, accounts.ErrNotFound) {
		t.Errorf("a grant in a strange domain: %v", err)
	}
	w.check(w.s.Ungrant(ctx, mailbox("anna@example.org"), mailbox("shop@catch.example")))
	if err := w.s.Ungrant(ctx, mailbox("anna@example.org"), mailbox("shop@catch.example")); !errors.Is(err, accounts.ErrNotFound) {
		t.Errorf("taken back twice: %v", err)
	}
	if may, err := w.s.MaySendAs(ctx, w.id["anna@example.org"], mailbox("shop@catch.example")); err != nil || may {
		t.Errorf("after it was taken back: %t, %v", may, err)
	}
}

// testLimits crosses each limit by one, and waits until it may send again.
func testLimits(t *testing.T, open Open) {
	limits := accounts.SendingLimits{Hour: 5, Day: 8, Strangers: 6}
	for _, tc := range []struct {
		name  string
		hours []int // recipients in each hour
		fresh bool  // each is written to for the first time
		over  string
	}{
		{"below all", []int{5, 3}, false, ""},
		{"the hour", []int{6}, false, "in an hour"},
		{"the day", []int{5, 4}, false, "in a day"},
		{"a day later", append([]int{5, 0, 3}, make([]int, 22)...), false, ""},
		{"strangers", []int{4, 3}, true, "never wrote to before"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, open)
				var over string
				written := 0
				for _, n := range tc.hours {
					var to []addr.Address
					for i := range n {
						if tc.fresh {
							i = written
						}
						written++
						to = append(to, mailbox(fmt.Sprintf("r%d@there.example", i)))
					}
					w.check(w.db.Write(t.Context(), func(tx *database.Tx) (err error) {
						over, err = w.s.CountSending(tx, w.id["anna@example.org"], to, limits, time.Now())
						return err
					}))
					time.Sleep(time.Hour)
				}
				if (over == "") != (tc.over == "") || !strings.Contains(over, tc.over) {
					t.Errorf("over %q, want %q", over, tc.over)
				}
			})
		})
	}
}

// testHold stops one account, and no other.
func testHold(t *testing.T, open Open) {
	w := newWorld(t, open)
	anna, ben := w.id["anna@example.org"], w.id["ben@example.org"]
	may := func(account int64) error {
		return w.db.Read(t.Context(), func(tx *database.Tx) error { return accounts.MaySend(tx, account) })
	}
	w.check(may(anna))
	w.check(w.db.Write(t.Context(), func(tx *database.Tx) error { return accounts.HoldSending(tx, anna, "too much", time.Now()) }))
	if err := may(anna); !errors.Is(err, accounts.ErrHeld) || !strings.Contains(err.Error(), "too much") {
		t.Errorf("on hold: %v", err)
	}
	w.check(may(ben))
	if held, err := w.s.HeldAccounts(t.Context()); err != nil || len(held) != 1 || held[0].Account != anna {
		t.Errorf("%+v, %v", held, err)
	}
	for _, want := range []bool{true, false} {
		w.check(w.db.Write(t.Context(), func(tx *database.Tx) error {
			held, err := accounts.ReleaseSending(tx, anna)
			if held != want {
				t.Errorf("released %t, want %t", held, want)
			}
			return err
		}))
	}
	w.check(may(anna))
}
