package dmarc

import (
	"context"
	"strings"
)

// Result is the outcome for a letter: RFC 9989 section 9.4.
type Result string

// The results.
const (
	ResultNone      Result = "none" // no policy
	ResultPass      Result = "pass"
	ResultFail      Result = "fail"
	ResultTempError Result = "temperror"
	ResultPermError Result = "permerror" // no author domain
)

// Identifier is a domain that SPF or DKIM looked at.
type Identifier struct {
	Domain    string // lower-case A-labels
	Pass      bool
	Temporary bool // it could not be told
}

// Input is what is known of a letter.
type Input struct {
	Author string // the domain of From, in lower-case A-labels
	SPF    Identifier
	DKIM   []Identifier
}

// Evaluation is what was found.
type Evaluation struct {
	Result         Result
	Requested      Policy // what the record asks for in this case; "" where there is none
	Policy         Policy // the same, lowered for t=y: what should be done if the result is fail
	Author         string
	PolicyDomain   string // where the record is
	Organizational string // of the author
	Testing        bool
	NonExistent    bool   // the author domain does not exist
	AlignedBy      string // "dkim" or "spf", of a pass
	AlignedDomain  string
	Reason         string // a short phrase for people
}

// Evaluate finds the policy for the author domain, and whether an identifier that is aligned with it passes: RFC 9989 section
// 5.3.
func Evaluate(ctx context.Context, dns DNS, in Input) Evaluation {
	e := Evaluation{Author: strings.ToLower(strings.TrimSuffix(in.Author, "."))}
	if e.Author == "" || strings.Contains(e.Author, "..") {
		e.Result, e.Reason = ResultPermError, "there is no author domain"
		return e
	}
	w := newWalker(dns)
	policy, organizational, err := w.policyRecord(ctx, e.Author)
	switch {
	case err != nil:
		e.Result, e.Reason = ResultTempError, "the policy could not be looked up"
		return e
	case policy == nil:
		e.Result, e.Organizational = ResultNone, organizational
		return e
	}
	e.Organizational, e.PolicyDomain = organizational, policy.domain
	if err := e.choosePolicy(ctx, dns, policy); err != nil {
		e.Result, e.Reason = ResultTempError, "it could not be told whether the author domain exists"
	}
	e.align(ctx, w, policy.Record, in)
	return e
}

// choosePolicy takes p=, sp= or np=: RFC 9989 section 4.7. What cannot be told gets the stricter policy, and an error, since it
// only matters when the letter fails.
func (e *Evaluation) choosePolicy(ctx context.Context, dns DNS, policy *found) (err error) {
	e.Requested = policy.Policy
	if policy.domain != e.Author {
		exists := true
		e.Requested = policy.Subdomains
		if policy.NonExistent != policy.Subdomains {
			exists, err = dns.Exists(ctx, e.Author)
		}
		switch {
		case err != nil:
			e.Requested = stricter(policy.Subdomains, policy.NonExistent)
		case !exists:
			e.NonExistent, e.Requested = true, policy.NonExistent
		}
	}
	e.Policy, e.Testing = e.Requested, policy.Testing
	if e.Testing {
		e.Policy = e.Policy.Lower()
	}
	return err
}

// align looks for an identifier that passes and is aligned with the author domain. One that is certain decides; only where
// there is none do the failures of look-ups count.
func (e *Evaluation) align(ctx context.Context, w *walker, r Record, in Input) {
	unclear := e.Result == ResultTempError
	for _, method := range []struct {
		name        string
		identifiers []Identifier
		strict      bool
	}{{"dkim", in.DKIM, r.StrictDKIM}, {"spf", []Identifier{in.SPF}, r.StrictSPF}} {
		for _, id := range method.identifiers {
			if id.Domain == "" || !id.Pass && !id.Temporary {
				continue
			}
			aligned, err := e.aligned(ctx, w, strings.ToLower(id.Domain), method.strict)
			switch {
			case err != nil:
				unclear = true
			case aligned && id.Pass:
				e.Result, e.Reason = ResultPass, ""
				e.AlignedBy, e.AlignedDomain = method.name, id.Domain
				return
			case aligned:
				unclear = true
			}
		}
	}
	switch {
	case e.Result == ResultTempError: // and its reason stays
	case unclear:
		e.Result, e.Reason = ResultTempError, "SPF or DKIM of the author domain could not be checked"
	default:
		e.Result, e.Reason = ResultFail, "neither SPF nor DKIM passes for the author domain"
	}
}

// aligned compares a domain with the author's: RFC 9989 section 4.10.2. Strict: the same; relaxed: the same organizational
// domain.
func (e *Evaluation) aligned(ctx context.Context, w *walker, domain string, strict bool) (bool, error) {
	switch {
	case domain == e.Author:
		return true, nil
	case strict || !shareParent(domain, e.Author):
		return false, nil
	}
	organizational, err := w.organizational(ctx, domain)
	return organizational == e.Organizational, err
}

// shareParent tells whether two domains end alike: those that do not cannot have the same organizational domain, and need no
// walk.
func shareParent(a, b string) bool {
	return a[strings.LastIndexByte(a, '.')+1:] == b[strings.LastIndexByte(b, '.')+1:]
}
