package accounts

import (
	"errors"
	"fmt"
)

// What callers tell apart. The words of the others that this package returns to an operator are in Problem.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")

	// ErrBadCredentials is a wrong name or password, and a disabled account: a peer cannot tell which.
	ErrBadCredentials = errors.New("wrong name or password")
	// ErrThrottled is for networks and accounts with too many failures. No password was looked at.
	ErrThrottled = errors.New("too many failed logins")
	// ErrWrongUse is a device password that is not good for this service.
	ErrWrongUse = errors.New("this password is not for this service")
	// ErrBusy says that too many passwords are being checked; the peer may try again.
	ErrBusy = errors.New("too many logins at once")
	// ErrMalformed is a SASL response that does not fit its mechanism.
	ErrMalformed = errors.New("malformed authentication response")
)

// Problem is why a change was refused: one sentence for the operator.
type Problem struct {
	Kind     error // ErrNotFound, ErrExists, or nil
	Sentence string
}

// Error returns the sentence.
func (p *Problem) Error() string { return p.Sentence }

// Unwrap returns the kind.
func (p *Problem) Unwrap() error { return p.Kind }

func problemf(kind error, format string, args ...any) error {
	return &Problem{kind, fmt.Sprintf(format, args...)}
}
