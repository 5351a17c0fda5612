// Package pop3d is a POP3 server engine. It speaks the protocol over a Maildrop that a caller gives it; who may log in,
// who holds the lock of a maildrop and where messages are stored is not its business.
//
// RFC 1939 (POP3), 2449 (CAPA, response codes), 2595 and 8314 (STLS, implicit TLS), 3206 (SYS and AUTH codes), 5034 (AUTH),
// 6856 (UTF8, LANG). There is no APOP: it needs passwords that the server can read. Nothing that shows a password is
// understood before TLS, on any port.
//
// Deletions are applied at QUIT, all or none. A session that ends in any other way deletes nothing.
package pop3d
