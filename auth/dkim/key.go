package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Sizes of RSA keys that are used. RFC 8301 section 3.2: verifiers must not take keys of less than 1024 bits, and must be
// able to take 4096; a larger key is a way to make us work.
const (
	minKeyBits   = 1024
	maxKeyBits   = 4096
	maxKeyRecord = 16 << 10 // octets of a TXT record
	maxKeys      = 5        // records that are looked at for one signature
)

// key is a public key with what its record says of it, RFC 6376 section 3.6.1.
type key struct {
	bits        int
	testing     bool // t=y
	noSubdomain bool // t=s
	rsa         *rsa.PublicKey
	ed25519     ed25519.PublicKey
}

// verifies tells whether a signature of a digest is this key's. RFC 8463 section 3: Ed25519 signs the digest, too.
func (k key) verifies(digest, signature []byte) bool {
	if k.rsa != nil {
		return rsa.VerifyPKCS1v15(k.rsa, crypto.SHA256, digest, signature) == nil
	}
	return ed25519.Verify(k.ed25519, digest, signature)
}

// parseKey reads and judges the key record for a signature.
func parseKey(record string, s Signature, known *Keys) (key, error) {
	if len(record) > maxKeyRecord {
		return key{}, permanent("the key record is too long")
	}
	tags, err := parseTags(record)
	if err != nil {
		return key{}, permanent("the key record: %s", err)
	}
	flags := strings.Split(tags["t"], ":")
	k := key{testing: slices.Contains(flags, "y"), noSubdomain: slices.Contains(flags, "s")}
	if err := k.judge(tags, s); err != nil {
		return k, err
	}
	return k, k.readPublic(tags, known)
}

// Published tells whether the TXT records of a selector let everybody verify what the key with this public part signs. The error says
// what hinders it. algorithm is as in a=, public as in p=.
func Published(records []string, algorithm, public string) error {
	switch len(records) {
	case 0:
		return permanent("there is no record")
	case 1:
	default:
		return permanent("there are %d records", len(records)) // RFC 6376 section 3.6.2.2: the result is undefined
	}
	tags, err := parseTags(records[0])
	if err != nil {
		return permanent("the key record: %s", err)
	}
	if found := tags["p"]; found != "" && found != public && strings.HasPrefix(public, found) {
		return permanent("the key record is cut off")
	}
	k, err := parseKey(records[0], Signature{Algorithm: algorithm}, nil)
	switch {
	case err != nil:
		return err
	case tags["p"] != public:
		return permanent("the record is that of another key")
	case k.testing:
		return permanent("the record says t=y: the key is only tested")
	}
	return nil
}

// judge checks what the record says the key is for.
func (k key) judge(tags map[string]string, s Signature) error {
	algorithm, hash, _ := strings.Cut(s.Algorithm, "-")
	kind, ok := tags["k"]
	if !ok {
		kind = "rsa"
	}
	_, versioned := tags["v"]
	_, hashes := tags["h"]
	_, services := tags["s"]
	service := strings.Split(tags["s"], ":")
	_, identity, _ := strings.Cut(s.Identity, "@")
	switch {
	case versioned && tags["v"] != "DKIM1":
		return permanent("the key record is of another version")
	case kind != algorithm:
		return permanent("the key is for another algorithm")
	case hashes && !slices.Contains(strings.Split(tags["h"], ":"), hash):
		return permanent("the key is for other hash algorithms")
	case services && !slices.Contains(service, "*") && !slices.Contains(service, "email"):
		return permanent("the key is for other services")
	case k.noSubdomain && !strings.EqualFold(identity, s.Domain):
		return permanent("the key is not for subdomains in i=")
	}
	return nil
}

// readPublic reads p=.
func (k *key) readPublic(tags map[string]string, known *Keys) error {
	public, ok := tags["p"]
	switch {
	case !ok:
		return permanent("the key record has no p=")
	case public == "":
		return permanent("the key is revoked")
	}
	der, err := base64.StdEncoding.DecodeString(public)
	if err != nil {
		return permanent("the key is not base64")
	}
	if tags["k"] == "ed25519" {
		if len(der) != ed25519.PublicKeySize {
			return permanent("the key is no Ed25519 key")
		}
		k.bits, k.ed25519 = 256, der
		return nil
	}
	if k.rsa, err = known.parse(der); err != nil {
		return permanent("the key is no RSA key")
	}
	k.bits = k.rsa.N.BitLen()
	switch {
	case k.bits < minKeyBits:
		return &unfit{Policy, fmt.Sprintf("the key has %d bits, fewer than %d", k.bits, minKeyBits)}
	case k.bits > maxKeyBits:
		return &unfit{Policy, fmt.Sprintf("the key has %d bits, more than %d", k.bits, maxKeyBits)}
	}
	return nil
}

// maxKnown bounds the keys that are remembered. Keys that is full begins anew.
const maxKnown = 1000

// Keys remembers RSA keys that were read before: a few signers send most mail, and reading a key takes as long as verifying with
// it. The zero value is empty, and nil remembers nothing. It may be used by several goroutines.
type Keys struct {
	mu    sync.Mutex // guards byDER
	byDER map[string]*rsa.PublicKey
}

func (k *Keys) parse(der []byte) (*rsa.PublicKey, error) {
	if k == nil {
		return parseRSA(der)
	}
	k.mu.Lock()
	known := k.byDER[string(der)]
	k.mu.Unlock()
	if known != nil {
		return known, nil
	}
	fresh, err := parseRSA(der)
	if err == nil && fresh.N.BitLen() <= maxKeyBits {
		k.remember(der, fresh)
	}
	return fresh, err
}

func (k *Keys) remember(der []byte, fresh *rsa.PublicKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byDER == nil || len(k.byDER) >= maxKnown {
		k.byDER = map[string]*rsa.PublicKey{}
	}
	k.byDER[string(der)] = fresh
}

// parseRSA takes both forms, as erratum 3017 of RFC 6376 proposes.
func parseRSA(der []byte) (*rsa.PublicKey, error) {
	if public, err := x509.ParsePKIXPublicKey(der); err == nil {
		if rsaKey, ok := public.(*rsa.PublicKey); ok {
			return rsaKey, nil
		}
	}
	return x509.ParsePKCS1PublicKey(der)
}
