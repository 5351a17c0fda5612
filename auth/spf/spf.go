// Package spf tells whether an address may send mail in the name of a domain: RFC 7208, for the identities of HELO and
// MAIL FROM. The evaluation itself is blitiri.com.ar/go/spf, which has the limits of section 4.6.4; this package gives it
// our resolver, with the failures of the DNS told apart, and turns what it finds into a result for people.
package spf

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	library "blitiri.com.ar/go/spf"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/resolve"
)

// Status is a result of RFC 7208 section 2.6.
type Status string

// The results.
const (
	None      Status = "none"
	Neutral   Status = "neutral"
	Pass      Status = "pass"
	Fail      Status = "fail"
	SoftFail  Status = "softfail"
	TempError Status = "temperror"
	PermError Status = "permerror"
)

// budget bounds one evaluation. RFC 7208 section 4.6.4 asks for at least 20 seconds.
const budget = 20 * time.Second

// Resolver is what an evaluation asks. Its errors are those of internal/resolve.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
	A(ctx context.Context, name string) ([]netip.Addr, error)
	AAAA(ctx context.Context, name string) ([]netip.Addr, error)
	MX(ctx context.Context, name string) ([]resolve.MX, error)
	PTR(ctx context.Context, ip netip.Addr) ([]string, error)
}

// Result is what was found for one identity.
type Result struct {
	Status Status
	Domain string // that was asked, in lower-case A-labels; "" for none
	Reason string // a short phrase for people
}

// Helo checks the name of HELO or EHLO, RFC 7208 section 2.3. A name that is no domain with a dot has no policy.
func Helo(ctx context.Context, r Resolver, ip netip.Addr, helo string) Result {
	domain, err := addr.ParseDomain(helo)
	if err != nil || !strings.Contains(domain.ASCII(), ".") {
		return Result{None, "", "the name is no domain"}
	}
	return check(ctx, r, ip, domain.ASCII(), "postmaster", domain)
}

// MailFrom checks the reverse-path, RFC 7208 section 2.4: for the null reverse-path, postmaster at the HELO name.
func MailFrom(ctx context.Context, r Resolver, ip netip.Addr, helo string, from addr.Path) Result {
	switch {
	case from.Null:
		return Helo(ctx, r, ip, helo)
	case from.Address.Domain.IsZero():
		return Result{None, "", "an address literal has no policy"}
	}
	local := from.Address.Local
	if local == "" {
		local = "postmaster" // RFC 7208 section 4.3
	}
	return check(ctx, r, ip, helo, local, from.Address.Domain)
}

func check(ctx context.Context, r Resolver, ip netip.Addr, helo, local string, domain addr.Domain) Result {
	return checkName(ctx, r, ip, helo, local, domain.ASCII())
}

func checkName(ctx context.Context, r Resolver, ip netip.Addr, helo, local, domain string) Result {
	if !ip.IsValid() {
		return Result{None, domain, "the client has no address"}
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	ip = ip.Unmap()
	found, err := library.CheckHostWithSender(ip.AsSlice(), helo, local+"@"+domain,
		library.WithContext(ctx), library.WithResolver(&adapter{r, ip}))
	result := Result{Status(found), domain, reason(err)}
	if ctx.Err() != nil { // ptr and exists take what failed for what is not there
		result.Status, result.Reason = TempError, "the look-ups took too long"
	}
	return result
}

// reason words the library's explanation for people. Text of the DNS never gets into it.
func reason(err error) string {
	for _, known := range []struct {
		err  error
		text string
	}{
		{library.ErrNoResult, "no record"},
		{library.ErrMatchedAll, "matched all"},
		{library.ErrMatchedA, "matched a"},
		{library.ErrMatchedIP, "matched the address"},
		{library.ErrMatchedMX, "matched mx"},
		{library.ErrMatchedPTR, "matched ptr"},
		{library.ErrMatchedExists, "matched exists"},
		{library.ErrLookupLimitReached, "more than 10 look-ups"},
		{library.ErrVoidLookupLimitReached, "more than 2 look-ups found nothing"},
		{library.ErrTooManyMXRecords, "more than 10 MX hosts"},
		{library.ErrMultipleRecords, "several records"},
		{library.ErrUnknownField, "unknown mechanism"},
		{library.ErrInvalidIP, "malformed address"},
		{library.ErrInvalidMask, "malformed prefix length"},
		{library.ErrInvalidMacro, "malformed macro"},
		{library.ErrInvalidDomain, "malformed domain"},
	} {
		if errors.Is(err, known.err) {
			return known.text
		}
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsTemporary {
		return "a look-up failed"
	}
	return ""
}

// adapter is the resolver as the library wants it. It asks for no addresses that could not match (RFC 7208 section 5).
type adapter struct {
	r  Resolver
	ip netip.Addr
}

func (a *adapter) LookupTXT(ctx context.Context, name string) ([]string, error) {
	records, err := a.r.TXT(ctx, name)
	return records, asDNSError(name, err)
}

func (a *adapter) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	records, err := a.r.MX(ctx, name)
	all := make([]*net.MX, len(records))
	for i, mx := range records {
		all[i] = &net.MX{Host: mx.Host, Pref: mx.Preference}
	}
	return all, asDNSError(name, err)
}

func (a *adapter) LookupIPAddr(ctx context.Context, name string) ([]net.IPAddr, error) {
	ips, err := a.r.A(ctx, name)
	if a.ip.Is6() { // the mechanism exists asks for IPv4 addresses even then, so both are needed
		more, err6 := a.r.AAAA(ctx, name)
		if err == nil && err6 != nil && !resolve.IsNotFound(err6) || err != nil && (err6 == nil || resolve.IsNotFound(err)) {
			err = err6
		}
		ips = append(ips, more...)
	}
	all := make([]net.IPAddr, len(ips))
	for i, ip := range ips {
		all[i] = net.IPAddr{IP: ip.AsSlice()}
	}
	return all, asDNSError(name, err)
}

func (a *adapter) LookupAddr(ctx context.Context, ip string) ([]string, error) {
	parsed, err := netip.ParseAddr(ip)
	if err != nil {
		return nil, asDNSError(ip, err)
	}
	names, err := a.r.PTR(ctx, parsed)
	return names, asDNSError(ip, err)
}

// asDNSError keeps "there is none" and "could not tell" apart in the way that the library understands.
func asDNSError(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case resolve.IsNotFound(err):
		return &net.DNSError{Err: "not found", Name: name, IsNotFound: true}
	}
	return &net.DNSError{Err: "failed", Name: name, IsTemporary: true}
}
