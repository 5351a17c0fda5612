package dnscheck

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/auth/dkim"
	"github.com/postroom/postroom/auth/dmarc"
	"github.com/postroom/postroom/internal/resolve"
)

// dkim compares the record of each key with the key.
func (c *checker) dkim(ctx context.Context) (all []Check) {
	for _, key := range c.p.signing() {
		v := c.look(ctx, keyName(c.p, key), resolve.TypeTXT)
		k := Check{ID: "dkim:" + key.Selector, Required: key.State == accounts.KeyActive, Expected: []string{KeyRecord(key)}}
		k = c.settle(ctx, k, v, func(values []string) verdict { return judgeKeyRecord(key, values) })
		if k.Status == Missing || k.Status == Wrong {
			k.Fix = c.hint(ctx, v, k.Fix)
		}
		all = append(all, k)
	}
	return all
}

// judgeKeyRecord says what the records of a selector come to.
func judgeKeyRecord(key accounts.DKIMKey, values []string) verdict {
	err := dkim.Published(values, key.Algorithm, key.Public)
	publish := "publish what `postroom dns records` prints for " + key.Selector
	switch {
	case err == nil:
		return fine
	case len(values) == 0:
		return verdict{Missing, publish}
	case len(values) > 1:
		return verdict{Duplicate, "keep the one record of " + key.Selector + " with this key, and remove the others"}
	case strings.Contains(err.Error(), "cut off"):
		return verdict{Wrong, "the panel has cut the record off: enter it in pieces of 255, as `postroom dns records --zone` prints it"}
	}
	return verdict{Wrong, err.Error() + ": " + publish}
}

// dmarc looks at the policy: RFC 9989.
func (c *checker) dmarc(ctx context.Context) []Check {
	domain := c.p.Domain.ASCII()
	v := c.look(ctx, "_dmarc."+domain, resolve.TypeTXT)
	k := Check{ID: "dmarc", Required: true, Expected: []string{dmarcRecord(c.p)}}
	k = c.settle(ctx, k, v, func(values []string) verdict { return judgeDMARC(domain, dmarcRecord(c.p), values) })
	if k.Status != Missing {
		return []Check{c.reportsAllowed(ctx, k)}
	}
	if above := c.inherited(ctx); above != "" {
		k.Status, k.Found, k.Fix = OK, []string{above}, ""
		return []Check{k}
	}
	k.Fix = c.hint(ctx, v, k.Fix)
	return []Check{k}
}

// judgeDMARC says what the records of _dmarc come to.
func judgeDMARC(domain, suggested string, values []string) verdict {
	records := dmarcRecords(values)
	publish := fmt.Sprintf("_dmarc.%s TXT %q", domain, suggested)
	switch {
	case len(records) == 0:
		return verdict{Missing, "publish " + publish}
	case len(records) > 1:
		return verdict{Duplicate, fmt.Sprintf("keep one of the %d DMARC records of %s: several count as none", len(records), domain)}
	}
	if _, err := dmarc.ParseRecord(records[0]); err != nil {
		return verdict{Wrong, "replace it by " + publish + ": it cannot be read"}
	}
	if !strings.Contains(strings.ReplaceAll(strings.ToLower(records[0]), " ", ""), ";p=") {
		return verdict{Wrong, "replace it by " + publish + ": it has no p="} // many receivers take no record without one
	}
	return fine
}

func dmarcRecords(values []string) (all []string) {
	for _, value := range values {
		if strings.HasPrefix(strings.ToUpper(strings.ReplaceAll(value, " ", "")), "V=DMARC1") {
			all = append(all, value)
		}
	}
	return all
}

// inherited is the record of a domain above, which counts for this one: RFC 9989 section 4.10.
func (c *checker) inherited(ctx context.Context) string {
	names := dmarc.TreeWalkNames(c.p.Domain.ASCII())
	for _, name := range names[min(1, len(names)):] {
		if !strings.Contains(name, ".") {
			continue // a top-level domain has nothing to say about this one's mail that its owner could mend
		}
		if records := dmarcRecords(c.look(ctx, "_dmarc."+name, resolve.TypeTXT).values()); len(records) == 1 {
			return records[0] + " (_dmarc." + name + ")"
		}
	}
	return ""
}

// reportsAllowed looks whether those who are to get reports about the domain want them: RFC 9990 section 4.
func (c *checker) reportsAllowed(ctx context.Context, k Check) Check {
	if k.Status != OK {
		return k
	}
	domain := c.p.Domain.ASCII()
	for _, record := range dmarcRecords(k.Found) {
		r, err := dmarc.ParseRecord(record)
		if err != nil {
			continue
		}
		for _, uri := range r.AggregateTo {
			target := reportDomain(uri)
			if target == "" || c.shareOwner(ctx, target, domain) {
				continue
			}
			allowed := c.look(ctx, domain+"._report._dmarc."+target, resolve.TypeTXT)
			if len(dmarcRecords(allowed.values())) == 0 && allowed.err == nil && len(allowed.by) > 0 {
				k.Status, k.Required = Wrong, false
				k.Fix = fmt.Sprintf("send reports to an address in %s, or have %s publish %s TXT \"v=DMARC1\": it gets none otherwise", domain, target, allowed.name)
				return k
			}
		}
	}
	return k
}

// reportDomain is where reports for a URI go.
func reportDomain(uri string) string {
	address, ok := strings.CutPrefix(strings.ToLower(uri), "mailto:")
	if !ok {
		return ""
	}
	address, _, _ = strings.Cut(address, "!")
	_, domain, _ := strings.Cut(address, "@")
	return domain
}

// shareOwner tells whether two domains belong together: RFC 9989 section 4.10.
func (c *checker) shareOwner(ctx context.Context, a, b string) bool {
	if a == b || strings.HasSuffix(a, "."+b) || strings.HasSuffix(b, "."+a) {
		return true
	}
	dns := dmarc.DNS{TXT: func(ctx context.Context, name string) ([]string, error) {
		records, err := asPublished{c.dns}.TXT(ctx, name)
		if resolve.IsNotFound(err) {
			return nil, dmarc.ErrNotFound
		}
		return records, err
	}}
	above, err := dmarc.OrganizationalDomain(ctx, dns, a)
	other, otherErr := dmarc.OrganizationalDomain(ctx, dns, b)
	return err == nil && otherErr == nil && above == other
}

// tlsReports looks at where reports about encryption go: RFC 8460 section 3.
func (c *checker) tlsReports(ctx context.Context) []Check {
	v := c.look(ctx, "_smtp._tls."+c.p.Domain.ASCII(), resolve.TypeTXT)
	k := Check{ID: "tlsrpt", Expected: []string{"v=TLSRPTv1; rua=mailto:" + c.p.Reports}}
	k = c.settle(ctx, k, v, judgeTLSReports)
	if k.Status == Wrong || k.Status == Optional && len(k.Found) == 0 {
		if fix := c.hint(ctx, v, k.Fix); fix != k.Fix {
			k.Status, k.Fix = Wrong, fix
		}
	}
	return []Check{k}
}

func judgeTLSReports(values []string) verdict {
	records := slices.DeleteFunc(slices.Clone(values), func(v string) bool { return !strings.HasPrefix(v, "v=TLSRPTv1") })
	switch {
	case len(records) == 0:
		return verdict{status: Optional} // what is no such record is none to anybody
	case len(records) > 1:
		return verdict{Duplicate, "keep one of the TLSRPT records: several count as none"}
	case !strings.Contains(records[0], "rua=mailto:") && !strings.Contains(records[0], "rua=https:"):
		return verdict{Wrong, "replace it by \"v=TLSRPTv1; rua=mailto:ADDRESS\": it cannot be read"}
	}
	return fine
}
