// Package dkim verifies and makes the DKIM signatures of a letter (RFC 6376, with RFC 8301 and RFC 8463).
//
// A stranger chooses what a verifier works on, so all of it is bounded and takes time in proportion to the letter: signatures and
// keys are parsed and judged first, look-ups have a deadline, the body is hashed once for each canonical form, however many
// signatures there are, and no letter costs more than a second. A temporary failure of the DNS is never a pass and never a
// failure. Signing is go-msgauth's, which is also what the tests compare with.
package dkim
