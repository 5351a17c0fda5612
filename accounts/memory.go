package accounts

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

const (
	rememberFor = 5 * time.Minute
	maxMemory   = 10_000 // logins
)

// memory remembers logins that succeeded, so that a mail program that polls does not cost a bcrypt each time. It never
// holds a password: what it looks up is a keyed hash of name and password, and the key lives and dies with the process.
type memory struct {
	key [32]byte

	mu     sync.Mutex // guards what follows
	epoch  uint64     // rises with every change of accounts
	logins map[[sha256.Size]byte]remembered
}

type remembered struct {
	login Login
	uses  Use
	until time.Time
}

func newMemory() *memory {
	m := &memory{logins: make(map[[sha256.Size]byte]remembered)}
	_, _ = rand.Read(m.key[:]) // never fails
	return m
}

// index is the keyed hash of a name and a password. The length keeps one from running into the other.
func (m *memory) index(name, password string) (index [sha256.Size]byte) {
	h := hmac.New(sha256.New, m.key[:])
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(name)))
	h.Write(length[:])
	h.Write([]byte(name))
	h.Write([]byte(password))
	h.Sum(index[:0])
	return index
}

// now returns the epoch in which a login that is being checked began.
func (m *memory) now() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epoch
}

func (m *memory) find(index [sha256.Size]byte) (remembered, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.logins[index]
	if ok && !time.Now().Before(r.until) {
		delete(m.logins, index)
		return remembered{}, false
	}
	return r, ok
}

// remember keeps a login that was checked, unless something changed since it began.
func (m *memory) remember(index [sha256.Size]byte, epoch uint64, login Login, uses Use) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.epoch != epoch {
		return
	}
	if len(m.logins) >= maxMemory {
		m.dropExpired()
	}
	if len(m.logins) >= maxMemory {
		clear(m.logins) // ten thousand logins in five minutes: they pay for one bcrypt again
	}
	m.logins[index] = remembered{login, uses, time.Now().Add(rememberFor)}
}

func (m *memory) dropExpired() {
	now := time.Now()
	for index, r := range m.logins {
		if !now.Before(r.until) {
			delete(m.logins, index)
		}
	}
}

// forget drops everything, since something changed.
func (m *memory) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	clear(m.logins)
}
