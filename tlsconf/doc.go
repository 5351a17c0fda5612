// Package tlsconf gives every port its certificate, through one GetCertificate, and says which versions and cipher suites
// each kind of port takes.
//
// Certificates come from files (watched, and swapped without a restart), from a certificate authority of our own, made
// once and kept, for trying the server out, or from a public authority over ACME: ordered, renewed with the same key, and shared
// between nodes through the database. What an authority would refuse is found out before it is asked.
//
// RFC 8996 (TLS 1.2 and up), RFC 8314 section 4.1 (login ports), RFC 7525 and 9325 (suites), RFC 8555 and 8737 (ACME), RFC 8659
// and 8657 (CAA), RFC 2136 and 8945 (challenges in the DNS), RFC 7671 section 8 (rolling keys).
package tlsconf
