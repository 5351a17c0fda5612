package dnscheck

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postroom/postroom/internal/mtasts"
	"github.com/postroom/postroom/internal/resolve"
)

// mtaSTS looks at the record that announces a policy, and at the policy: RFC 8461.
func (c *checker) mtaSTS(ctx context.Context) []Check {
	domain := c.p.Domain.ASCII()
	served := c.p.STS != "" && c.p.STS != mtasts.None
	v := c.look(ctx, "_mta-sts."+domain, resolve.TypeTXT)
	k := Check{ID: "mta-sts"}
	if served {
		k.Expected = []string{"v=STSv1; id=" + c.p.STSID}
	}
	announced := false
	k = c.settle(ctx, k, v, func(values []string) verdict {
		d := judgeSTSRecord(values, served, c.p.STSID)
		announced = announced || d.status == OK || d.status == Wrong && len(values) > 0
		return d
	})
	if k.Status == Optional && len(k.Found) == 0 || k.Status == Wrong {
		if fix := c.hint(ctx, v, k.Fix); fix != k.Fix {
			k.Status, k.Fix = Wrong, fix
		}
	}
	if c.probes == nil {
		return []Check{k}
	}
	return []Check{k, c.stsPolicy(ctx, announced)}
}

// judgeSTSRecord says what the records of _mta-sts come to. served: this server has a policy for the domain.
func judgeSTSRecord(values []string, served bool, id string) verdict {
	records := slices.DeleteFunc(slices.Clone(values), func(v string) bool { return !strings.HasPrefix(v, "v=STSv1") })
	found, err := mtasts.ParseTXT(values)
	switch {
	case len(records) == 0 && !served || len(values) == 0:
		return verdict{status: Optional} // what is no such record is none to anybody
	case len(records) > 1:
		return verdict{Duplicate, "keep one of the MTA-STS records: several count as none"}
	case err != nil:
		return verdict{Wrong, "replace it by \"v=STSv1; id=" + id + "\": it cannot be read"}
	case served && found != id:
		return verdict{Wrong, "change the id to " + id + ": others read the policy again when it changes"}
	}
	return fine
}

// dayOfPolicy is the shortest time that a policy is worth keeping for: RFC 8461 section 3.2 speaks of weeks.
const dayOfPolicy = 24 * time.Hour

// stsPolicy fetches the policy as others do, where it is announced.
func (c *checker) stsPolicy(ctx context.Context, announced bool) Check {
	domain := c.p.Domain.ASCII()
	k := Check{ID: "mta-sts-policy", Name: "https://mta-sts." + domain + "/.well-known/mta-sts.txt", Type: "HTTPS", Status: Optional}
	if !announced {
		return k
	}
	content, err := c.probes.Policy(ctx, domain)
	if err != nil {
		k.Status, k.Required = Wrong, false
		k.Fix = "make " + k.Name + " answer with a certificate for that name, or remove the record: " + err.Error()
		return k
	}
	policy, err := mtasts.ParsePolicy(content)
	if err != nil {
		k.Status, k.Fix = Wrong, "the policy cannot be read: "+err.Error()
		return k
	}
	k.Found = []string{fmt.Sprintf("mode %s, mx %s, max_age %s", policy.Mode, strings.Join(policy.MX, " "), policy.MaxAge)}
	d := judgePolicy(policy, c.hosts(ctx))
	k.Status, k.Fix = d.status, d.fix
	k.Required = d.status == Wrong && policy.Mode == mtasts.Enforce // then mail does not arrive
	return k
}

// hosts are those of the MX records.
func (c *checker) hosts(ctx context.Context) (all []string) {
	for _, value := range c.known(ctx, c.p.Domain.ASCII(), resolve.TypeMX) {
		_, host, _ := strings.Cut(value, " ")
		all = append(all, host)
	}
	return all
}

// judgePolicy holds a policy and the hosts of the MX records against each other.
func judgePolicy(p mtasts.Policy, hosts []string) verdict {
	if p.Mode == mtasts.None {
		return fine
	}
	for _, host := range hosts {
		if !p.Match(host) {
			return verdict{Wrong, "add mx: " + host + " to the policy, or remove the host from MX: it gets no mail from those who follow the policy"}
		}
	}
	for _, pattern := range p.MX {
		if !strings.HasPrefix(pattern, "*.") && len(hosts) > 0 && !slices.Contains(hosts, pattern) {
			return verdict{Wrong, "remove mx: " + pattern + " from the policy: no MX record names it"}
		}
	}
	if p.MaxAge < dayOfPolicy {
		return verdict{Wrong, "raise max_age to a week or more (604800): an attacker need only wait for its end"}
	}
	return fine
}

// dnssec asks whether the resolver validates the zone. It counts only where the way to the resolver is safe.
func (c *checker) dnssec(ctx context.Context) []Check {
	domain := c.p.Domain.ASCII()
	k := Check{ID: "dnssec", Name: domain, Type: "DS"}
	if len(c.known(ctx, domain, resolve.TypeMX)) == 0 {
		k.Status = Optional // there is nothing yet to be validated
		return []Check{k}
	}
	a, err := c.dns.Lookup(ctx, domain, resolve.TypeMX)
	switch {
	case errors.Is(err, resolve.ErrTimeout):
		k.Status, k.Fix = Unknown, "the resolver did not answer: try again later"
	case resolve.IsTemporary(err):
		k.Status, k.Required = Wrong, true
		k.Fix = "the name servers answer for " + domain + " and the resolver does not: the DS record at the registrar does not fit the zone's key, or the resolver is ill"
	case a.Secure:
		k.Status = OK
	default:
		k.Status = Optional
	}
	return []Check{k}
}

// tlsa compares the TLSA records of port 25 with the keys that are served: RFC 7672. A wrong one keeps mail away.
func (c *checker) tlsa(ctx context.Context) []Check {
	v := c.look(ctx, "_25._tcp."+c.p.Hostname, resolve.TypeTLSA)
	k := Check{ID: "tlsa", Expected: c.p.TLSA}
	k = c.settle(ctx, k, v, func(values []string) verdict { return judgeTLSA(v.name, values, c.p.TLSA) })
	if k.Status == Wrong && len(c.p.TLSA) > 0 && !slices.Contains(k.Found, c.p.TLSA[0]) {
		a, _ := c.dns.Lookup(ctx, v.name, resolve.TypeTLSA) // where it cannot be found out, nobody can either
		k.Required = a.Secure
	}
	return []Check{k}
}

// judgeTLSA says what TLSA records come to. The first of the keys is served, others will be.
func judgeTLSA(name string, values, keys []string) verdict {
	switch {
	case len(values) == 0:
		return verdict{status: Optional}
	case len(keys) == 0:
		return verdict{Wrong, "remove the TLSA records of " + name + ": there is no key here that they could fit"}
	case !slices.ContainsFunc(values, func(v string) bool { return strings.HasPrefix(v, "3 1 1 ") }):
		return verdict{Unknown, "publish " + name + " TLSA " + keys[0] + " as well: records of this kind are not compared here"}
	case !slices.Contains(values, keys[0]):
		return verdict{Wrong, "publish " + name + " TLSA " + keys[0] + ": the records are those of other keys"}
	}
	for _, value := range values {
		if !slices.Contains(keys, value) && strings.HasPrefix(value, "3 1 1 ") {
			return verdict{Wrong, "remove " + name + " TLSA " + value + ": no key here fits it"}
		}
	}
	return fine
}

// caa looks for who may make certificates for the host: RFC 8659 section 3, the nearest name with records counts.
func (c *checker) caa(ctx context.Context) []Check {
	k := Check{ID: "caa", Name: c.p.Hostname, Type: "CAA", Status: Optional, Expected: []string{}}
	for _, ca := range c.p.CAs {
		k.Expected = append(k.Expected, fmt.Sprintf("0 issue %q", ca))
	}
	for name := c.p.Hostname; strings.Contains(name, "."); _, name, _ = strings.Cut(name, ".") {
		v := c.look(ctx, name, resolve.TypeCAA)
		if len(v.values()) == 0 && !v.split() && (len(v.by) > 0 || len(c.known(ctx, name, resolve.TypeCAA)) == 0) {
			continue
		}
		k = c.settle(ctx, k, v, func(values []string) verdict { return judgeCAA(name, values, c.p.CAs) })
		k.Required = k.Status == Wrong
		return []Check{k}
	}
	return []Check{k}
}

// judgeCAA says whether the records let one of the authorities issue.
func judgeCAA(name string, values, cas []string) verdict {
	restricted := false
	for _, value := range values {
		rest, ok := strings.CutPrefix(value, "0 issue ")
		if !ok {
			if rest, ok = strings.CutPrefix(value, "128 issue "); !ok {
				continue
			}
		}
		restricted = true
		issuer, _, _ := strings.Cut(strings.Trim(rest, `"`), ";")
		if slices.Contains(cas, strings.ToLower(strings.TrimSpace(issuer))) {
			return fine
		}
	}
	if !restricted || len(cas) == 0 {
		return fine
	}
	return verdict{Wrong, fmt.Sprintf("publish %s CAA 0 issue %q: the records there forbid it to make certificates", name, cas[0])}
}
