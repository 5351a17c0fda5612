package delivery

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// check looks at the certificate of a host as far as the policy makes anything of it.
func (o *opener) check(state *tls.ConnectionState) tlsFailure {
	switch p := o.t.policy; {
	case p.need == pinned:
		if !pinnedTo(state.PeerCertificates, o.t.records, o.t.names, time.Now()) {
			return tlsaMismatch
		}
	case p.need == named, p.testing:
		return checkName(state.PeerCertificates, o.t.host, o.d.Roots, time.Now())
	}
	return noFailure
}

// checkName verifies a chain for the name of a host. RFC 8461 section 4.2, RFC 8689 section 4.2.1.
func checkName(chain []*x509.Certificate, host string, roots *x509.CertPool, now time.Time) tlsFailure {
	if len(chain) == 0 {
		return untrusted
	}
	options := x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(options)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, isName := errors.AsType[x509.HostnameError](err)
	switch {
	case err == nil:
		return noFailure
	case isName:
		return wrongName
	case isInvalid && invalid.Reason == x509.Expired:
		return expired
	}
	return untrusted
}
