// Package secret seals what must not be read from a copy of the database: private keys of DKIM and TLS, and logins at other
// servers. The key that opens it lies in a file beside the database, made at the first start.
//
// Sealing is XChaCha20-Poly1305 with a random nonce. What was sealed for one purpose cannot be opened for another.
package secret

import (
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/chacha20poly1305"
)

// fileName is the key's file in the data directory. Nodes that share a database share it.
const fileName = "secret.key"

// version begins what is sealed, so that another way of sealing can follow.
const version = 1

// ErrSealed says that something cannot be opened: it was sealed with another key, for another purpose, or changed.
var ErrSealed = errors.New("it was sealed with another secret.key, or changed")

// Key seals and opens. It may be used by many goroutines.
type Key struct{ aead cipher.AEAD }

// Load reads the key of a data directory, and makes it the first time.
func Load(dataDir string) (*Key, error) {
	path := filepath.Join(dataDir, fileName)
	octets, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, fmt.Errorf("make %s: %w", path, err)
		}
		octets, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key that opens what is sealed: %w", err)
	}
	k, err := New(octets)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// New returns the key with these 32 octets.
func New(octets []byte) (*Key, error) {
	aead, err := chacha20poly1305.NewX(octets)
	if err != nil {
		return nil, fmt.Errorf("it has %d octets, not %d: put back the file from a backup", len(octets), chacha20poly1305.KeySize)
	}
	return &Key{aead}, nil
}

// create writes a new key, whole or not at all, and never over one that is there: the server and a command may both be the
// first.
func create(path string) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), fileName+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	octets := make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(octets) // never fails
	_, err = temporary.Write(octets)
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return err
	}
	if err := os.Link(temporary.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// For returns what seals for one purpose.
func (k *Key) For(purpose string) *Sealer { return &Sealer{k.aead, []byte(purpose)} }

// Sealer seals and opens for one purpose.
type Sealer struct {
	aead    cipher.AEAD
	purpose []byte
}

// Seal returns what Open opens.
func (s *Sealer) Seal(plain []byte) ([]byte, error) {
	sealed := make([]byte, 1+s.aead.NonceSize(), 1+s.aead.NonceSize()+len(plain)+s.aead.Overhead())
	sealed[0] = version
	_, _ = rand.Read(sealed[1:]) // never fails
	return s.aead.Seal(sealed, sealed[1:], plain, s.purpose), nil
}

// Open returns what was sealed.
func (s *Sealer) Open(sealed []byte) ([]byte, error) {
	start := 1 + s.aead.NonceSize()
	if len(sealed) < start || sealed[0] != version {
		return nil, ErrSealed
	}
	plain, err := s.aead.Open(nil, sealed[1:start], sealed[start:], s.purpose)
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}
