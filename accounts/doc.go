// Package accounts knows the domains, accounts and aliases of this server: where an address leads, and who may log in.
//
// It does not keep mail, speak a protocol, or decide what a peer is told. Passwords are kept as bcrypt hashes, with a
// SCRAM-SHA-256 verifier beside each; logins that succeeded are remembered for five minutes in memory, under a key that
// ends with the process. What one process changes counts for routes at once, since every look-up reads the generation, and for
// remembered logins within half a second (database.DB.Watch). DKIM keys, grants and sending limits are kept here, too.
//
// RFC 8265 (passwords), 4616 (PLAIN), 5802, 7677 and 9266 (SCRAM, channel binding), 5321 section 4.5.1 (postmaster), 2142
// (abuse).
package accounts
