// Package dkim verifies the DKIM signatures of a letter (RFC 6376, with RFC 8301 and RFC 8463).
//
// The cryptography and the canonical forms are go-msgauth's. Around them stand guards, since a stranger chooses what they
// work on: signatures and keys are parsed and judged here first, look-ups have a deadline, and only so many octets,
// signatures and fields reach the library that no letter costs more than a second or two. A temporary failure of the DNS
// is never a pass and never a failure.
package dkim
