package tlsconf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/postroom/postroom/internal/resolve"
)

// reach is what became of a connection to one of a name's addresses.
type reach struct {
	here  bool   // this server, or one that shares its database, answered
	other string // somebody else did: what is known of them
	err   string // nobody did, and why
}

// facts are what is found out before an authority is asked.
type facts struct {
	name       string
	optional   bool // a name that may lead elsewhere, or nowhere
	methods    []method
	addresses  []netip.Addr
	noAddress  error
	own        []netip.Addr // addresses of this machine
	host       []netip.Addr // those of the host name
	probes     map[netip.Addr]map[method]reach
	caa        []resolve.CAA
	caaAt      string
	noCAA      error    // they could not be looked up
	identities []string // of the authority; none: not known
	noCA       error    // the authority was not reached
	staging    bool     // the authority has a place where orders can be tried
	proven     bool     // the name has had a certificate
}

// verdict is what to do.
type verdict struct {
	action  action
	methods []method // that may prove the name
	why     string   // one sentence, unless it is goAhead
}

type action int

const (
	goAhead action = iota
	tryOut         // at the staging authority first: what counts cannot be seen from here
	refuse         // nothing is asked until this is mended
	leave          // the name does not lead here, and need not
)

// judge decides whether an authority is asked. Each failed order counts at the authority, so what cannot succeed is not asked for.
func judge(f facts) verdict {
	missing := resolve.IsNotFound(f.noAddress)
	switch {
	case missing && f.optional:
		return verdict{leave, nil, f.name + " is not in the DNS"}
	case missing:
		return verdict{refuse, nil, fmt.Sprintf("%s has no address in the DNS: publish an A or AAAA record that leads here", f.name)}
	case f.noAddress != nil:
		return verdict{refuse, nil, fmt.Sprintf("the addresses of %s are not known (%s): see that the resolver works", f.name, oneLine(f.noAddress.Error()))}
	case f.noCA != nil:
		return verdict{refuse, nil, oneLine(f.noCA.Error())}
	case f.noCAA != nil:
		return verdict{refuse, nil, fmt.Sprintf("the CAA records of %s could not be looked up (%s), and then no authority issues", f.name, oneLine(f.noCAA.Error()))}
	}
	v := f.judgeReach()
	if v.action == leave || v.action == refuse {
		return v
	}
	if v.methods = f.allowedByCAA(v.methods); len(v.methods) == 0 {
		return verdict{refuse, nil, f.caaSentence()}
	}
	return v
}

// judgeReach: an address that leads elsewhere is fatal, since an authority may take any of them; one that cannot be reached from here
// may be reached by others where a router does not lead us back to ourselves.
func (f facts) judgeReach() verdict {
	if slices.Contains(f.methods, byDNS) {
		if f.staging && !f.proven {
			return verdict{tryOut, []method{byDNS}, "whether the DNS provider does what it is told was not seen yet"}
		}
		return verdict{goAhead, []method{byDNS}, ""}
	}
	best := verdict{action: refuse, why: "no port is open for challenges: set listen.http or listen.https, or take challenge = \"dns-01\""}
	for i, m := range f.methods {
		v := f.judgeMethod(m)
		switch {
		case i == 0 || rank[v.action] > rank[best.action]:
			best = v
		case v.action == best.action:
			best.methods = append(best.methods, v.methods...)
		}
	}
	return best
}

// rank orders what two methods come to: one that works is enough, and a name that another server answers for is that server's.
var rank = [...]int{goAhead: 3, leave: 2, tryOut: 1, refuse: 0}

var ports = map[method]string{byHTTP: "80", byALPN: "443"}

func (f facts) judgeMethod(m method) verdict {
	result := verdict{action: goAhead, methods: []method{m}}
	for _, ip := range f.addresses {
		r, where := f.probes[ip][m], fmt.Sprintf("port %s of %s, an address of %s,", ports[m], ip, f.name)
		switch {
		case r.here:
		case r.other != "" && f.optional:
			return verdict{leave, nil, fmt.Sprintf("%s is answered by another server (%s)", where, r.other)}
		case r.other != "":
			return verdict{refuse, nil, fmt.Sprintf("%s is answered by another server (%s): let %s lead here, or that server hand the requests on", where, r.other, f.name)}
		case slices.Contains(f.own, ip):
			return verdict{refuse, nil, fmt.Sprintf("%s does not lead to this server (%s): open it in the firewall, and see that listen.%s has it", where, r.err, service(m))}
		case f.optional && !slices.Contains(f.host, ip):
			return verdict{leave, nil, fmt.Sprintf("%s leads to %s, which is no address of this server", f.name, ip)}
		case !f.staging:
			return verdict{refuse, nil, fmt.Sprintf("%s cannot be reached (%s): open it, remove the address from the DNS, or take challenge = \"dns-01\"", where, r.err)}
		default:
			result = verdict{tryOut, []method{m}, fmt.Sprintf("%s cannot be reached from here (%s)", where, r.err)}
		}
	}
	return result
}

func service(m method) string {
	if m == byALPN {
		return "https"
	}
	return "http"
}

// allowedByCAA returns the methods that the CAA records let the authority use: RFC 8659 section 4.2, RFC 8657 section 4.
func (f facts) allowedByCAA(methods []method) []method {
	var issue []string
	for _, r := range f.caa {
		switch r.Tag {
		case "issue":
			issue = append(issue, r.Value)
		case "issuewild", "iodef", "issuemail", "issuevmc", "contactemail", "contactphone":
		default:
			if r.Critical {
				return nil // section 4.5: what is not understood forbids
			}
		}
	}
	if len(issue) == 0 || len(f.identities) == 0 {
		return methods
	}
	return slices.DeleteFunc(slices.Clone(methods), func(m method) bool {
		return !slices.ContainsFunc(issue, func(value string) bool { return allows(value, f.identities, m) })
	})
}

// allows reads one issue value: a domain, and parameters.
func allows(value string, identities []string, m method) bool {
	domain, rest, _ := strings.Cut(value, ";")
	domain = strings.ToLower(strings.TrimSpace(domain))
	if !slices.Contains(identities, domain) {
		return false
	}
	for parameter := range strings.SplitSeq(rest, ";") {
		tag, list, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		if strings.EqualFold(strings.TrimSpace(tag), "validationmethods") && !slices.Contains(strings.Split(strings.TrimSpace(list), ","), string(m)) {
			return false
		}
	}
	return true
}

func (f facts) caaSentence() string {
	var values []string
	for _, r := range f.caa {
		values = append(values, fmt.Sprintf("%s %q", r.Tag, r.Value))
	}
	who := "the authority"
	if len(f.identities) > 0 {
		who = f.identities[0]
	}
	return fmt.Sprintf("the CAA records of %s (%s) do not let %s issue: add one with issue %q", f.caaAt, strings.Join(values, ", "), who, who)
}
