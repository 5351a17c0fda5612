// Package smtpd is an SMTP server engine. It speaks the protocol and enforces its limits; who may connect, who may log
// in, which addresses exist and what happens to a message is decided by the Handler that a caller gives it. It knows no
// database, no DNS and no policy.
//
// RFC 5321 (SMTP), 1870 (SIZE), 2034 (ENHANCEDSTATUSCODES), 2920 (PIPELINING), 3030 (CHUNKING), 3207 (STARTTLS), 3461
// (DSN parameters), 4954 (AUTH), 6152 (8BITMIME), 6531 (SMTPUTF8), 8689 (REQUIRETLS), 9422 (LIMITS). DSN and AUTH are
// for submission servers only.
//
// What it promises a Handler: a message body is at its end (io.EOF) only when its end was seen, CR LF . CR LF or all
// octets of BDAT LAST. A cut connection, a time-out, a message that is too large or that holds a bare CR or LF end the
// body with another error, and whatever the Handler returns then, the client never reads a 250. No octet of a refused
// or unfinished message is ever run as a command.
package smtpd
