// Package maillog names what happens to a letter: the keys and phrases of the log, and the rows of the ledger.
//
// The log is for the operator who looks now; the ledger is for whoever asks later where a letter went. A ledger row is
// written in the same database write as the event it tells of, so that it is there exactly when the event is. Nothing
// here opens a mailbox: no password, no body, no subject.
package maillog
