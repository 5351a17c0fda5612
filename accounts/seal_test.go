package accounts

import (
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/secret"
)

// TestCheckSeal: a database that was restored without its secret.key is told from one that has it, and from an empty one.
func TestCheckSeal(t *testing.T) {
	db := databasetest.Open(t)
	open := func(octet byte) *Service {
		octets := make([]byte, 32)
		octets[0] = octet
		key, err := secret.New(octets)
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(t.Context(), db, Options{Cost: bcrypt.MinCost, Iterations: 1, Seal: key.For("accounts")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	right, wrong := open(1), open(2)
	if err := wrong.CheckSeal(t.Context()); err != nil {
		t.Errorf("nothing is sealed yet: %v", err)
	}
	domain, err := addr.ParseDomain("example.org")
	if err != nil {
		t.Fatal(err)
	}
	if err := right.AddDomain(t.Context(), domain); err != nil {
		t.Fatal(err)
	}
	if err := right.CheckSeal(t.Context()); err != nil {
		t.Errorf("the right key: %v", err)
	}
	if err := wrong.CheckSeal(t.Context()); err == nil {
		t.Error("another key opens it")
	}
}
