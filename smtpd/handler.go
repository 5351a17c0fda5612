package smtpd

import (
	"context"
	"crypto/tls"
	"io"
	"net/netip"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/limit"
	"github.com/postroom/postroom/internal/wire"
)

// The types of other packages that this API shows.
type (
	// Reply is an SMTP reply.
	Reply = wire.Reply
	// Refusal is an error with the reply that the client reads. Any other error of a hook becomes 451 4.3.0 with the
	// session's id, and is logged.
	Refusal = wire.Refusal
	// Path is the argument of MAIL FROM or RCPT TO.
	Path = addr.Path
	// Connections counts and limits the open connections of several servers.
	Connections = limit.Connections
)

// NewReply returns a reply; its enhanced status code takes the class of code.
func NewReply(code int, subject, detail uint16, lines ...string) Reply {
	return wire.NewReply(code, subject, detail, lines...)
}

// Refuse returns the error that makes the client read this reply.
func Refuse(code int, subject, detail uint16, lines ...string) error {
	return &Refusal{Reply: NewReply(code, subject, detail, lines...)}
}

// Client is what the engine knows of the other side. It belongs to the connection's goroutine: the hooks run there.
type Client struct {
	ID            string // of the session, for logs
	Remote        netip.AddrPort
	Local         netip.AddrPort
	Hello         string               // what the client called itself in HELO or EHLO, unchecked
	Extended      bool                 // it said EHLO
	TLS           *tls.ConnectionState // nil without TLS
	Authenticated bool
	Slot          *limit.Slot // of Connections, to be moved to an account; may be nil
}

// Handler is told of each connection. Its methods are called from many goroutines.
type Handler interface {
	// Connect is called before the greeting. A Refusal is sent in its place, and the connection closed.
	Connect(ctx context.Context, c *Client) (Session, error)
}

// Session follows one connection. All calls, those of its transactions included, come from one goroutine. ctx ends with
// the connection or the server.
type Session interface {
	// Hello is called for HELO and EHLO: c.Hello is new. After STARTTLS it is called again.
	Hello(ctx context.Context) error
	// Mail begins a transaction.
	Mail(ctx context.Context, m Mail) (Transaction, error)
	// Close is called once, when the connection has ended.
	Close()
}

// Authenticator is a Session of a submission server, on which clients can log in.
type Authenticator interface {
	// Mechanisms lists what EHLO offers now.
	Mechanisms() []string
	// Auth begins an exchange. A mechanism that is not offered is not asked for.
	Auth(ctx context.Context, mechanism string) (SASL, error)
}

// SASL is one authentication exchange (RFC 4422). Next gets the client's response, decoded, and nil when the client
// gave no initial one. It returns the next challenge, done when the client is authenticated (the challenge, if there is
// one, is then sent first), or an error: a Refusal with 535 5.7.8 where the credentials are wrong.
type SASL interface {
	Next(ctx context.Context, response []byte) (challenge []byte, done bool, err error)
}

// Transaction follows one message.
type Transaction interface {
	// Rcpt accepts one more recipient, unless it returns an error.
	Rcpt(ctx context.Context, r Rcpt) error
	// Data gets the message and returns the reply to it. It must read body to its end, and return the error that body
	// gives instead of io.EOF.
	Data(ctx context.Context, body io.Reader) (Reply, error)
	// Close is called once, at the transaction's end, whether Data was called or not.
	Close()
}

// Mail is the command that begins a transaction.
type Mail struct {
	From       Path
	Size       int64  // as announced, RFC 1870; 0 when it was not
	EightBit   bool   // BODY=8BITMIME, RFC 6152
	UTF8       bool   // SMTPUTF8, RFC 6531
	RequireTLS bool   // RFC 8689
	Return     string // RET of RFC 3461: FULL, HDRS or nothing; submission only
	EnvelopeID string // ENVID of RFC 3461, still in xtext; submission only
}

// Rcpt names one recipient.
type Rcpt struct {
	To       Path
	Notify   []string // NOTIFY of RFC 3461; submission only
	Original string   // ORCPT of RFC 3461 as it was given; submission only
}
