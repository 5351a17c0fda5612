package dnscheck

import "slices"

// Status is what a check found.
type Status string

// The statuses.
const (
	OK        Status = "ok"
	Wrong     Status = "wrong"
	Missing   Status = "missing"
	Duplicate Status = "duplicate"
	Pending   Status = "pending"  // right at the authoritative servers, or at some of them, and not yet everywhere
	Optional  Status = "optional" // absent, and not required
	Unknown   Status = "unknown"  // it could not be found out
)

// Check is one finding. Its id never changes.
type Check struct {
	ID       string   `json:"id"`
	Status   Status   `json:"status"`
	Required bool     `json:"required"`
	Name     string   `json:"name"`
	Type     string   `json:"type"`
	Found    []string `json:"found"`
	Expected []string `json:"expected"`
	Fix      string   `json:"fix"` // one line that mends it; "" where there is nothing to mend
}

// Report is what is known of a domain.
type Report struct {
	Domain string  `json:"domain"`
	OK     bool    `json:"ok"` // all that is required is ok
	Checks []Check `json:"checks"`
}

// Verdict is what the checks come to.
type Verdict int

// The verdicts; their values are exit statuses.
const (
	Well   Verdict = iota // all that is required is there
	Amiss                 // something required is wrong
	Unsure                // something required could not be found out, or is not seen everywhere yet
)

// Verdict sums the checks up.
func (r Report) Verdict() Verdict {
	v := Well
	for _, c := range r.Checks {
		if !c.Required {
			continue
		}
		switch c.Status {
		case Wrong, Missing, Duplicate:
			return Amiss
		case Unknown, Pending:
			v = Unsure
		}
	}
	return v
}

// With adds the checks of an earlier report that were not made again.
func (r Report) With(earlier Report) Report {
	for _, c := range earlier.Checks {
		if !slices.ContainsFunc(r.Checks, func(own Check) bool { return own.ID == c.ID }) {
			r.Checks = append(r.Checks, c)
		}
	}
	r.OK = r.Verdict() == Well
	return r
}

// newReport puts the checks together.
func newReport(domain string, checks []Check) Report {
	r := Report{Domain: domain, Checks: checks}
	for i := range checks { // JSON has lists, empty or not
		if checks[i].Found == nil {
			checks[i].Found = []string{}
		}
		if checks[i].Expected == nil {
			checks[i].Expected = []string{}
		}
	}
	r.OK = r.Verdict() == Well
	return r
}
