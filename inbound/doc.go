// Package inbound is the receive story: what happens to a letter between the SMTP engine and the mailbox. It limits,
// routes, decides, and stores or refuses; the engine knows nothing of accounts, and the store nothing of SMTP.
//
//	connect -> MAIL: room on the disk? -> RCPT: whose mailbox? -> DATA: spool -> facts -> decision -> one durable write -> 250
//
// Mail authentication (SPF, DKIM, DMARC) will add its verdict to the facts, between spool and decision. AUTH is not
// offered here: no login, no network and no address makes this port relay (RFC 5321 section 7.9).
package inbound
