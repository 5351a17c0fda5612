// Package auth tells who sent a letter: mail authentication, not logins.
//
// Verify asks everything that the DNS and the letter can tell (SPF, DKIM, DMARC, the client's name) and gives one Verdict.
// It decides nothing: what happens to a letter with such a verdict is the receiver's policy. A temporary failure is always
// its own result, never a pass and never a failure.
//
//	envelope -> Begin: SPF of HELO and MAIL FROM, iprev, the sender's domain    (while the letter arrives)
//	letter   -> Finish: author -> DKIM -> DMARC -> Verdict                       (from the spool)
//
// RFCs: 7208 (SPF), 6376 (DKIM), 9989 (DMARC), 8601 (the results and their field).
package auth
