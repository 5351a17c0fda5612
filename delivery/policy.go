package delivery

import "github.com/postroom/postroom/queue"

// need is what a connection must have.
type need int

const (
	optional  need = iota // TLS is tried; nothing depends on it (RFC 7435)
	encrypted             // TLS, whatever the certificate
	named                 // TLS with a certificate that the system trusts for the host's name
	pinned                // TLS with a certificate that the TLSA records name (RFC 7672)
)

// daneState is what the DNS says about the certificates of a host.
type daneState int

const (
	daneNone     daneState = iota // nothing that a trusted resolver validated
	daneUsable                    // validated records that can be checked
	daneUnusable                  // validated records, none of which can be checked: RFC 7672 section 2.2
	daneBogus                     // the look-up failed, which is no proof that there are none: RFC 7672 section 2.1
)

// stsMode is the mode of a domain's MTA-STS policy.
type stsMode int

const (
	stsNone stsMode = iota
	stsTesting
	stsEnforce
)

// facts are what is known about a host before it is spoken to.
type facts struct {
	relay    bool // it is a smarthost
	dane     daneState
	sts      stsMode
	stsMatch bool // the MTA-STS policy names the host
	secureMX bool // a trusted resolver validated how the domain led to the host

	requireTLS  bool // the letter asks for REQUIRETLS
	tlsOptional bool // the letter says "TLS-Required: No"
}

// policy is what a connection to a host must have, and what it is called.
type policy struct {
	name       string
	need       need
	requireTLS bool // the host must offer REQUIRETLS
	testing    bool // what MTA-STS would ask for is checked, and only reported
	stsMatch   bool
	refusal    *queue.Outcome // the host must not be used at all
}

// decide says what a connection must have: DANE counts before MTA-STS, MTA-STS before nothing (RFC 8461 section 2).
func decide(f facts) policy {
	require := f.requireTLS
	switch {
	case f.relay:
		return policy{name: "relay", need: named, requireTLS: require}
	case f.tlsOptional && !require:
		// RFC 8689 section 5: what the recipient's side asks for is set aside. REQUIRETLS wins over the field (section 3).
		return policy{name: "none", need: optional}
	}
	p := recipientPolicy(f)
	if p.refusal != nil || !require {
		return p
	}
	return strengthen(p, f.secureMX)
}

// recipientPolicy is what the recipient's side asks for.
func recipientPolicy(f facts) policy {
	p := policy{name: "opportunistic", need: optional, testing: f.sts == stsTesting, stsMatch: f.stsMatch}
	switch {
	case f.dane == daneBogus:
		return policy{name: "dane", refusal: refusal(queue.Deferred, "4.7.5", "the TLSA records of the host could not be looked up")}
	case f.dane == daneUsable:
		return policy{name: "dane", need: pinned}
	case f.sts == stsEnforce && !f.stsMatch:
		return policy{name: "mta-sts", refusal: refusal(queue.Deferred, "4.7.5", "the MTA-STS policy of the domain does not name the host")}
	case f.sts == stsEnforce:
		return policy{name: "mta-sts", need: named}
	case f.dane == daneUnusable:
		p.name, p.need = "dane", encrypted
	}
	return p
}

// strengthen adds what REQUIRETLS asks for (RFC 8689 section 4.2.1): a host that was found in a way that nobody can forge, a
// certificate that was verified, and the option itself.
func strengthen(p policy, secureMX bool) policy {
	if p.need < named && !secureMX {
		return policy{name: "requiretls", refusal: refusal(queue.Failed, "5.7.30", "REQUIRETLS was asked for, and neither DNSSEC nor MTA-STS vouches for the host")}
	}
	p.name, p.need, p.requireTLS, p.testing = "requiretls", max(p.need, named), true, false
	return p
}

func refusal(status queue.Status, enhanced, text string) *queue.Outcome {
	return &queue.Outcome{Status: status, Enhanced: enhanced, Reply: text}
}

// label is the policy as an outcome shows it.
func (p policy) label() string {
	switch {
	case p.testing && !p.stsMatch:
		return p.name + "; mta-sts testing: the policy does not name the host"
	case p.testing:
		return p.name + "; mta-sts testing"
	}
	return p.name
}

// tlsMode is how TLS is tried.
type tlsMode int

const (
	anyTLS  tlsMode = iota // TLS 1.2 or later
	oldTLS                 // TLS 1.2 only, for peers that trip over TLS 1.3
	inClear                // not at all
)

// tlsFailure is what is wrong with the protection of a connection.
type tlsFailure int

const (
	noFailure    tlsFailure = iota
	notOffered              // no STARTTLS in the answer to EHLO
	notStarted              // STARTTLS was refused
	handshake               // the handshake failed, or clear text came in between
	wrongName               // the certificate is for other names
	expired                 // the certificate is not valid now
	untrusted               // nobody that we trust vouches for the certificate
	tlsaMismatch            // no TLSA record names the certificate
	noRequireTLS            // REQUIRETLS is not offered
)

// String says it in words for the sender.
func (f tlsFailure) String() string {
	switch f {
	case notOffered:
		return "the host does not offer TLS"
	case notStarted:
		return "the host refused to start TLS"
	case handshake:
		return "the TLS handshake failed"
	case wrongName:
		return "the certificate does not name the host"
	case expired:
		return "the certificate is not valid at this time"
	case untrusted:
		return "the certificate comes from nobody that is trusted"
	case tlsaMismatch:
		return "the certificate is not the one that the TLSA records name"
	case noRequireTLS:
		return "the host does not offer REQUIRETLS"
	}
	return "nothing is wrong with TLS"
}

// outcome is what a letter comes to when a policy forbids to go on after f. REQUIRETLS is the sender's own wish, so that what
// the host lacks is told at once (RFC 8689 section 4.2.1); everything else may be mended while the letter waits.
func (p policy) outcome(f tlsFailure) queue.Outcome {
	o := queue.Outcome{Status: queue.Deferred, Enhanced: "4.7.5", Reply: f.String()}
	switch {
	case f == noRequireTLS:
		o.Status, o.Enhanced = queue.Failed, "5.7.30"
	case f == notOffered && p.requireTLS:
		o.Status, o.Enhanced = queue.Failed, "5.7.10"
	case f == notOffered || f == notStarted:
		o.Enhanced = "4.7.10"
	}
	return o
}

// step is what to do next with a host.
type step int

const (
	goOn       step = iota // the connection may be used as it is
	retryOld               // again, with TLS 1.2
	retryClear             // again, without TLS
	giveUp                 // the host is not good enough for the letter
)

// String names a step for tests.
func (s step) String() string { return [...]string{"go on", "TLS 1.2", "clear", "give up"}[s] }

// after says what follows when something is wrong with the protection of a connection.
func (p policy) after(m tlsMode, f tlsFailure) step {
	switch f {
	case handshake:
		switch {
		case m == anyTLS:
			return retryOld
		case m == oldTLS && p.need == optional:
			return retryClear
		}
		return giveUp
	case notOffered, notStarted:
		return p.unless(p.need > optional)
	case wrongName, expired, untrusted:
		return p.unless(p.need == named)
	case tlsaMismatch:
		return p.unless(p.need == pinned)
	case noRequireTLS:
		return p.unless(p.requireTLS)
	}
	return goOn
}

func (p policy) unless(forbidden bool) step {
	if forbidden {
		return giveUp
	}
	return goOn
}
