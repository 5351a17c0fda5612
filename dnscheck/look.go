package dnscheck

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/postroom/postroom/auth/spf"
	"github.com/postroom/postroom/internal/resolve"
)

// DNS is what is asked; *resolve.Resolver is one.
type DNS interface {
	Authoritative(ctx context.Context, name string, qtype uint16) ([]resolve.Testimony, error)
	Lookup(ctx context.Context, name string, qtype uint16) (resolve.Answer, error)
	spf.Resolver
}

var _ DNS = (*resolve.Resolver)(nil)

// said is what one authoritative server says.
type said struct {
	server string
	values []string // sorted; none: the server says that there are none
}

// view is what the authoritative servers say of a name, those left out that did not answer.
type view struct {
	name    string
	qtype   uint16
	by      []said
	silent  []string // servers that did not answer, or do not know the zone
	err     error    // the servers could not be found
	nothing bool     // not even the domain exists
}

// look asks the authoritative servers.
func (c *checker) look(ctx context.Context, name string, qtype uint16) view {
	v := view{name: name, qtype: qtype}
	all, err := c.dns.Authoritative(ctx, name, qtype)
	v.err, v.nothing = err, resolve.IsNotFound(err)
	for _, t := range all {
		if resolve.IsTemporary(t.Err) {
			v.silent = append(v.silent, t.Server)
			continue
		}
		values := t.Answer.Texts()
		slices.Sort(values)
		v.by = append(v.by, said{t.Server, values})
	}
	return v
}

// values are what the servers agree on.
func (v view) values() []string {
	if len(v.by) == 0 {
		return nil
	}
	return v.by[0].values
}

// split tells whether the servers differ.
func (v view) split() bool {
	return slices.ContainsFunc(v.by, func(s said) bool { return !slices.Equal(s.values, v.by[0].values) })
}

// where lists all values with the servers that have them.
func (v view) where() (all []string) {
	for _, s := range v.by {
		if len(s.values) == 0 {
			all = append(all, "nothing ("+s.server+")")
		}
		for _, value := range s.values {
			all = append(all, value+" ("+s.server+")")
		}
	}
	return all
}

// verdict is what values come to.
type verdict struct {
	status Status
	fix    string
}

var fine = verdict{status: OK}

// settle fills in a check of the records of one name. judge says what values come to; it is given none where there are none.
func (c *checker) settle(ctx context.Context, k Check, v view, judge func(values []string) verdict) Check {
	k.Name, k.Type = v.name, resolve.TypeName(v.qtype)
	if len(v.by) == 0 && !v.nothing {
		return c.fromResolver(ctx, k, v, judge)
	}
	if v.split() {
		return differing(k, v, judge)
	}
	k.Found = v.values()
	d := judge(k.Found)
	k.Status, k.Fix = d.status, d.fix
	if d.status == OK && len(k.Found) > 0 && !c.arrived(ctx, v) {
		k.Status, k.Fix = Pending, "nothing to do: resolvers remember the old record until its time is over"
	}
	return k
}

// fromResolver is for names whose servers do not answer us: a firewall may be in the way.
func (c *checker) fromResolver(ctx context.Context, k Check, v view, judge func([]string) verdict) Check {
	a, err := c.dns.Lookup(ctx, v.name, v.qtype)
	if resolve.IsTemporary(err) {
		k.Status, k.Fix = Unknown, "neither the name servers nor the resolver gave an answer: try again later"
		return k
	}
	k.Found = a.Texts()
	slices.Sort(k.Found)
	d := judge(k.Found)
	k.Status, k.Fix = d.status, d.fix
	return k
}

// differing is for servers that do not say the same: where one has it right, the others are late.
func differing(k Check, v view, judge func([]string) verdict) Check {
	k.Found = v.where()
	var right, wrong []string
	worst := fine
	for _, s := range v.by {
		if d := judge(s.values); d.status == OK || d.status == Optional {
			right = append(right, s.server)
		} else {
			wrong, worst = append(wrong, s.server), d
		}
	}
	switch {
	case len(wrong) == 0:
		k.Status = OK // they differ in what does not matter
	case len(right) == 0:
		k.Status, k.Fix = worst.status, worst.fix
	default:
		k.Status, k.Fix = Pending, "wait: "+strings.Join(wrong, ", ")+" has not heard of it yet; if that stays so, ask who runs it"
	}
	return k
}

// arrived tells whether the resolver sees what the servers have. Only names that exist are asked for.
func (c *checker) arrived(ctx context.Context, v view) bool {
	a, err := c.dns.Lookup(ctx, v.name, v.qtype)
	if resolve.IsTemporary(err) {
		return true // that tells nothing about this record
	}
	values := a.Texts()
	slices.Sort(values)
	return slices.Equal(values, v.values())
}

// asPublished answers as the authoritative servers do, so that SPF is evaluated as it will be seen, and the resolver is asked for
// nothing that does not exist yet. It is an spf.Resolver.
type asPublished struct{ DNS }

func (p asPublished) find(ctx context.Context, name string, qtype uint16) (resolve.Answer, error) {
	all, err := p.Authoritative(ctx, name, qtype)
	if err == nil {
		for _, t := range all {
			if !resolve.IsTemporary(t.Err) {
				return t.Answer, t.Err
			}
		}
	}
	return p.Lookup(ctx, name, qtype)
}

func (p asPublished) TXT(ctx context.Context, name string) ([]string, error) {
	a, err := p.find(ctx, name, resolve.TypeTXT)
	return a.TXT(), err
}

func (p asPublished) A(ctx context.Context, name string) ([]netip.Addr, error) {
	return p.ips(ctx, name, resolve.TypeA)
}

func (p asPublished) AAAA(ctx context.Context, name string) ([]netip.Addr, error) {
	return p.ips(ctx, name, resolve.TypeAAAA)
}

func (p asPublished) ips(ctx context.Context, name string, qtype uint16) (all []netip.Addr, err error) {
	a, err := p.find(ctx, name, qtype)
	for _, text := range a.Texts() {
		if ip, err := netip.ParseAddr(text); err == nil {
			all = append(all, ip)
		}
	}
	return all, err
}

func (p asPublished) MX(ctx context.Context, name string) (all []resolve.MX, err error) {
	a, err := p.find(ctx, name, resolve.TypeMX)
	for _, text := range a.Texts() {
		x := readExchanger(text)
		all = append(all, resolve.MX{Preference: uint16(x.preference), Host: strings.TrimSuffix(x.host, ".")})
	}
	return all, err
}

// known are the values of a name: what the servers say, or where none answers us, the resolver.
func (c *checker) known(ctx context.Context, name string, qtype uint16) []string {
	v := c.look(ctx, name, qtype)
	if len(v.by) > 0 || v.nothing {
		return v.values()
	}
	a, _ := c.dns.Lookup(ctx, name, qtype) // what cannot be found out is not there for anybody
	return a.Texts()
}

// hint mends a record that is missing because it was entered at the wrong place, or one that a wildcard stands before.
func (c *checker) hint(ctx context.Context, v view, fix string) string {
	domain := c.p.Domain.ASCII()
	_, parent, ok := strings.Cut(v.name, ".")
	if ok && len(v.values()) > 0 {
		if other := c.look(ctx, "postroom-looks-for-a-wildcard."+parent, v.qtype); slices.Equal(other.values(), v.values()) {
			return "a wildcard, *." + parent + ", answers instead: " + fix
		}
		return fix
	}
	if doubled := v.name + "." + domain; len(doubled) <= 253 && len(c.look(ctx, doubled, v.qtype).values()) > 0 {
		return "it is at " + doubled + ": your panel adds " + domain + " itself, so enter the name as " + Record{Name: v.name}.Relative(domain)
	}
	return fix
}
