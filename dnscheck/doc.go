// Package dnscheck knows the DNS records that a mail domain needs, compares them with what is published, and says
// in one line how to mend each difference. It does not exist yet beyond this description: the README says so.
package dnscheck
