// Package dnscheck knows the DNS records that a mail domain needs (Records), compares them with what is published and with what else
// the world sees of the server (Run), and says in one line how to mend each difference. It also sees to it that mail is
// signed only with keys that are published (Keys).
//
//	Profile -> Records                                     what to publish
//	Profile + DNS + Probes -> Run -> Report of Checks      what is published, and what to mend
//
// The authoritative servers are asked themselves, and the resolver only for names that they have: what the operator is about to create
// must not be remembered as missing.
package dnscheck
