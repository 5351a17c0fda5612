package message

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"strings"
	"time"
)

// ID names a letter in Received, replies, log, ledger and trace: a UUIDv7 (RFC 9562 section 5.7), written as 26 characters
// of lower-case base32 that sort by time.
type ID [16]byte

// ErrID is the error of ParseID.
var ErrID = errors.New("not a message id")

// idEncoding is the alphabet whose order is the order of the octets (RFC 4648 section 7).
var idEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

const idLength = 26

// NewID makes an id from the clock and the system's random numbers. The twelve bits after the millisecond are its fraction
// (RFC 9562 section 6.2, method 3), so that ids made one after the other in one process sort by time.
func NewID() ID {
	now := time.Now()
	var id ID
	rand.Read(id[8:]) // never fails: it ends the program instead
	fraction := uint64(now.Nanosecond()%1_000_000) << 12 / 1_000_000
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16|0x7000|fraction)
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ParseID reads what String writes, in any case.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != idLength {
		return ID{}, ErrID
	}
	lower := strings.ToLower(s)
	n, err := idEncoding.Decode(id[:], []byte(lower))
	if err != nil || n != len(id) || id.String() != lower { // the last character has two bits that must be zero
		return ID{}, ErrID
	}
	return id, nil
}

// String is the id in 26 characters.
func (id ID) String() string { return idEncoding.EncodeToString(id[:]) }

// IsZero tells whether id is none.
func (id ID) IsZero() bool { return id == ID{} }

// Time is when the id was made, to the millisecond.
func (id ID) Time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16))
}

// MarshalText makes logs and JSON show what String shows.
func (id ID) MarshalText() ([]byte, error) { return idEncoding.AppendEncode(nil, id[:]), nil }

// UnmarshalText is ParseID.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err == nil {
		*id = parsed
	}
	return err
}
