package pop3d

import (
	"context"
	"crypto/tls"
	"io"
	"net/netip"

	"github.com/postroom/postroom/internal/limit"
)

// Connections counts and limits the open connections of several servers.
type Connections = limit.Connections

// Client is what the engine knows of the other side. It belongs to the connection's goroutine: the hooks run there.
type Client struct {
	ID     string // of the session, for logs
	Remote netip.AddrPort
	Local  netip.AddrPort
	TLS    *tls.ConnectionState // nil without TLS
	Slot   *limit.Slot          // of Connections, to be moved to an account; may be nil
	Wake   func()               // ends the session when it waits for a command; for any goroutine
}

// Code is a response code of RFC 2449 section 8, without its brackets.
type Code string

// The response codes that a Refusal may have.
const (
	CodeAuth    Code = "AUTH"     // RFC 3206: the credentials are wrong
	CodeInUse   Code = "IN-USE"   // RFC 2449: another session holds the maildrop
	CodeSysTemp Code = "SYS/TEMP" // RFC 3206: try again later
	CodeSysPerm Code = "SYS/PERM" // RFC 3206: somebody must mend something first
)

// Refusal is an error with the words that the client reads. Any other error of a hook becomes [SYS/TEMP] with the
// session's id, and is logged.
type Refusal struct {
	Code Code
	Text string
}

// Error returns the line that the client reads.
func (r *Refusal) Error() string { return failed(r.Code, r.Text).line() }

// Handler is told of each connection. Its methods are called from many goroutines.
type Handler interface {
	// Connect is called before the greeting. A Refusal is sent in its place, and the connection closed.
	Connect(ctx context.Context, c *Client) (Session, error)
}

// Session follows one connection. All calls come from one goroutine. ctx ends with the connection or the server.
type Session interface {
	// LogIn opens the maildrop of a name and a password.
	LogIn(ctx context.Context, name, password string) (Maildrop, error)
	// Mechanisms lists what CAPA offers now.
	Mechanisms() []string
	// Auth begins a SASL exchange. A mechanism that is not offered is not asked for.
	Auth(ctx context.Context, mechanism string) (SASL, error)
	// Close is called once, when the connection has ended, after the Maildrop was closed.
	Close()
}

// SASL is one authentication exchange (RFC 4422). Next gets the client's response, decoded, and nil when the client gave
// no initial one. It returns the next challenge, or done when the client is authenticated; a challenge is sent first even
// then. Maildrop is called once after that.
type SASL interface {
	Next(ctx context.Context, response []byte) (challenge []byte, done bool, err error)
	Maildrop(ctx context.Context) (Maildrop, error)
}

// Maildrop is the messages of an account as they were at login, held by this session alone. Messages are counted from 0
// here, and their number and sizes never change.
type Maildrop interface {
	Len() int
	// Message returns the size in octets, exactly what Open's reader will give, and the unique-id.
	Message(i int) (size int64, uidl string)
	// Open returns the message. It ends with a CR LF, or the engine adds one that the size does not count.
	Open(ctx context.Context, i int) (io.ReadCloser, error)
	// Delete removes the messages, durably, all of them or none.
	Delete(ctx context.Context, messages []int) error
	// Busy is called with true before a command runs and with false when the session waits for the next one, so that
	// another login can judge whether this session is idle. It reports false when the maildrop was taken away, or the
	// login is no longer good: the session ends. Whoever takes it away calls Client.Wake then.
	Busy(busy bool) (mine bool)
	// Close frees the maildrop for other sessions. It is called once.
	Close()
}
