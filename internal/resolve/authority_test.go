package resolve_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"

	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/resolve/zone"
)

// servers are DNS servers, by address. What is not named answers as the resolver does.
type servers struct {
	resolver *zone.Zone
	at       map[string]func(*dns.Msg) *dns.Msg
}

func (s servers) Exchange(ctx context.Context, server netip.AddrPort, query *dns.Msg, tcp bool) (*dns.Msg, error) {
	answer, ok := s.at[server.Addr().String()]
	switch {
	case !ok && query.RecursionDesired:
		return s.resolver.Exchange(ctx, server, query, tcp)
	case !ok:
		<-ctx.Done()
		return nil, ctx.Err()
	case query.RecursionDesired:
		return nil, errors.New("an authoritative server is not asked to find out")
	}
	return answer(query), nil
}

// knows answers from a zone.
func knows(z *zone.Zone) func(*dns.Msg) *dns.Msg {
	return func(q *dns.Msg) *dns.Msg {
		reply, _ := z.Exchange(context.Background(), netip.AddrPort{}, q, true) // it has no faults
		return reply
	}
}

// sends refers to another server, with or without its address.
func sends(below, ns, glue string) func(*dns.Msg) *dns.Msg {
	return func(q *dns.Msg) *dns.Msg {
		reply := new(dns.Msg)
		reply.SetReply(q)
		record, _ := dns.NewRR(below + " 60 IN NS " + ns) // as given by the test
		reply.Ns = []dns.RR{record}
		if glue != "" {
			address, _ := dns.NewRR(ns + " 60 IN A " + glue)
			reply.Extra = []dns.RR{address}
		}
		return reply
	}
}

// TestAuthoritative asks servers that know, that do not, that send elsewhere, and that are silent.
func TestAuthoritative(t *testing.T) {
	resolver := zone.MustParse(`
		example.org. 60 IN NS ns1.example.org.
		example.org. 60 IN NS ns2.example.org.
		ns1.example.org. 60 IN A 192.0.2.1
		ns2.example.org. 60 IN A 192.0.2.2
		co.test. 60 IN NS ns.nic.test.
		ns.nic.test. 60 IN A 192.0.2.3
		ns.own.test. 60 IN A 192.0.2.4
		lame.test. 60 IN NS ns.lame.test.
		ns.lame.test. 60 IN A 192.0.2.5
		loop.test. 60 IN NS ns.loop.test.
		ns.loop.test. 60 IN A 192.0.2.6
		silent.test. 60 IN NS ns.silent.test.
		ns.silent.test. 60 IN A 192.0.2.99
		gone.test. 60 IN NS ns.gone.test.
		alias.test. 60 IN NS ns.alias.test.
		ns.alias.test. 60 IN A 192.0.2.8
		far.example. 60 IN TXT "far"
		tld. 60 IN NS ns.tld.
		ns.tld. 60 IN A 192.0.2.20
		moved.tld. 60 IN NS ns1.example.org.
		ns.new.test. 60 IN A 192.0.2.21
	`)
	up, old := zone.MustParse(`x.example.org. 60 IN TXT "v=2"`), zone.MustParse(`x.example.org. 60 IN TXT "v=1"`)
	own := zone.MustParse("x.own.co.test. 60 IN TXT \"own\"\nx.glued.co.test. 60 IN TXT \"glued\"")
	deeper := 0
	network := servers{resolver, map[string]func(*dns.Msg) *dns.Msg{
		"192.0.2.1": knows(up), "192.0.2.2": knows(old), "192.0.2.4": knows(own), "192.0.2.7": knows(own),
		"192.0.2.3": func(q *dns.Msg) *dns.Msg {
			if strings.Contains(q.Question[0].Name, "glued") {
				return sends("glued.co.test.", "ns.glued.co.test.", "192.0.2.7")(q)
			}
			return sends("own.co.test.", "ns.own.test.", "")(q)
		},
		"192.0.2.20": func(q *dns.Msg) *dns.Msg { // the top-level domain knows who is in charge now
			if strings.Contains(q.Question[0].Name, "moved") {
				return sends("moved.tld.", "ns.new.test.", "")(q)
			}
			reply := new(dns.Msg)
			reply.SetRcode(q, dns.RcodeNameError)
			reply.Authoritative = true
			return reply
		},
		"192.0.2.21": knows(zone.MustParse(`x.moved.tld. 60 IN TXT "new"`)),
		"192.0.2.8": func(q *dns.Msg) *dns.Msg {
			reply := new(dns.Msg)
			reply.SetReply(q)
			reply.Authoritative = true
			alias, _ := dns.NewRR("x.alias.test. 60 IN CNAME far.example.")
			reply.Answer = []dns.RR{alias}
			return reply
		},
		"192.0.2.5": sends("test.", "ns.nic.test.", ""), // upwards, as lame servers do
		"192.0.2.6": func(q *dns.Msg) *dns.Msg { // always one label further down
			deeper++
			labels := strings.Split(q.Question[0].Name, ".")
			return sends(strings.Join(labels[max(0, len(labels)-3-deeper):], "."), "ns.loop.test.", "")(q)
		},
	}}
	for _, tc := range []struct{ name, want string }{
		{"x.example.org", "ns1.example.org: v=2, ns2.example.org: v=1"},
		{"X.Example.ORG.", "ns1.example.org: v=2, ns2.example.org: v=1"},
		{"nothing.example.org", "ns1.example.org: no such domain, ns2.example.org: no such domain"},
		{"x.alias.test", "ns.alias.test: far"},
		{"x.own.co.test", "ns.own.test: own"},
		{"x.glued.co.test", "ns.glued.co.test: glued"},
		{"x.lame.test", "ns.lame.test: the server failed"},
		{"x.silent.test", "ns.silent.test: no answer in time"},
		{"x.gone.test", "ns.gone.test: the server failed"},
		{"a.b.c.d.e.f.g.h.i.loop.test", "fails: the server failed"},
		{"b.loop.test", "ns.loop.test: the server failed"},
		{"x.nowhere.invalid", "fails: no such domain"},
		{"x.moved.tld", "ns.new.test: new"},
		{"x.gone.tld", "fails: no such domain"},
		{"a b", "fails: no such domain"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newResolver(t, resolve.Options{Exchange: network})
				all, err := r.AuthoritativeTXT(t.Context(), tc.name)
				var got []string
				for _, said := range all {
					got = append(got, said.Server+": "+strings.Join(said.Answer.TXT(), "|")+kind(said.Err))
				}
				if err != nil {
					got = append(got, "fails: "+kind(err))
				}
				if text := strings.Join(got, ", "); text != tc.want {
					t.Errorf("got %s\nwant %s", text, tc.want)
				}
				if n := resolver.QueriesFor(strings.ToLower(strings.TrimSuffix(tc.name, "."))); n > 0 {
					t.Errorf("the resolver was asked %d times for the name itself", n)
				}
			})
		})
	}
}

// kind is what kind of failure it is.
func kind(err error) string {
	if failed, ok := errors.AsType[*resolve.Error](err); ok {
		return failed.Kind.Error()
	}
	return ""
}
