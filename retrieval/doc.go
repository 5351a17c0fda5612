// Package retrieval is the fetch story: what happens between the POP3 engine and the mailbox.
//
//	connect -> login (accounts) -> the maildrop's lock -> snapshot (mailbox) -> RETR reads in pieces -> QUIT deletes, all or none
//
// The lock is exclusive, as RFC 1939 section 4 asks, and never a nuisance: a second login waits a few seconds for a session
// that is busy and takes over one that has been idle for half a minute. It is held in memory: one process serves a
// maildrop.
package retrieval
