// Package dnscheck knows the DNS records that a mail domain needs, and compares them with what is published. So far these are the
// DKIM keys: new ones sign only once the world can see them. The rest does not exist yet: the README says so.
package dnscheck
