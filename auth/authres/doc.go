// Package authres writes and reads the Authentication-Results field, in which a mail server tells the programs behind it
// what it found out about a letter, and finds the fields that pretend to be from us.
//
// Much of what goes into the field was chosen by the sender of the letter: a mail from address, a domain in a signature,
// a sentence from a DNS record. Field.Append writes one well-formed field whatever these hold. Who reads the field trusts
// it by the name at its start, the authserv-id, so a server removes what came from outside under its own name (RFC 8601
// section 5): Names decides that, and errs on the side of removing.
//
// The package checks no signature and no policy, and it does not know which methods and results are registered.
//
// RFCs: 8601 (the field), 5322 (folding, comments), 2045 section 5.1 (token), 6532 (UTF-8 in fields).
package authres
