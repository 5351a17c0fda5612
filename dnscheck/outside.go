package dnscheck

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrNotTried is what Probes return that could not even try.
var ErrNotTried = errors.New("no mail server of a big provider was found")

const (
	// daysLeft is when a certificate should have been renewed: authorities that give 90 days, or 45, are asked with a third left. Of one
	// that lasts less than a month, a third of its life.
	daysLeft = 10
	// clockOff is how wrong a clock may be before something fails: TLS, signatures and logins look at it.
	clockOff, clockBad = time.Minute, 5 * time.Minute
)

// certificates looks at what each port really shows.
func (c *checker) certificates(ctx context.Context) (all []Check) {
	for _, port := range c.p.Ports {
		k := Check{ID: fmt.Sprintf("cert:%d", port), Name: fmt.Sprintf("%s:%d", c.p.Hostname, port), Type: "TLS", Required: true, Expected: []string{c.p.Hostname}}
		chain, err := c.probes.Certificate(ctx, port, c.p.Hostname)
		if err != nil || len(chain) == 0 {
			k.Status, k.Fix = Unknown, fmt.Sprintf("port %d did not show a certificate: is the server running, and nothing in its way?", port)
			all = append(all, k)
			continue
		}
		k.Found = []string{describe(chain[0])}
		d := judgeCertificate(chain, c.p.Hostname, c.roots, time.Now())
		k.Status, k.Fix = d.status, d.fix
		k.Required = port != 25 || d.status == OK // senders take any certificate, but for those who follow a policy, which is checked where it is
		all = append(all, k)
	}
	return all
}

func describe(c *x509.Certificate) string {
	return fmt.Sprintf("%s by %s until %s", strings.Join(c.DNSNames, ", "), c.Issuer.CommonName, c.NotAfter.UTC().Format(time.DateOnly))
}

// judgeCertificate says what a mail program would say of a chain, and whether it ends soon.
func judgeCertificate(chain []*x509.Certificate, name string, roots *x509.CertPool, now time.Time) verdict {
	leaf, intermediates := chain[0], x509.NewCertPool()
	for _, other := range chain[1:] {
		intermediates.AddCert(other)
	}
	_, untrusted := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: leaf.NotAfter.Add(-time.Second)})
	left := int(leaf.NotAfter.Sub(now).Hours() / 24)
	enough := min(daysLeft, int(leaf.NotAfter.Sub(leaf.NotBefore).Hours()/24/3))
	switch {
	case leaf.VerifyHostname(name) != nil:
		return verdict{Wrong, fmt.Sprintf("get a certificate for %s: the one that is shown is for %s", name, strings.Join(leaf.DNSNames, ", "))}
	case now.After(leaf.NotAfter):
		return verdict{Wrong, "renew the certificate: it ended on " + leaf.NotAfter.UTC().Format(time.DateOnly)}
	case now.Before(leaf.NotBefore):
		return verdict{Wrong, "set the clock, or wait: the certificate begins on " + leaf.NotBefore.UTC().Format(time.DateOnly)}
	case untrusted != nil:
		return verdict{Wrong, "get a certificate from an authority that mail programs know: they do not trust " + leaf.Issuer.CommonName}
	case left < enough:
		return verdict{Wrong, fmt.Sprintf("renew the certificate: it ends in %d days, and should have been renewed", left)}
	}
	return fine
}

// port25 tries whether mail can leave.
func (c *checker) port25(ctx context.Context) (all []Check) {
	for _, family := range []struct {
		name string
		six  bool
	}{{"ipv4", false}, {"ipv6", true}} {
		if len(c.p.addresses(family.six)) == 0 && (family.six || !c.p.behind(false)) {
			continue // behind NAT there is IPv4, mostly alone
		}
		k := Check{ID: "port25-out:" + family.name, Name: "port 25 of other servers", Type: "TCP", Required: (!family.six || c.only6()) && !c.p.Relayed, Status: OK}
		switch err := c.probes.Port25(ctx, family.six); {
		case errors.Is(err, ErrNotTried):
			k.Status, k.Fix = Unknown, "nobody could be called: "+err.Error()+", try again later"
		case err != nil:
			k.Status, k.Found = Wrong, []string{err.Error()}
			k.Fix = "ask the provider to open port 25 for outgoing " + family.name + ", or send through another server: `postroom relay set`"
		}
		all = append(all, k)
	}
	return all
}

// clock compares the clock of this machine with others.
func (c *checker) clock(ctx context.Context) []Check {
	k := Check{ID: "clock", Name: "clock of this machine", Type: "NTP", Status: OK}
	ahead, err := c.probes.Clock(ctx)
	if err != nil {
		k.Status, k.Fix = Unknown, "no time server answered"
		return []Check{k}
	}
	k.Found = []string{ahead.Round(time.Millisecond).String()}
	if off := ahead.Abs(); off > clockOff {
		k.Status, k.Required = Wrong, off > clockBad
		k.Fix = fmt.Sprintf("set the clock, it is %s off, and let a service such as systemd-timesyncd keep it", off.Round(time.Second))
	}
	return []Check{k}
}
