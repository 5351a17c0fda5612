// Package tlsconf gives every port its certificate, through one GetCertificate, and says which versions and cipher suites
// each kind of port takes.
//
// Certificates come from files (watched, and swapped without a restart) or from a certificate authority of our own, made
// once and kept, for trying the server out. RFC 8996 (TLS 1.2 and up), RFC 8314 section 4.1 (login ports), RFC 7525 and
// 9325 (suites).
package tlsconf
