// Package wire holds what SMTP and POP3 share on the wire: the bounded CRLF line reader, the dot encoding of
// multi-line data, and the SMTP Reply. It knows no command and no connection.
//
// RFC 5321 (lines, dot encoding, replies), RFC 1939 section 3 (multi-line responses), RFC 2034 and RFC 3463 (enhanced
// status codes).
package wire
