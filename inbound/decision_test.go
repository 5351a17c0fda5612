package inbound

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postroom/postroom/auth"
	"github.com/postroom/postroom/auth/dkim"
	"github.com/postroom/postroom/auth/dmarc"
	"github.com/postroom/postroom/auth/spf"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/message"
)

// situation is a combination of everything that the decision depends on, in words.
type situation struct {
	header    string // fine, large, loop
	author    auth.AuthorProblem
	sender    auth.SenderStatus
	result    dmarc.Result
	policy    dmarc.Policy // "" where none was found
	indirect  string       // "no", "yes", or "unclear" where a look-up failed
	ours      bool
	evidence  string // of the author's domain: "exact" or "below" pass, "unsure" failed temporarily, "none"
	deceptive bool
	subjects  int
}

func (s situation) facts(t testing.TB) facts {
	t.Helper()
	domain := must(addr.ParseDomain("example.org"))
	f := facts{ours: s.ours, verdict: auth.Verdict{
		Author: auth.Author{Domain: domain, Problem: s.author}, Sender: s.sender, Indirect: s.indirect == "yes", Unclear: s.indirect == "unclear",
		SPF:   spf.Result{Status: spf.None},
		DMARC: dmarc.Evaluation{Result: s.result, Policy: s.policy, Requested: s.policy, PolicyDomain: "example.org"},
	}}
	if s.deceptive {
		f.verdict.Author.Deceptive = "it deceives"
	}
	switch s.evidence {
	case "exact":
		f.verdict.DKIM = []dkim.Result{{Status: dkim.Pass, Signature: dkim.Signature{Domain: "example.org"}}}
	case "below":
		f.verdict.SPF = spf.Result{Status: spf.Pass, Domain: "mail.example.org"}
	case "unsure":
		f.verdict.SPF = spf.Result{Status: spf.TempError, Domain: "example.org"}
	}
	fields := strings.Repeat("Subject: x\r\n", s.subjects)
	switch s.header {
	case "large":
		return f
	case "loop":
		fields += strings.Repeat("Received: x\r\n", maxReceived+1)
	}
	f.header = must(message.ReadHeader(strings.NewReader(fields+"\r\n"), message.HeaderLimits{}))
	return f
}

// policyTable is what must happen, first row that fits first, written without a look at the code: a reader of the design can
// compare it with section 6 there. The reply's beginning, "marked" or "kept".
var policyTable = []struct {
	name string
	fits func(s situation) bool
	want string
}{
	{"header over the limits", func(s situation) bool { return s.header == "large" }, "552 5.3.4"},
	{"too many hops", func(s situation) bool { return s.header == "loop" }, "554 5.4.6"},
	{"no author domain", func(s situation) bool { return s.author != "" }, "550 5.6.0"},
	{"sender's domain does not exist", func(s situation) bool { return s.sender == auth.SenderUnknown }, "550 5.1.8"},
	{"sender's domain has a null MX", func(s situation) bool { return s.sender == auth.SenderNullMX }, "550 5.7.27"},
	{"forged, reject, direct", func(s situation) bool { return s.result == "fail" && s.policy == "reject" && s.indirect == "no" }, "550 5.7.26"},
	{"sender's domain unclear", func(s situation) bool { return s.sender == auth.SenderTempError }, "451 4.4.3"},
	{"forged, reject, and whether it is direct is unclear", func(s situation) bool {
		return s.result == "fail" && s.policy == "reject" && s.indirect == "unclear"
	}, "451 4.4.3"},
	{"DMARC unclear, and the author's own domain passes", func(s situation) bool { return s.result == "temperror" && s.evidence == "exact" && s.deceptive }, "marked"},
	{"the same, honest", func(s situation) bool { return s.result == "temperror" && s.evidence == "exact" }, "kept"},
	{"DMARC unclear because of SPF, and it matters", func(s situation) bool {
		return s.result == "temperror" && s.evidence == "unsure" && (s.policy != "none" || s.ours)
	}, "451 4.7.24"},
	{"DMARC unclear, and it matters", func(s situation) bool { return s.result == "temperror" && (s.policy != "none" || s.ours) }, "451 4.4.3"},
	{"ours, unclear", func(s situation) bool { return s.ours && s.evidence == "unsure" }, "451 4.7.24"},
	{"forged, reject, indirect", func(s situation) bool { return s.result == "fail" && s.policy == "reject" }, "marked"},
	{"forged, quarantine", func(s situation) bool { return s.result == "fail" && s.policy == "quarantine" }, "marked"},
	{"ours, and nothing of it passes", func(s situation) bool { return s.ours && s.evidence == "none" }, "marked"},
	{"deceptive", func(s situation) bool { return s.deceptive }, "marked"},
	{"everything else", func(situation) bool { return true }, "kept"},
}

// TestDecide goes through every combination.
func TestDecide(t *testing.T) {
	count, used := 0, map[string]int{}
	for s := range situations() {
		count++
		for _, row := range policyTable {
			if !row.fits(s) {
				continue
			}
			used[row.name]++
			want := row.want
			if want == "marked" && s.subjects > 1 {
				want = "550 5.6.0" // there is no place for the mark that is sure to be seen
			}
			if got := outcome(decide(s.facts(t))); !strings.HasPrefix(got, want) {
				t.Fatalf("%s: %q, want %q for %+v", row.name, got, want, s)
			}
			break
		}
	}
	for _, row := range policyTable {
		if used[row.name] == 0 {
			t.Errorf("no combination is %q", row.name)
		}
	}
	t.Logf("%d combinations", count)
}

// outcome is a decision in words.
func outcome(d decision) string {
	switch {
	case !d.refusal.IsZero():
		return d.refusal.String()
	case d.suspicion != "":
		return "marked"
	}
	return "kept"
}

// situations yields every combination that can happen.
func situations() func(func(situation) bool) {
	return func(yield func(situation) bool) {
		both := []bool{false, true}
		for _, header := range []string{"fine", "large", "loop"} {
			for _, author := range []auth.AuthorProblem{"", auth.AuthorMissing, auth.AuthorRepeated, auth.AuthorDomains, auth.AuthorUnreadable} {
				for _, sender := range []auth.SenderStatus{"", auth.SenderUnknown, auth.SenderNullMX, auth.SenderTempError} {
					for _, result := range []dmarc.Result{dmarc.ResultNone, dmarc.ResultPass, dmarc.ResultFail, dmarc.ResultTempError, dmarc.ResultPermError} {
						for _, policy := range []dmarc.Policy{"", dmarc.None, dmarc.Quarantine, dmarc.Reject} {
							for _, evidence := range []string{"exact", "below", "unsure", "none"} {
								for bits := range 24 {
									s := situation{header, author, sender, result, policy, []string{"no", "yes", "unclear"}[bits%3],
										both[bits/3&1], evidence, both[bits/6&1], 1 + bits/12}
									if s.possible() && !yield(s) {
										return
									}
								}
							}
						}
					}
				}
			}
		}
	}
}

// possible leaves out what the checks never say: a policy without a record, a failure of a domain that passes.
func (s situation) possible() bool {
	switch s.result {
	case dmarc.ResultNone:
		return s.policy == ""
	case dmarc.ResultPass:
		return s.policy != "" && (s.evidence == "exact" || s.evidence == "below")
	case dmarc.ResultFail:
		return s.policy != "" && s.evidence == "none"
	}
	return true
}

// TestForgedReply shows the words that the sender of a forged letter reads.
func TestForgedReply(t *testing.T) {
	f := situation{header: "fine", result: dmarc.ResultFail, policy: dmarc.Reject, indirect: "no", evidence: "none", subjects: 1}.facts(t)
	f.verdict.SPF = spf.Result{Status: spf.Pass, Domain: "evil.example"}
	f.verdict.DKIM = []dkim.Result{{Status: dkim.Fail, Reason: "the body was changed", Signature: dkim.Signature{Domain: "example.org"}}}
	got := decide(f).refusal.String()
	for _, want := range []string{"550 5.7.26", "example.org", "DMARC policy", "SPF is pass for evil.example", "DKIM is fail (the body was changed)"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if strings.ContainsAny(fmt.Sprintf("%q", got)[1:len(got)+1], "\\") || len(got) > 400 {
		t.Errorf("got %q", got)
	}
}
