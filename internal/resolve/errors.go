package resolve

import "errors"

// The kinds of failure.
var (
	ErrNotFound = errors.New("no such domain")    // NXDOMAIN: RFC 8020, nothing below it exists either
	ErrNoData   = errors.New("no such record")    // the name exists, without a record of this type
	ErrServer   = errors.New("the server failed") // SERVFAIL, REFUSED, or an answer that cannot be read
	ErrTimeout  = errors.New("no answer in time")
)

// Error is a failed look-up.
type Error struct {
	Kind   error  // one of the kinds above
	Name   string // that was asked for
	Type   string
	Detail string // for the log; may be ""
}

func (e *Error) Error() string {
	text := "look up " + e.Type + " of " + e.Name + ": " + e.Kind.Error()
	if e.Detail != "" {
		text += " (" + e.Detail + ")"
	}
	return text
}

// Unwrap gives the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Temporary tells whether a later try may end differently.
func (e *Error) Temporary() bool { return !IsNotFound(e) }

// Timeout implements net.Error.
func (e *Error) Timeout() bool { return e.Kind == ErrTimeout }

// IsNotFound tells whether err says for sure that there is no such record.
func IsNotFound(err error) bool { return errors.Is(err, ErrNotFound) || errors.Is(err, ErrNoData) }

// IsTemporary tells whether err says that it could not be told. Everything that is not a fact is temporary.
func IsTemporary(err error) bool { return err != nil && !IsNotFound(err) }
