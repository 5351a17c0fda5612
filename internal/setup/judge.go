package setup

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/postroom/postroom/internal/dnsbl"
	"github.com/postroom/postroom/internal/resolve"
)

// Level is how much a finding matters.
type Level int

// The levels.
const (
	Good Level = iota
	Note       // nothing to do, or nothing that can be known
	Mend       // mail will suffer until it is mended
	Stop       // nothing else makes sense before it is mended
)

// String is what stands in front of a finding.
func (l Level) String() string { return [...]string{"ok", "note", "mend", "STOP"}[l] }

// Finding is one line for people, and one that mends it.
type Finding struct {
	Level Level
	What  string
	Fix   string // "" where there is nothing to do
}

// Judge says what the facts mean.
func Judge(f *Facts) []Finding {
	return slices.Concat(judgePorts(f), judgeOut(f), judgeAddresses(f), judgeLists(f))
}

// Worst is the highest level among the findings.
func Worst(all []Finding) (worst Level) {
	for _, f := range all {
		worst = max(worst, f.Level)
	}
	return worst
}

func judgePorts(f *Facts) (all []Finding) {
	if f.PortsErr != nil {
		return []Finding{{Note, "could not tell which ports are free: " + f.PortsErr.Error(), ""}}
	}
	var free, low, served []string
	for _, p := range f.Ports {
		number := strconv.Itoa(p.Number)
		switch {
		case p.Holder != nil && p.Holder.ours():
			served = append(served, number)
		case p.Holder != nil:
			fix := p.Holder.stop()
			if p.Service == "http" || p.Service == "https" {
				fix += "; or leave the web to it with --no-web"
			}
			all = append(all, Finding{Stop, fmt.Sprintf("port %s (%s) is held by %s", number, p.Service, p.Holder), fix})
		case !f.Root && p.Number < f.LowPorts && p.Number != 0:
			low = append(low, number)
		default:
			free = append(free, number)
		}
	}
	if len(low) > 0 {
		all = append(all, Finding{Note, ports(low) + " free, but not for this user", "serve as a service (--service, as root), or as root"})
	}
	if len(served) > 0 {
		all = append(all, Finding{Good, ports(served) + " held by Postroom, which runs already", ""})
	}
	if len(free) > 0 {
		all = append(all, Finding{Good, ports(free) + " free", ""})
	}
	return all
}

func ports(numbers []string) string {
	if len(numbers) == 1 {
		return "port " + numbers[0] + " is"
	}
	return "ports " + strings.Join(numbers, ", ") + " are"
}

// judgeOut stops where no family leads out: nothing that follows would make a server of this machine that can send.
func judgeOut(f *Facts) (all []Finding) {
	if f.Offline {
		return []Finding{{Note, "nobody else was asked: the way out, names and block lists are not known", ""}}
	}
	open := slices.ContainsFunc(f.Out, func(r Reach) bool { return r.Answered > 0 })
	for _, r := range f.Out {
		way := "the way out to port 25 over " + r.Family
		switch {
		case !r.Have && r.Family == "IPv6":
			all = append(all, Finding{Note, "no public IPv6 address: mail is sent and received over IPv4", ""})
		case !r.Have:
			all = append(all, Finding{Mend, "no IPv4 address: much of the world cannot send mail here", "ask your provider for one"})
		case r.Answered > 0:
			all = append(all, Finding{Good, way + " is open", ""})
		case r.Known == 0:
			all = append(all, Finding{Note, "could not tell whether " + way + " is open: no mail server was found in the DNS", "see that this machine's resolver works"})
		case open:
			all = append(all, Finding{Note, way + " is closed; the other one is used", ""})
		default:
			all = append(all, Finding{Stop, way + " is closed: " + answered(r), "ask your provider to open outgoing port 25 for this machine; or send through a smarthost (`postroom relay set`), and go on with --anyway"})
		}
	}
	return all
}

func answered(r Reach) string {
	if r.Refused {
		return fmt.Sprintf("%d large providers were called, and something on the way refused", r.Known)
	}
	return fmt.Sprintf("%d large providers were called, and none answered", r.Known)
}

func judgeAddresses(f *Facts) (all []Finding) {
	if len(f.Addresses) == 0 {
		what := "this machine has no public address"
		if len(f.Private) > 0 {
			what += " (but " + join(f.Private) + "): it is behind another one"
		}
		return []Finding{{Note, what, "let that one forward the ports, and name its address with --public to have it checked"}}
	}
	if f.Offline {
		return nil
	}
	for _, a := range f.Addresses {
		all = append(all, judgeName(a, f.Hostname))
	}
	return all
}

// judgeName has a case for each state of the reverse DNS. Large providers refuse mail from an address without a name that leads back;
// over IPv6 this server sends nothing from such an address, so there it is no harm.
func judgeName(a Address, hostname string) Finding {
	set := "ask your provider to set the reverse DNS (PTR) of " + a.IP.String() + " to " + hostname
	bad := Mend
	if a.IP.Is6() {
		bad, set = Note, "mail leaves over IPv4 until then; "+set
	}
	switch is := a.IP.String() + " is called "; {
	case a.NamesErr != nil && !resolve.IsNotFound(a.NamesErr):
		return Finding{Note, "could not tell what " + a.IP.String() + " is called: the DNS does not answer", ""}
	case len(a.Names) == 0:
		return Finding{bad, a.IP.String() + " has no name", set}
	case slices.Contains(a.LeadsTo, hostname):
		return Finding{Good, is + hostname + ", which leads back", ""}
	case slices.Contains(a.Names, hostname):
		return Finding{Note, is + hostname + ", which does not lead back yet", "publish its address: it is among the records below"}
	case len(a.LeadsTo) > 0:
		return Finding{Note, is + a.LeadsTo[0] + ", which leads back: that will do", "better: " + set}
	default:
		return Finding{bad, is + a.Names[0] + ", which does not lead back", set}
	}
}

func judgeLists(f *Facts) (all []Finding) {
	var silent []string
	for _, a := range f.Addresses {
		listed, told := false, false
		for _, l := range dnsbl.Lists {
			said, asked := a.Lists[l.Zone]
			switch {
			case !asked:
				continue
			case said == dnsbl.Listed:
				all = append(all, Finding{Mend, fmt.Sprintf("%s is on the block list %s", a.IP, l.Zone), l.Page + " says why, and how it comes off"})
			case said == dnsbl.ListedByPolicy:
				all = append(all, Finding{Mend, fmt.Sprintf("%s is in a range that is not for mail servers, says %s", a.IP, l.Zone), l.Page + " takes single addresses out; or ask your provider"})
			case said == dnsbl.NotTold && !slices.Contains(silent, l.Zone):
				silent = append(silent, l.Zone)
			}
			listed = listed || said == dnsbl.Listed || said == dnsbl.ListedByPolicy
			told = told || said != dnsbl.NotTold
		}
		if told && !listed {
			all = append(all, Finding{Good, a.IP.String() + " is on no block list that was asked", ""})
		}
	}
	if len(silent) > 0 {
		all = append(all, Finding{Note, "not told by " + strings.Join(silent, ", ") + ": some lists do not answer large resolvers", ""})
	}
	return all
}

func join(all []netip.Addr) string {
	text := make([]string, len(all))
	for i, a := range all {
		text[i] = a.String()
	}
	return strings.Join(text, ", ")
}
