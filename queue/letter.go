package queue

import (
	"context"
	"io"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/message"
)

// Letter is a letter on its way out: what is the same for all its recipients.
type Letter struct {
	ID          message.ID
	Account     int64     // whose login handed it in; 0 for a notice of our own
	From        addr.Path // the reverse-path
	Size        int64     // octets of the content
	EightBit    bool      // the body needs 8BITMIME
	UTF8        bool      // the header or the reverse-path needs SMTPUTF8
	RequireTLS  bool      // RFC 8689 section 4
	TLSOptional bool      // "TLS-Required: No", RFC 8689 section 5
	Return      string    // RET of RFC 3461: FULL, HDRS or nothing
	EnvelopeID  string    // ENVID of RFC 3461, still in xtext
	Created     time.Time
}

// Recipient is one recipient of a letter, with a fate of its own.
type Recipient struct {
	Row      int64 // in the database; 0 before it is there
	To       addr.Path
	Notify   []string // NOTIFY of RFC 3461: NEVER, or of SUCCESS, FAILURE, DELAY; nothing was said where it is empty
	Original string   // ORCPT of RFC 3461 as it was given
	Attempts int
}

// Status is how an attempt to hand over a letter ended for one recipient.
type Status int

// The ways. Whatever is unclear is Deferred.
const (
	Deferred  Status = iota // to be tried again
	Delivered               // the other side has taken it
	Failed                  // will never be taken
)

// Outcome is one attempt for one recipient.
type Outcome struct {
	Status   Status
	Reply    string // the other side's last reply, word for word, or what happened instead of one
	Enhanced string // the enhanced status code (RFC 3463) for notices, such as "5.1.1"; never empty
	Remote   bool   // Reply is the other side's
	Host     string // that was spoken to; "" where it did not come to that
	Address  string // of that host
	TLS      string // version and cipher suite; "" for clear text
	Policy   string // that the connection had to meet: dane, mta-sts, requiretls, opportunistic, relay or none
	DSN      bool   // the other side takes DSN parameters, and so will report for itself
	Unclear  bool   // the connection was lost after the final dot: it may have been delivered
	Silent   bool   // the destination did not answer in time, which costs the queue a worker for long
}

// Deliverer hands letters to other servers.
type Deliverer interface {
	// Destination is the key under which recipients are tried together, and fail together: the domain, or the smarthost
	// that is used for it.
	Destination(ctx context.Context, l Letter, to addr.Path) (string, error)
	// Deliver tries to hand the letter over to recipients of one destination, and returns an outcome for each, in their
	// order. open gives the content from its beginning, as often as it is called. It returns soon after ctx ends.
	Deliver(ctx context.Context, l Letter, to []Recipient, open func(context.Context) (io.ReadCloser, error)) []Outcome
}

// Store keeps the content of letters, and local mailboxes, where notices to senders here go.
type Store interface {
	// Open reads the content that was held under blob.
	Open(ctx context.Context, blob int64, id message.ID) (io.ReadCloser, error)
	// Release gives up what Add was given. It belongs into the write that removes the last recipient.
	Release(tx *database.Tx, blob int64) error
	// Keep makes a notice ready, and returns what puts it into the mailboxes of a recipient here, inside a write. found
	// is false where the recipient is not here, or nobody any more.
	Keep(ctx context.Context, id message.ID, to addr.Path, content []byte) (deliver func(*database.Tx) error, found bool, err error)
	// Hold keeps the content of a notice that goes to another server, inside a write, and returns its blob.
	Hold(ctx context.Context, id message.ID, content []byte) (hold func(*database.Tx) (blob int64, err error), err error)
}

// Signer signs notices.
type Signer interface {
	// Sign returns the fields that go before the content: none where the domain has no key in use.
	Sign(ctx context.Context, domain addr.Domain, content []byte) ([]byte, error)
}
