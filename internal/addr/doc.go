// Package addr parses mailbox addresses, domains and SMTP paths once, strictly, into comparable values.
//
// It knows the envelope's grammar only: RFC 5321 section 4.1.2 and 4.1.3 (mailboxes, paths, address literals), RFC 6531
// section 3.3 (UTF-8 local parts, U-labels) and RFC 5891/UTS 46 (the A-label form of a domain). It does not read the
// address lists of message headers with their comments and groups (RFC 5322), and it never asks the DNS.
//
// Three forms of an address serve three ends: String is what goes over the wire, Key is what two spellings of one
// mailbox have in common, and Unicode is for people.
package addr

import "errors"

// The two kinds of refusal. Every error of this package is one of them, with a reason in plain English that never
// repeats what the peer sent, so that the text may be shown to it.
var (
	ErrSyntax  = errors.New("not an address")
	ErrTooLong = errors.New("address too long")
)

// Error is a refused address: its kind and the reason.
type Error struct {
	Kind   error // ErrSyntax or ErrTooLong
	Reason string
}

func (e *Error) Error() string { return e.Reason }

func (e *Error) Unwrap() error { return e.Kind }

func syntax(reason string) error { return &Error{ErrSyntax, reason} }

func tooLong(reason string) error { return &Error{ErrTooLong, reason} }

// Limits in octets.
const (
	maxLocal   = 64   // RFC 5321 section 4.5.3.1.1
	maxDomain  = 253  // RFC 5321 section 4.5.3.1.2 says 255: that is the DNS wire form, 253 when written
	maxPath    = 256  // RFC 5321 section 4.5.3.1.3, with the angle brackets
	maxMailbox = 254  // what a path leaves for the mailbox in it (RFC 3696 erratum 1690)
	maxLabel   = 63   // RFC 1035 section 2.3.4
	maxWritten = 1012 // a domain as written, before U-labels become A-labels: 253 code points of four octets
)
