package dmarc

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// passes and unclear name identifiers: "dkim:example.org", "spf:example.org".
type letter struct {
	author  string
	passes  []string
	unclear []string
}

func (l letter) input() Input {
	in := Input{Author: l.author}
	add := func(names []string, id Identifier) {
		for _, n := range names {
			method, domain, _ := strings.Cut(n, ":")
			id.Domain = domain
			if method == "spf" {
				in.SPF = id
			} else {
				in.DKIM = append(in.DKIM, id)
			}
		}
	}
	add(l.passes, Identifier{Pass: true})
	add(l.unclear, Identifier{Temporary: true})
	return in
}

// records are the zone of a test: "domain record", "domain -" for one that exists without a record, "domain !" for one
// whose record cannot be looked up, "domain ?" for one of which it cannot be told whether it exists.
func records(lines ...string) *fake {
	f := &fake{txt: map[string][]string{}, exists: map[string]bool{}, fails: map[string]bool{}}
	for _, line := range lines {
		domain, text, _ := strings.Cut(line, " ")
		switch text {
		case "-":
			f.exists[domain] = true
		case "!":
			f.fails["_dmarc."+domain] = true
		case "?":
			f.fails[domain] = true
		default:
			f.txt["_dmarc."+domain] = append(f.txt["_dmarc."+domain], text)
			f.exists[domain] = true
		}
	}
	return f
}

// TestEvaluate is RFC 9989 as a table. want is the result, with the policy that a failure meets, and where it was found.
func TestEvaluate(t *testing.T) {
	const deep = "a.b.c.d.e.f.g.h.i.j.k.mail.example.com"
	for _, tc := range []struct {
		name string
		zone *fake
		l    letter
		want string
	}{
		// Section 4.10.1: where the policy is.
		{"own record", records("example.com v=DMARC1; p=reject"), letter{author: "example.com"}, "fail reject example.com"},
		{"no record anywhere", records("example.com -"), letter{author: "example.com"}, "none"},
		{"record of the organizational domain", records("example.com v=DMARC1; p=reject", "mail.example.com -"), letter{author: "mail.example.com"}, "fail reject example.com"},
		{"the nearest but one does not count", records("example.com v=DMARC1; p=quarantine", "b.example.com v=DMARC1; p=reject", "a.b.example.com -"),
			letter{author: "a.b.example.com"}, "fail quarantine example.com"},
		{"own record before the organizational domain's", records("example.com v=DMARC1; p=reject", "mail.example.com v=DMARC1; p=none"), letter{author: "mail.example.com"}, "fail none mail.example.com"},
		{"record of a public suffix", records("bank v=DMARC1; p=reject; psd=y", "example.bank -"), letter{author: "example.bank"}, "fail reject bank"},
		{"own record below a public suffix", records("bank v=DMARC1; p=reject; psd=y", "example.bank v=DMARC1; p=none"), letter{author: "example.bank"}, "fail none example.bank"},
		{"the public suffix itself writes", records("bank v=DMARC1; p=reject; psd=y"), letter{author: "bank"}, "fail reject bank"},
		{"psd=n ends the walk", records("com v=DMARC1; p=reject", "example.com v=DMARC1; p=none; psd=n", "mail.example.com -"), letter{author: "mail.example.com"}, "fail none example.com"},
		{"psd=n below the organizational domain", records("example.com v=DMARC1; p=none", "dept.example.com v=DMARC1; p=reject; psd=n", "x.dept.example.com -"),
			letter{author: "x.dept.example.com"}, "fail reject dept.example.com"},
		{"a top-level record without psd is organizational", records("example v=DMARC1; p=reject", "a.example -"), letter{author: "a.example"}, "fail reject example"},
		{"more than eight labels", records("example.com v=DMARC1; p=reject", deep+" -"), letter{author: deep}, "fail reject example.com"},
		{"more than eight labels, a record in the part that is skipped", records("b.c.d.e.f.g.h.i.j.k.mail.example.com v=DMARC1; p=reject", deep+" -"), letter{author: deep}, "none"},
		{"more than eight labels, own record", records(deep + " v=DMARC1; p=reject"), letter{author: deep}, "fail reject " + deep},
		// Section 4.7: which of p, sp and np.
		{"sp", records("example.com v=DMARC1; p=reject; sp=quarantine", "a.example.com -"), letter{author: "a.example.com"}, "fail quarantine example.com"},
		{"sp is not for the domain itself", records("example.com v=DMARC1; p=quarantine; sp=reject"), letter{author: "example.com"}, "fail quarantine example.com"},
		{"np for a domain that does not exist", records("example.com v=DMARC1; p=none; sp=none; np=reject"), letter{author: "no.example.com"}, "fail reject example.com"},
		{"np is not for one that exists", records("example.com v=DMARC1; p=none; np=reject", "a.example.com -"), letter{author: "a.example.com"}, "fail none example.com"},
		{"np defaults to sp", records("example.com v=DMARC1; p=none; sp=quarantine"), letter{author: "no.example.com"}, "fail quarantine example.com"},
		{"sp defaults to p", records("example.com v=DMARC1; p=quarantine"), letter{author: "no.example.com"}, "fail quarantine example.com"},
		{"np of a public suffix", records("bank v=DMARC1; p=none; psd=y; np=reject"), letter{author: "no.bank"}, "fail reject bank"},
		{"whether it exists cannot be told, and matters", records("example.com v=DMARC1; p=none; np=reject", "x.example.com ?"), letter{author: "x.example.com"}, "temperror"},
		{"whether it exists cannot be told, and does not matter", records("example.com v=DMARC1; p=none; np=none", "x.example.com ?"), letter{author: "x.example.com"}, "fail none example.com"},
		{"whether it exists cannot be told, and it passes", records("example.com v=DMARC1; p=none; np=reject", "x.example.com ?"),
			letter{author: "x.example.com", passes: []string{"dkim:x.example.com"}}, "pass x.example.com"},
		{"t=y lowers reject", records("example.com v=DMARC1; p=reject; t=y"), letter{author: "example.com"}, "fail quarantine example.com"},
		{"t=y lowers quarantine", records("example.com v=DMARC1; p=quarantine; t=y"), letter{author: "example.com"}, "fail none example.com"},
		{"t=n", records("example.com v=DMARC1; p=reject; t=n"), letter{author: "example.com"}, "fail reject example.com"},
		{"pct is history", records("example.com v=DMARC1; p=reject; pct=0"), letter{author: "example.com"}, "fail reject example.com"},
		// Section 4.10: what counts as a record.
		{"two records", records("example.com v=DMARC1; p=reject", "example.com v=DMARC1; p=none"), letter{author: "example.com"}, "none"},
		{"two records, one broken", records("example.com v=DMARC1; p=reject", "example.com v=DMARC1"), letter{author: "example.com"}, "none"},
		{"something else beside it", records("example.com v=DMARC1; p=reject", "example.com hello"), letter{author: "example.com"}, "fail reject example.com"},
		{"two records below, one above", records("example.com v=DMARC1; p=reject", "a.example.com v=DMARC1; p=none", "a.example.com v=DMARC1; p=none"),
			letter{author: "a.example.com"}, "fail reject example.com"},
		{"a record without a policy", records("example.com v=DMARC1"), letter{author: "example.com"}, "none"},
		{"a record that only wants reports", records("example.com v=DMARC1; rua=mailto:a@example.com"), letter{author: "example.com"}, "fail none example.com"},
		// Section 4.4 and 4.10.2: alignment.
		{"DKIM, the same", records("example.com v=DMARC1; p=reject"), letter{"example.com", []string{"dkim:example.com"}, nil}, "pass example.com"},
		{"SPF, the same", records("example.com v=DMARC1; p=reject"), letter{"example.com", []string{"spf:example.com"}, nil}, "pass example.com"},
		{"case does not count", records("example.com v=DMARC1; p=reject; adkim=s"), letter{"Example.COM", []string{"dkim:EXAMPLE.com"}, nil}, "pass EXAMPLE.com"},
		{"a name below", records("example.com v=DMARC1; p=reject"), letter{"example.com", []string{"dkim:a.b.example.com"}, nil}, "pass a.b.example.com"},
		{"a name above", records("example.com v=DMARC1; p=reject", "a.example.com -"), letter{"a.example.com", []string{"spf:example.com"}, nil}, "pass example.com"},
		{"a sibling", records("example.com v=DMARC1; p=reject", "a.example.com -"), letter{"a.example.com", []string{"dkim:b.example.com"}, nil}, "pass b.example.com"},
		{"a sibling, strict", records("example.com v=DMARC1; p=reject; adkim=s"), letter{"a.example.com", []string{"dkim:b.example.com"}, nil}, "fail reject example.com"},
		{"strict for DKIM is not strict for SPF", records("example.com v=DMARC1; p=reject; adkim=s", "a.example.com -"), letter{"a.example.com", []string{"spf:b.example.com"}, nil}, "pass b.example.com"},
		{"strict for SPF", records("example.com v=DMARC1; p=reject; aspf=s"), letter{"a.example.com", []string{"spf:b.example.com"}, nil}, "fail reject example.com"},
		{"siblings below a public suffix", records("bank v=DMARC1; p=none; psd=y", "a.bank v=DMARC1; p=reject", "b.bank v=DMARC1; p=reject"),
			letter{"a.bank", []string{"dkim:b.bank"}, nil}, "fail reject a.bank"},
		{"siblings below a public suffix without records of their own", records("bank v=DMARC1; p=reject; psd=y"), letter{"a.bank", []string{"dkim:b.bank"}, nil}, "fail reject bank"},
		{"below one's own name, below a public suffix", records("bank v=DMARC1; p=reject; psd=y"), letter{"a.bank", []string{"dkim:mail.a.bank"}, nil}, "pass mail.a.bank"},
		{"psd=n divides", records("example.com v=DMARC1; p=reject", "dept.example.com v=DMARC1; p=reject; psd=n"), letter{"example.com", []string{"dkim:dept.example.com"}, nil}, "fail reject example.com"},
		{"the name that ends alike is another one", records("example.com v=DMARC1; p=reject"), letter{"example.com", []string{"dkim:notexample.com"}, nil}, "fail reject example.com"},
		{"another domain", records("example.com v=DMARC1; p=reject", "evil.example v=DMARC1; p=none"), letter{"example.com", []string{"dkim:evil.example", "spf:evil.example"}, nil}, "fail reject example.com"},
		{"the second signature", records("example.com v=DMARC1; p=reject"), letter{"example.com", []string{"dkim:list.example", "dkim:example.com"}, nil}, "pass example.com"},
		{"an internationalized domain", records("xn--bcher-kva.example v=DMARC1; p=reject"), letter{"xn--bcher-kva.example", []string{"dkim:mail.xn--bcher-kva.example"}, nil}, "pass mail.xn--bcher-kva.example"},
		// What could not be told.
		{"the policy cannot be looked up", records("example.com !"), letter{"example.com", []string{"dkim:example.com"}, nil}, "temperror"},
		{"the policy above cannot be looked up", records("example.com v=DMARC1; p=reject", "com !"), letter{author: "example.com"}, "temperror"},
		{"SPF is unclear", records("example.com v=DMARC1; p=reject"), letter{"example.com", nil, []string{"spf:example.com"}}, "temperror"},
		{"DKIM is unclear", records("example.com v=DMARC1; p=reject"), letter{"example.com", nil, []string{"dkim:mail.example.com"}}, "temperror"},
		{"SPF is unclear, and DKIM passes", records("example.com v=DMARC1; p=reject"), letter{"example.com", []string{"dkim:example.com"}, []string{"spf:example.com"}}, "pass example.com"},
		{"what is unclear is not aligned", records("example.com v=DMARC1; p=reject"), letter{"example.com", nil, []string{"dkim:evil.example", "spf:evil.example"}}, "fail reject example.com"},
		{"whether it is aligned is unclear", records("example.com v=DMARC1; p=reject", "b.example.com !"), letter{"example.com", []string{"dkim:b.example.com"}, nil}, "temperror"},
		// No author.
		{"no author domain", records(), letter{author: ""}, "permerror"},
		{"an empty label", records(), letter{author: "a..example"}, "permerror"},
	} {
		e := Evaluate(t.Context(), tc.zone.dns(), tc.l.input())
		got := string(e.Result)
		switch e.Result {
		case ResultFail:
			got = fmt.Sprintf("fail %s %s", e.Policy, e.PolicyDomain)
		case ResultPass:
			got += " " + e.AlignedDomain
		}
		if got != tc.want {
			t.Errorf("%s: %s (%s), want %s", tc.name, got, e.Reason, tc.want)
		}
		if e.Result == ResultPass && e.Reason != "" || e.Result == ResultFail && e.Reason == "" {
			t.Errorf("%s: the reason is %q", tc.name, e.Reason)
		}
	}
}

// TestTreeWalk is section 4.10: the queries, in their order, never more than eight.
func TestTreeWalk(t *testing.T) {
	for domain, want := range map[string]string{
		"com":                "com",
		"example.com":        "example.com com",
		"a.mail.example.com": "a.mail.example.com mail.example.com example.com com",
		"a.b.c.d.e.f.g.h":    "a.b.c.d.e.f.g.h b.c.d.e.f.g.h c.d.e.f.g.h d.e.f.g.h e.f.g.h f.g.h g.h h",
		"a.b.c.d.e.f.g.h.i.j.mail.example.com": "a.b.c.d.e.f.g.h.i.j.mail.example.com " +
			"g.h.i.j.mail.example.com h.i.j.mail.example.com i.j.mail.example.com j.mail.example.com mail.example.com example.com com",
	} {
		if got := strings.Join(TreeWalkNames(domain), " "); got != want {
			t.Errorf("%s: %s, want %s", domain, got, want)
		}
	}
}

// TestLookups shows that each name is asked for once, and that many signatures cannot make it ask for ever.
func TestLookups(t *testing.T) {
	zone := records("example.com v=DMARC1; p=reject")
	in := Input{Author: "example.com"}
	for i := range 1000 {
		in.DKIM = append(in.DKIM, Identifier{Domain: fmt.Sprintf("s%d.a.b.c.d.e.f.g.evil.com", i), Pass: true})
	}
	e := Evaluate(t.Context(), zone.dns(), in)
	if e.Result == ResultPass || len(zone.asked) > maxLookups {
		t.Errorf("%s after %d look-ups", e.Result, len(zone.asked))
	}
	slices.Sort(zone.asked)
	if once := slices.Compact(slices.Clone(zone.asked)); len(once) != len(zone.asked) {
		t.Errorf("%d names asked for %d times", len(once), len(zone.asked))
	}
	in.DKIM = append(in.DKIM, Identifier{Domain: "example.com", Pass: true})
	if e := Evaluate(t.Context(), records("example.com v=DMARC1; p=reject").dns(), in); e.Result != ResultPass {
		t.Errorf("the good signature behind the others: %s", e.Result)
	}
}

func TestParseRecord(t *testing.T) {
	for text, want := range map[string]string{
		"v=DMARC1; p=reject": "reject reject reject u",
		"v=DMARC1; P=REJECT; NP=None; PSD=Y; T=Y; ADKIM=S; ASPF=S":                "reject reject none y testing strict-dkim strict-spf",
		"v=DMARC1; p=none; p=reject":                                              "none none none u",
		"v=DMARC1; p=none; psd=maybe; t=maybe; adkim=maybe":                       "none none none u",
		"v=DMARC1; p=reject; sp=maybe":                                            "none",
		"v=DMARC1; p=reject; np=maybe; rua=mailto:a@b.example":                    "none none none u rua=mailto:a@b.example",
		"v=DMARC1; p=none; rua=mailto:a@b.example,broken,https://c.example/x!10m": "none none none u rua=mailto:a@b.example,https://c.example/x!10m",
		"v=DMARC1;;;p=none;":                                                      "none none none u",
		"v=DMARC1; p":                                                             "none",
		"V=DMARC1; p=none":                                                        "not",
		"v=DMARC1 p=none":                                                         "not",
		"v=DMARC1; p=none" + strings.Repeat(";", maxRecord):                       "not",
	} {
		r, err := ParseRecord(text)
		got := map[error]string{ErrNotDMARC: "not", ErrNoPolicy: "none"}[err]
		if err == nil {
			got = describeRecord(r)
		}
		if got != want {
			t.Errorf("%.80q: %q, want %q", text, got, want)
		}
	}
}

func describeRecord(r Record) string {
	s := fmt.Sprintf("%s %s %s %c", r.Policy, r.Subdomains, r.NonExistent, r.PSD)
	for _, flag := range []struct {
		on   bool
		text string
	}{{r.Testing, " testing"}, {r.StrictDKIM, " strict-dkim"}, {r.StrictSPF, " strict-spf"}, {len(r.AggregateTo) > 0, " rua=" + strings.Join(r.AggregateTo, ",")}} {
		if flag.on {
			s += flag.text
		}
	}
	return s
}

func FuzzParseRecord(f *testing.F) {
	for _, seed := range []string{"v=DMARC1; p=reject; sp=none; np=quarantine; rua=mailto:a@b.example!10m; psd=y; t=y", "v=DMARC1", "v=spf1 -all", "v=DMARC1; p=none; p=reject;;="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRecord(text)
		valid := func(p Policy) bool { return p == None || p == Quarantine || p == Reject }
		if err == nil && !(valid(r.Policy) && valid(r.Subdomains) && valid(r.NonExistent) && strings.IndexByte("ynu", r.PSD) >= 0) {
			t.Errorf("%+v", r)
		}
		if err == nil && r.Policy.Lower() == Reject {
			t.Error("lowered to reject")
		}
	})
}

// FuzzEvaluate makes up zones and letters: a pass needs an identifier that passes, and the look-ups are bounded.
func FuzzEvaluate(f *testing.F) {
	f.Add("mail.example.com", "dkim:example.com spf:b.example.com", "spf:x.example.com", "example.com v=DMARC1; p=reject\ncom v=DMARC1; psd=y; p=none")
	f.Add("a.bank", "dkim:b.bank", "", "bank v=DMARC1; p=reject; psd=y\nx.bank ?\nb.bank !")
	f.Fuzz(func(t *testing.T, author, passes, unclear, zone string) {
		z := records(strings.Split(zone, "\n")...)
		l := letter{author, strings.Fields(passes), strings.Fields(unclear)}
		e := Evaluate(t.Context(), z.dns(), l.input())
		if e.Result == ResultPass && !strings.Contains(passes, e.AlignedDomain) {
			t.Errorf("passes by %q", e.AlignedDomain)
		}
		if len(z.asked) > maxLookups {
			t.Errorf("%d look-ups", len(z.asked))
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	dns := records("example.com v=DMARC1; p=reject", "mail.example.com -").dns()
	in := letter{"mail.example.com", []string{"dkim:example.com", "spf:bounce.example.com"}, nil}.input()
	b.ReportAllocs()
	for b.Loop() {
		if e := Evaluate(b.Context(), dns, in); e.Result != ResultPass {
			b.Fatal(e.Result)
		}
	}
}

// TestUnclearExistence shows that a domain of which it cannot be told whether it exists gets the stricter of both policies, in
// whichever tag that is: the milder one would let a letter in because a look-up failed.
func TestUnclearExistence(t *testing.T) {
	policies := []Policy{None, Quarantine, Reject}
	for i, sp := range policies {
		for j, np := range policies {
			if i == j {
				continue // then it does not matter
			}
			zone := records(fmt.Sprintf("example.com v=DMARC1; p=none; sp=%s; np=%s", sp, np), "x.example.com ?")
			e := Evaluate(t.Context(), zone.dns(), letter{author: "x.example.com"}.input())
			if want := policies[max(i, j)]; e.Result != ResultTempError || e.Policy != want || e.NonExistent {
				t.Errorf("sp=%s np=%s: %s, policy %s, non-existent %t; want temperror, %s", sp, np, e.Result, e.Policy, e.NonExistent, want)
			}
		}
	}
}
