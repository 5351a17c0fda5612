// Package submission is the send story: who may send as whom, what a letter lacks, its signatures, and the one durable write
// that puts it into mailboxes here and into the queue for the rest of the world.
//
//	login -> MAIL: may this account send as that address? -> RCPT: here, or elsewhere?
//	DATA: spool -> author -> complete -> sign -> one write: mailboxes + queue + ledger -> 250
//
// Where a letter came from (client address, host name, login) is in the log and in the ledger, and leaves in no field.
// RFCs: 6409 (submission), 4954 (AUTH), 3461 (DSN), 8314 (TLS), 8689 (REQUIRETLS).
package submission
