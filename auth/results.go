package auth

import (
	"fmt"
	"strings"

	"github.com/postroom/postroom/auth/authres"
	"github.com/postroom/postroom/auth/dkim"
	"github.com/postroom/postroom/auth/dmarc"
)

// maxShown bounds the signatures that are told of.
const maxShown = 10

// Field is the verdict as an Authentication-Results field of the server: RFC 8601. extra are results of the caller's own.
func (v Verdict) Field(server string, extra ...authres.Result) authres.Field {
	f := authres.Field{ServID: server}
	if v.From.Null {
		f.Results = append(f.Results, v.spfResult("helo", v.Helo))
	} else {
		f.Results = append(f.Results, v.spfResult("mailfrom", strings.Trim(v.From.String(), "<>")), authres.Result{
			Method: "spf", Value: string(v.SPFHelo.Status), Comment: v.SPFHelo.Reason,
			Properties: []authres.Property{{Type: "smtp", Name: "helo", Value: v.Helo}},
		})
	}
	f.Results = append(f.Results, v.dkimResults()...)
	f.Results = append(f.Results, v.dmarcResult(), v.iprevResult())
	f.Results = append(f.Results, extra...)
	return f
}

func (v Verdict) spfResult(identity, value string) authres.Result {
	return authres.Result{
		Method: "spf", Value: string(v.SPF.Status), Comment: v.SPF.Reason,
		Properties: []authres.Property{{Type: "smtp", Name: identity, Value: value}},
	}
}

// dkimResults has one result per signature: RFC 8601 section 2.7.1, and RFC 6008 for header.b.
func (v Verdict) dkimResults() (all []authres.Result) {
	if len(v.DKIM) == 0 {
		return []authres.Result{{Method: "dkim", Value: "none"}}
	}
	for _, r := range v.DKIM[:min(maxShown, len(v.DKIM))] {
		result := authres.Result{Method: "dkim", Value: string(r.Status), Comment: r.Reason}
		if r.Testing {
			result.Comment = strings.TrimSpace(result.Comment + " (the key says that it is being tested)")
		}
		for _, p := range []authres.Property{
			{Type: "header", Name: "d", Value: r.Domain}, {Type: "header", Name: "s", Value: r.Selector},
			{Type: "header", Name: "a", Value: r.Algorithm}, {Type: "header", Name: "b", Value: r.Short()},
		} {
			if p.Value != "" {
				result.Properties = append(result.Properties, p)
			}
		}
		all = append(all, result)
	}
	return all
}

// dmarcResult has the policy that was asked for in its comment, as RFC 9989 section 9 and most servers show it.
func (v Verdict) dmarcResult() authres.Result {
	r := authres.Result{Method: "dmarc", Value: string(v.DMARC.Result), Comment: v.DMARC.Reason}
	if v.DMARC.Requested != "" {
		r.Comment = strings.TrimSpace(fmt.Sprintf("p=%s %s", v.DMARC.Requested, v.DMARC.Reason))
	}
	if domain := v.Author.Domain.ASCII(); domain != "" {
		r.Properties = append(r.Properties, authres.Property{Type: "header", Name: "from", Value: domain})
	}
	if v.DMARC.PolicyDomain != "" && v.DMARC.PolicyDomain != v.Author.Domain.ASCII() {
		r.Properties = append(r.Properties, authres.Property{Type: "polrec", Name: "domain", Value: v.DMARC.PolicyDomain})
	}
	return r
}

func (v Verdict) iprevResult() authres.Result {
	return authres.Result{
		Method: "iprev", Value: v.IPRev.Status, Comment: v.IPRev.Name,
		Properties: []authres.Property{{Type: "policy", Name: "iprev", Value: v.IP.Unmap().String()}},
	}
}

// String is the verdict in one line for the operator, such as
// "author example.org: dmarc=pass (p=reject) spf=pass example.org dkim=pass example.org iprev=pass".
func (v Verdict) String() string {
	var b strings.Builder
	if v.Author.Problem != AuthorFine {
		fmt.Fprintf(&b, "author %s: ", v.Author.Problem)
	} else {
		fmt.Fprintf(&b, "author %s: ", v.Author.Domain)
	}
	fmt.Fprintf(&b, "dmarc=%s", v.DMARC.Result)
	if v.DMARC.Result != dmarc.ResultNone && v.DMARC.Requested != "" {
		fmt.Fprintf(&b, " (p=%s)", v.DMARC.Requested)
	}
	fmt.Fprintf(&b, " spf=%s", v.SPF.Status)
	if v.SPF.Domain != "" {
		b.WriteString(" " + v.SPF.Domain)
	}
	if len(v.DKIM) == 0 {
		b.WriteString(" dkim=none")
	}
	for _, r := range v.DKIM[:min(maxShown, len(v.DKIM))] {
		fmt.Fprintf(&b, " dkim=%s", r.Status)
		if r.Domain != "" {
			b.WriteString(" " + r.Domain)
		}
	}
	fmt.Fprintf(&b, " iprev=%s", v.IPRev.Status)
	return b.String()
}

// Failed says in words what of the author's domain did not pass, for the reply to a forged letter.
func (v Verdict) Failed() string {
	spf := "SPF is " + string(v.SPF.Status)
	if v.SPF.Domain != "" {
		spf += " for " + v.SPF.Domain
	}
	if len(v.DKIM) == 0 {
		return spf + ", and there is no DKIM signature"
	}
	counts := map[dkim.Status]int{}
	for _, r := range v.DKIM {
		counts[r.Status]++
	}
	if passing := counts[dkim.Pass]; passing > 0 {
		return spf + ", and no DKIM signature of that domain passes"
	}
	first := v.DKIM[0]
	return fmt.Sprintf("%s, and DKIM is %s (%s)", spf, first.Status, first.Reason)
}
