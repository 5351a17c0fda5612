package auth

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/postroom/postroom/auth/dkim"
	"github.com/postroom/postroom/auth/dmarc"
	"github.com/postroom/postroom/auth/spf"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/resolve"
)

// Deadlines of the checks. SPF has the one that its RFC wants.
const (
	envelopeBudget = 20 * time.Second
	policyBudget   = 10 * time.Second
)

// Resolver is what a Verifier asks; *resolve.Resolver is one. Its errors are those of internal/resolve.
type Resolver interface {
	spf.Resolver
	IP(ctx context.Context, name string) ([]netip.Addr, error)
}

// Envelope is what is known of a letter before its content.
type Envelope struct {
	IP   netip.Addr // of the client
	Helo string     // what it called itself
	From addr.Path
}

// Letter is the content of a letter with its header.
type Letter = dkim.Letter

// SenderStatus tells whether mail could be sent back to the domain of the reverse-path.
type SenderStatus string

// What is found of a reverse-path's domain.
const (
	SenderFine      SenderStatus = ""
	SenderUnknown   SenderStatus = "no such domain"
	SenderNullMX    SenderStatus = "null MX" // RFC 7505: it sends and takes no mail
	SenderTempError SenderStatus = "temperror"
)

// IPRev is the client's name, confirmed both ways: RFC 8601 section 3.
type IPRev struct {
	Status string // pass, fail, temperror or permerror
	Name   string // of a pass
}

// Verdict is all that was found of a letter.
type Verdict struct {
	Author   Author
	From     addr.Path // the reverse-path that was checked
	Helo     string
	IP       netip.Addr
	SPF      spf.Result // of MAIL FROM; of HELO where the reverse-path is null
	SPFHelo  spf.Result
	DKIM     []dkim.Result
	DMARC    dmarc.Evaluation
	IPRev    IPRev
	Sender   SenderStatus
	Indirect bool // signs of a mailing list or a forwarder, with a domain that stands for it
	Unclear  bool // the same signs, and a domain that might stand for it had no look-up failed
}

// Verifier checks letters. It may be used by many goroutines.
type Verifier struct {
	DNS Resolver

	keys dkim.Keys
}

// Verify checks a letter that is there as a whole.
func (v *Verifier) Verify(ctx context.Context, e Envelope, l Letter) Verdict {
	c := v.Begin(ctx, e)
	defer c.Close()
	return c.Finish(ctx, l)
}

// Check is the check of one letter. Finish may be called once, and Close must be.
type Check struct {
	v       *Verifier
	cancel  context.CancelFunc
	wait    sync.WaitGroup
	verdict Verdict // each field is written by one goroutine, and read after wait
}

// Begin starts the look-ups that the envelope allows. They end with ctx, after a deadline, or with Close.
func (v *Verifier) Begin(ctx context.Context, e Envelope) *Check {
	ctx, cancel := context.WithTimeout(ctx, envelopeBudget)
	c := &Check{v: v, cancel: cancel, verdict: Verdict{From: e.From, Helo: e.Helo, IP: e.IP}}
	c.wait.Go(func() { c.verdict.SPFHelo = spf.Helo(ctx, v.DNS, e.IP, e.Helo) })
	c.wait.Go(func() { c.verdict.SPF = spf.MailFrom(ctx, v.DNS, e.IP, e.Helo, e.From) })
	c.wait.Go(func() { c.verdict.IPRev = v.ipRev(ctx, e.IP) })
	c.wait.Go(func() { c.verdict.Sender = v.sender(ctx, e.From) })
	if domain := e.From.Address.Domain; !domain.IsZero() {
		// Most letters' author is in this domain: its policy will be in the cache.
		c.wait.Go(func() { _, _ = v.DNS.TXT(ctx, "_dmarc."+domain.ASCII()) })
	}
	return c
}

// Close ends what Begin started and waits for it.
func (c *Check) Close() {
	c.cancel()
	c.wait.Wait()
}

// Finish reads the letter and gives the verdict.
func (c *Check) Finish(ctx context.Context, l Letter) Verdict {
	author := ReadAuthor(l.Header)
	results := dkim.Verify(ctx, l, dkim.Options{TXT: c.v.DNS.TXT, Prefer: func(domain string) bool {
		return !author.Domain.IsZero() && near(domain, author.Domain)
	}, Keys: &c.v.keys})
	c.wait.Wait()
	c.cancel()
	verdict := c.verdict
	verdict.Author, verdict.DKIM = author, results
	passedOn := l.Header.Count("List-Id") > 0 || l.Header.Count("ARC-Seal") > 0
	verdict.Indirect = passedOn && verdict.anyPass()
	verdict.Unclear = passedOn && !verdict.Indirect && verdict.anyTempError()
	ctx, cancel := context.WithTimeout(ctx, policyBudget)
	defer cancel()
	verdict.DMARC = dmarc.Evaluate(ctx, c.v.policyDNS(), verdict.identifiers())
	return verdict
}

// anyPass tells whether some domain answers for the letter.
func (v Verdict) anyPass() bool {
	return v.SPF.Status == spf.Pass || v.SPFHelo.Status == spf.Pass || slices.ContainsFunc(v.DKIM, passed)
}

// anyTempError tells whether some domain might have answered for it.
func (v Verdict) anyTempError() bool {
	return v.SPF.Status == spf.TempError || v.SPFHelo.Status == spf.TempError ||
		slices.ContainsFunc(v.DKIM, func(r dkim.Result) bool { return r.Status == dkim.TempError })
}

func passed(r dkim.Result) bool { return r.Status == dkim.Pass }

// Authenticates tells whether a domain that has to do with the given one passes: the domain itself, one below or above it.
func (v Verdict) Authenticates(domain addr.Domain) bool {
	return v.SPF.Status == spf.Pass && near(v.SPF.Domain, domain) ||
		slices.ContainsFunc(v.DKIM, func(r dkim.Result) bool { return passed(r) && near(r.Domain, domain) })
}

// MightAuthenticate tells whether Authenticates could be true had no look-up failed.
func (v Verdict) MightAuthenticate(domain addr.Domain) bool {
	return v.SPF.Status == spf.TempError && near(v.SPF.Domain, domain) ||
		slices.ContainsFunc(v.DKIM, func(r dkim.Result) bool { return r.Status == dkim.TempError && near(r.Domain, domain) })
}

// near tells whether a name is the domain, below or above it.
func near(name string, domain addr.Domain) bool {
	d, err := addr.ParseDomain(name)
	return err == nil && related(d, domain)
}

// Certain tells whether the domain itself passes, whatever look-ups failed.
func (v Verdict) Certain(domain addr.Domain) bool {
	return v.SPF.Status == spf.Pass && v.SPF.Domain == domain.ASCII() ||
		slices.ContainsFunc(v.DKIM, func(r dkim.Result) bool { return passed(r) && r.Domain == domain.ASCII() })
}

// identifiers are what DMARC aligns with the author: RFC 9989 section 4.4.
func (v Verdict) identifiers() dmarc.Input {
	in := dmarc.Input{
		Author: v.Author.Domain.ASCII(),
		SPF:    dmarc.Identifier{Domain: v.SPF.Domain, Pass: v.SPF.Status == spf.Pass, Temporary: v.SPF.Status == spf.TempError},
	}
	for _, r := range v.DKIM {
		if r.Domain != "" {
			in.DKIM = append(in.DKIM, dmarc.Identifier{Domain: r.Domain, Pass: passed(r), Temporary: r.Status == dkim.TempError})
		}
	}
	return in
}

// policyDNS is the resolver as DMARC wants it.
func (v *Verifier) policyDNS() dmarc.DNS {
	return dmarc.DNS{
		TXT: func(ctx context.Context, name string) ([]string, error) {
			records, err := v.DNS.TXT(ctx, name)
			if err != nil && resolve.IsNotFound(err) {
				return nil, dmarc.ErrNotFound
			}
			return records, err
		},
		// RFC 9989 section 3.2.13: only NXDOMAIN says that a domain does not exist.
		Exists: func(ctx context.Context, name string) (bool, error) {
			_, err := v.DNS.A(ctx, name)
			switch {
			case err == nil || errors.Is(err, resolve.ErrNoData):
				return true, nil
			case errors.Is(err, resolve.ErrNotFound):
				return false, nil
			}
			return false, err
		},
	}
}

// sender looks at the domain of the reverse-path.
func (v *Verifier) sender(ctx context.Context, from addr.Path) SenderStatus {
	if from.Address.Domain.IsZero() {
		return SenderFine
	}
	records, err := v.DNS.MX(ctx, from.Address.Domain.ASCII())
	switch {
	case err == nil && len(records) == 1 && records[0].Host == "":
		return SenderNullMX
	case err == nil || errors.Is(err, resolve.ErrNoData):
		return SenderFine
	case errors.Is(err, resolve.ErrNotFound):
		return SenderUnknown
	}
	return SenderTempError
}

// maxNames bounds the names of one address that are confirmed, as RFC 7208 section 4.6.4 does for ptr.
const maxNames = 10

// ipRev looks up the client's name and whether it has the client's address: RFC 8601 section 3.
func (v *Verifier) ipRev(ctx context.Context, ip netip.Addr) IPRev {
	if !ip.IsValid() {
		return IPRev{Status: "permerror"}
	}
	ip = ip.Unmap()
	names, err := v.DNS.PTR(ctx, ip)
	switch {
	case resolve.IsNotFound(err):
		return IPRev{Status: "permerror"}
	case err != nil:
		return IPRev{Status: "temperror"}
	}
	status := "fail"
	for _, name := range names[:min(maxNames, len(names))] {
		ips, err := v.DNS.IP(ctx, name)
		switch {
		case slices.Contains(ips, ip):
			return IPRev{Status: "pass", Name: name}
		case err != nil && !resolve.IsNotFound(err):
			status = "temperror"
		}
	}
	return IPRev{Status: status}
}
