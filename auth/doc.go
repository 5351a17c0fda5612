// Package auth proves who sent a letter: mail authentication, not logins (those are in package accounts).
//
// Its parts are SPF (RFC 7208), DKIM (RFC 6376, RFC 8463), DMARC (RFC 9989) and the Authentication-Results field
// (RFC 8601). Verify will give a Verdict for a letter that arrives, Sign will sign one that leaves. Neither exists
// yet: until they do, package inbound accepts every letter for a known recipient and says so in the README.
package auth
