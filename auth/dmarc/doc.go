// Package dmarc tells whether a letter's author domain stands behind it, and what that domain asks to do where it does not:
// RFC 9989, which replaced RFC 7489 in 2026. Policies and organizational domains are found by the DNS tree walk of section
// 4.10; there is no public suffix list here.
//
// It takes the results of SPF and DKIM as they are, and decides nothing: the policy it returns is the author domain's wish. What
// could not be looked up is "temperror", unless it cannot matter.
package dmarc
