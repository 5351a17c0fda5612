// Package inbound is the receive story: what happens to a letter between the SMTP engine and the mailbox. It limits,
// routes, decides, and stores or refuses; the engine knows nothing of accounts, and the store nothing of SMTP.
//
//	connect -> MAIL: room on the disk? -> RCPT: whose mailbox? -> DATA: spool -> facts -> decision -> one durable write -> 250
//
// What package auth found out about the sender (SPF, DKIM, DMARC) is among the facts; decision.go is the policy. AUTH is not
// offered here: no login, no network and no address makes this port relay (RFC 5321 section 7.9).
package inbound
