// Package mailtest is what the tests of this project share: the dialogue runner, test certificates, and the way to the
// public test vectors.
//
// # Dialogues
//
// A dialogue file tells what a client sends and what the server must answer, one line each:
//
//	=== refuses a relay                    begins a conversation, each on a connection of its own
//	# text                                 is a comment
//	C: RCPT TO:<a@b.example>               the client sends the line, with CR LF
//	C! "DATA\n\x00"                        the client sends these octets, quoted as in Go, and nothing after them
//	C: <wait 5m>                           time passes
//	C: <starttls>                          the client begins a TLS handshake, which must succeed
//	C: <close>                             the client closes the connection
//	S: 550 5.7.1 *                         the next line of the server; * stands for any text
//	S~ 250 *                               skips lines of the server up to one that fits
//	S: <closed>                            the server closes the connection
//
// Every conversation runs over net.Pipe in a bubble of testing/synctest, so that a wait costs no time and a server that
// does not answer fails the test at once instead of hanging it.
package mailtest
