// Package web is what this server says over HTTP: how mail programs are set up, the MTA-STS policy of each domain and, on a
// port of this machine, metrics and health.
//
// It has no logins and tells nobody who exists: every address of a domain that is served here gets the same answer. Mozilla's
// autoconfig, Autodiscover (MS-OXDSCLI), Apple's configuration profiles; RFC 8461 section 3.3 (policies), RFC 8615
// (.well-known), RFC 6797 (HSTS), RFC 6186 and 8314 (SRV records).
package web
