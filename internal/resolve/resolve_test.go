package resolve_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/resolve/zone"
)

var (
	one = netip.MustParseAddrPort("127.0.0.1:53")
	two = netip.MustParseAddrPort("127.0.0.2:53")
)

func newResolver(t testing.TB, o resolve.Options) *resolve.Resolver {
	t.Helper()
	if o.Servers == nil {
		o.Servers = []netip.AddrPort{one}
	}
	r, err := resolve.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// world has a name for each case.
func world() *zone.Zone {
	z := zone.MustParse(`
		a.example. 60 IN A 192.0.2.1
		a.example. 60 IN AAAA 2001:db8::1
		a.example. 60 IN TXT "one " "record"
		a.example. 60 IN TXT "a \"quoted\" \\ \195\188 one"
		four.example. 60 IN A 192.0.2.4
		alias.example. 60 IN CNAME second.example.
		second.example. 60 IN CNAME a.example.
		dangling.example. 60 IN CNAME nothing.example.
		mx.example. 60 IN MX 20 B.example.
		mx.example. 60 IN MX 10 a.example.
		null.example. 60 IN MX 0 .
		deep.below.empty.example. 60 IN A 192.0.2.9
		*.wild.example. 60 IN A 192.0.2.7
		brief.example. 0 IN A 192.0.2.8
		long.example. 999999999 IN A 192.0.2.8
		1.2.0.192.in-addr.arpa. 60 IN PTR A.example.
		1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 60 IN PTR six.example.
	`)
	for name, fault := range map[string]zone.Fault{
		"timeout": zone.Timeout, "servfail": zone.ServFail, "refused": zone.Refused, "truncate": zone.Truncate, "always": zone.TruncateAlways,
		"id": zone.WrongID, "question": zone.WrongQuestion, "garbage": zone.Garbage, "loop": zone.CNAMELoop, "huge": zone.Huge, "slow": zone.Slow,
	} {
		if err := z.Add(name + ".example. 60 IN A 192.0.2.1"); err != nil {
			panic(err)
		}
		z.SetFault(name+".example", fault)
	}
	return z
}

// TestLookup shows what each name and each fault comes to.
func TestLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := world()
		r := newResolver(t, resolve.Options{Exchange: z})
		for _, tc := range []struct {
			name  string
			qtype uint16
			want  error
			at    string // the canonical name
			count int
		}{
			{"a.example", dns.TypeA, nil, "a.example", 1},
			{"A.Example.", dns.TypeA, nil, "a.example", 1},
			{"alias.example", dns.TypeA, nil, "a.example", 1},
			{"alias.example", dns.TypeCNAME, nil, "alias.example", 1},
			{"dangling.example", dns.TypeA, resolve.ErrNotFound, "", 0},
			{"alias.example", dns.TypeMX, resolve.ErrNoData, "", 0},
			{"a.example", dns.TypeMX, resolve.ErrNoData, "", 0},
			{"empty.example", dns.TypeA, resolve.ErrNoData, "", 0},
			{"x.wild.example", dns.TypeA, nil, "x.wild.example", 1},
			{"nothing.example", dns.TypeA, resolve.ErrNotFound, "", 0},
			{"timeout.example", dns.TypeA, resolve.ErrTimeout, "", 0},
			{"servfail.example", dns.TypeA, resolve.ErrServer, "", 0},
			{"refused.example", dns.TypeA, resolve.ErrServer, "", 0},
			{"truncate.example", dns.TypeA, nil, "truncate.example", 1},
			{"always.example", dns.TypeA, resolve.ErrServer, "", 0},
			{"id.example", dns.TypeA, resolve.ErrServer, "", 0},
			{"question.example", dns.TypeA, resolve.ErrServer, "", 0},
			{"garbage.example", dns.TypeA, resolve.ErrServer, "", 0},
			{"loop.example", dns.TypeA, resolve.ErrServer, "", 0},
			{"huge.example", dns.TypeTXT, nil, "huge.example", 240},
			{"slow.example", dns.TypeA, nil, "slow.example", 1},
			{"", dns.TypeA, resolve.ErrNotFound, "", 0},
			{"a..example", dns.TypeA, resolve.ErrNotFound, "", 0},
			{"a b.example", dns.TypeA, resolve.ErrNotFound, "", 0},
			{strings.Repeat("a", 64) + ".example", dns.TypeA, resolve.ErrNotFound, "", 0},
			{strings.Repeat("a.", 125) + "example", dns.TypeA, resolve.ErrNotFound, "", 0},
		} {
			start := time.Now()
			a, err := r.Lookup(t.Context(), tc.name, tc.qtype)
			if !errors.Is(err, tc.want) || (tc.want == nil) != (err == nil) || a.Name != tc.at || len(a.Records) != tc.count {
				t.Errorf("%s %s: %s with %d records, %v", tc.name, dns.TypeToString[tc.qtype], a.Name, len(a.Records), err)
			}
			if err != nil && (resolve.IsTemporary(err) == resolve.IsNotFound(err) || resolve.IsNotFound(err) != (tc.want == resolve.ErrNotFound || tc.want == resolve.ErrNoData)) {
				t.Errorf("%s: %v is neither a fact nor temporary", tc.name, err)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("%s took %v", tc.name, took)
			}
		}
	})
}

func TestTypes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := world()
		z.AddTXT("key.example", strings.Repeat("k", 600)+`\`)
		r, ctx := newResolver(t, resolve.Options{Exchange: z}), t.Context()
		check := func(what string, got, want any, err error) {
			t.Helper()
			if fmt.Sprint(got) != fmt.Sprint(want) || err != nil {
				t.Errorf("%s: %v, %v; want %v", what, got, err, want)
			}
		}
		txt, err := r.TXT(ctx, "a.example")
		check("TXT", txt, []string{"one record", "a \"quoted\" \\ ü one"}, err)
		txt, err = r.TXT(ctx, "key.example")
		check("long TXT", txt, []string{strings.Repeat("k", 600) + `\`}, err)
		mx, err := r.MX(ctx, "mx.example")
		check("MX", mx, []resolve.MX{{10, "a.example"}, {20, "b.example"}}, err)
		mx, err = r.MX(ctx, "null.example")
		check("null MX", mx, []resolve.MX{{0, ""}}, err)
		ptr, err := r.PTR(ctx, netip.MustParseAddr("192.0.2.1"))
		check("PTR", ptr, []string{"a.example"}, err)
		ptr, err = r.PTR(ctx, netip.MustParseAddr("::ffff:192.0.2.1"))
		check("PTR of a mapped address", ptr, []string{"a.example"}, err)
		ptr, err = r.PTR(ctx, netip.MustParseAddr("2001:db8::1"))
		check("PTR of IPv6", ptr, []string{"six.example"}, err)
		ips, err := r.IP(ctx, "a.example")
		check("IP", ips, []string{"192.0.2.1", "2001:db8::1"}, err)
		ips, err = r.IP(ctx, "four.example")
		check("IP of one family", ips, []string{"192.0.2.4"}, err)
		if _, err := r.IP(ctx, "servfail.example"); !errors.Is(err, resolve.ErrServer) {
			t.Errorf("IP that fails: %v", err)
		}
		if _, err := r.IP(ctx, "nothing.example"); !errors.Is(err, resolve.ErrNotFound) {
			t.Errorf("IP that is not there: %v", err)
		}
		if _, err := r.PTR(ctx, netip.Addr{}); !resolve.IsNotFound(err) {
			t.Errorf("PTR of nothing: %v", err)
		}
	})
}

// byServer gives each server a zone of its own.
type byServer map[netip.AddrPort]*zone.Zone

func (b byServer) Exchange(ctx context.Context, server netip.AddrPort, q *dns.Msg, tcp bool) (*dns.Msg, error) {
	return b[server].Exchange(ctx, server, q, tcp)
}

// TestFailOver shows that a server that fails costs one try, and is asked last for a while.
func TestFailOver(t *testing.T) {
	for _, fault := range []zone.Fault{zone.Timeout, zone.ServFail, zone.Refused, zone.Garbage, zone.WrongQuestion} {
		synctest.Test(t, func(t *testing.T) {
			broken, healthy := world(), world()
			for _, name := range []string{"a.example", "four.example", "mx.example"} {
				broken.SetFault(name, fault)
			}
			r := newResolver(t, resolve.Options{Servers: []netip.AddrPort{one, two}, Exchange: byServer{one: broken, two: healthy}})
			start := time.Now()
			for _, name := range []string{"a.example", "four.example"} {
				if _, err := r.A(t.Context(), name); err != nil {
					t.Errorf("%d: %v", fault, err)
				}
			}
			if took := time.Since(start); took > 4*time.Second {
				t.Errorf("%d: %v for two names", fault, took)
			}
			if n := broken.Queries(); fault == zone.Timeout && n != 1 {
				t.Errorf("the silent server was asked %d times", n)
			}
			time.Sleep(31 * time.Second)
			if _, err := r.MX(t.Context(), "mx.example"); err != nil {
				t.Error(err)
			}
			if fault == zone.Timeout && broken.Queries() != 2 {
				t.Error("the silent server is not tried again")
			}
		})
	}
}

// TestCache shows how long answers of each kind are kept.
func TestCache(t *testing.T) {
	for _, tc := range []struct {
		name  string
		qtype uint16
		kept  time.Duration
	}{
		{"a.example", dns.TypeA, time.Minute},
		{"alias.example", dns.TypeA, time.Minute},
		{"nothing.example", dns.TypeA, time.Minute}, // as the SOA says
		{"a.example", dns.TypeMX, time.Minute},
		{"servfail.example", dns.TypeA, 5 * time.Second},
		{"long.example", dns.TypeA, 24 * time.Hour},
		{"brief.example", dns.TypeA, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			z := world()
			r := newResolver(t, resolve.Options{Exchange: z})
			ask := func() int {
				_, _ = r.Lookup(t.Context(), tc.name, tc.qtype) // TestLookup looks at the result
				return z.QueriesFor(tc.name)
			}
			first := ask()
			if tc.kept > 0 {
				time.Sleep(tc.kept - time.Millisecond)
				if n := ask(); n != first {
					t.Errorf("%s: asked again too early", tc.name)
				}
				time.Sleep(time.Millisecond)
			}
			if n := ask(); n == first {
				t.Errorf("%s: kept too long", tc.name)
			}
		})
	}
}

// TestSingleFlight shows that many who ask at once share one query, that one who leaves does not end it for the others, and
// that it ends when all have left.
func TestSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := world()
		r := newResolver(t, resolve.Options{Exchange: z})
		var wait sync.WaitGroup
		impatient, cancel := context.WithCancel(t.Context())
		for i := range 50 {
			ctx := t.Context()
			if i%2 == 0 {
				ctx = impatient
			}
			wait.Go(func() {
				if _, err := r.A(ctx, "slow.example"); (err == nil) != (i%2 == 1) || i%2 == 0 && !errors.Is(err, resolve.ErrTimeout) {
					t.Errorf("%d: %v", i, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		wait.Wait()
		if n := z.QueriesFor("slow.example"); n != 1 {
			t.Errorf("%d queries", n)
		}
		start := time.Now()
		gone, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.A(gone, "timeout.example"); !errors.Is(err, resolve.ErrTimeout) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		synctest.Wait() // the query has ended with the only one who waited
		if n := z.QueriesFor("timeout.example"); n != 1 {
			t.Errorf("%d queries", n)
		}
		if _, err := r.A(t.Context(), "timeout.example"); !errors.Is(err, resolve.ErrTimeout) || z.QueriesFor("timeout.example") < 2 {
			t.Error("what ended because nobody waited was kept as a failure")
		}
	})
}

// TestClose shows that Close ends what is under way.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResolver(t, resolve.Options{Exchange: world()})
		failed := make(chan error)
		go func() { _, err := r.A(t.Context(), "timeout.example"); failed <- err }()
		synctest.Wait()
		go r.Close()
		if err := <-failed; !resolve.IsTemporary(err) {
			t.Errorf("got %v", err)
		}
		if _, err := r.A(t.Context(), "a.example"); !resolve.IsTemporary(err) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// TestSecure shows that the AD bit counts only from trusted servers, and only where the whole chain has it.
func TestSecure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := world()
		z.SetSecure(true)
		z.SetInsecure("four.example")
		for _, tc := range []struct {
			name  string
			trust bool
			want  bool
		}{{"a.example", true, true}, {"a.example", false, false}, {"four.example", true, false}} {
			r := newResolver(t, resolve.Options{Exchange: z, TrustAD: tc.trust})
			if a, err := r.Lookup(t.Context(), tc.name, dns.TypeA); err != nil || a.Secure != tc.want {
				t.Errorf("%+v: %t, %v", tc, a.Secure, err)
			}
		}
	})
}

// endless answers every question with a name further on.
type endless struct{}

func (endless) Exchange(_ context.Context, _ netip.AddrPort, q *dns.Msg, _ bool) (*dns.Msg, error) {
	reply := new(dns.Msg)
	reply.SetReply(q)
	name := q.Question[0].Name
	reply.Answer = []dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 1}, Target: "x" + name}}
	return reply, nil
}

// flood answers with too many records.
type flood struct{}

func (flood) Exchange(_ context.Context, _ netip.AddrPort, q *dns.Msg, _ bool) (*dns.Msg, error) {
	reply := new(dns.Msg)
	reply.SetReply(q)
	for range 1001 {
		reply.Answer = append(reply.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{1, 2, 3, 4}})
	}
	return reply, nil
}

func TestHostileServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, e := range []resolve.Exchanger{endless{}, flood{}} {
			r := newResolver(t, resolve.Options{Exchange: e})
			if _, err := r.A(t.Context(), "a.example"); !errors.Is(err, resolve.ErrServer) {
				t.Errorf("%T: %v", e, err)
			}
		}
	})
}

// TestBounded shows that the cache holds no more than it may, and drops what was used longest ago.
func TestBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := world()
		r := newResolver(t, resolve.Options{Exchange: z, CacheEntries: 3})
		for _, name := range []string{"a.wild.example", "b.wild.example", "c.wild.example", "a.wild.example", "d.wild.example", "a.wild.example", "b.wild.example"} {
			if _, err := r.A(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		for name, want := range map[string]int{"a.wild.example": 1, "b.wild.example": 2, "c.wild.example": 1, "d.wild.example": 1} {
			if n := z.QueriesFor(name); n != want {
				t.Errorf("%s was asked for %d times, want %d", name, n, want)
			}
		}
	})
}

// TestNetwork asks over real sockets.
func TestNetwork(t *testing.T) {
	z := world()
	server, stop, err := z.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	r := newResolver(t, resolve.Options{Servers: []netip.AddrPort{server}})
	if ips, err := r.IP(t.Context(), "alias.example"); err != nil || len(ips) != 2 {
		t.Errorf("%v, %v", ips, err)
	}
	if txt, err := r.TXT(t.Context(), "huge.example"); err != nil || len(txt) != 240 {
		t.Errorf("over TCP: %d records, %v", len(txt), err)
	}
	for _, name := range []string{"servfail.example", "question.example", "garbage.example"} {
		if _, err := r.A(t.Context(), name); !resolve.IsTemporary(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.A(t.Context(), "nothing.example"); !errors.Is(err, resolve.ErrNotFound) {
		t.Error(err)
	}
	closed := newResolver(t, resolve.Options{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}})
	if _, err := closed.A(t.Context(), "a.example"); !resolve.IsTemporary(err) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestNew(t *testing.T) {
	if _, err := resolve.New(resolve.Options{}); err == nil {
		t.Error("a resolver without servers")
	}
}

func TestReadResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("search x\nnameserver 192.0.2.53\nnameserver ::1\nnameserver no\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := resolve.ReadResolvConf(path)
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("[::1]:53")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := resolve.ReadResolvConf(path + ".not"); err == nil {
		t.Error("a file that is not there")
	}
}

// raw answers with the octets of a fuzz input, made a reply to the question.
type raw []byte

func (octets raw) Exchange(_ context.Context, _ netip.AddrPort, q *dns.Msg, _ bool) (*dns.Msg, error) {
	reply := new(dns.Msg)
	if err := reply.Unpack(octets); err != nil {
		return nil, err
	}
	reply.Question, reply.Response = q.Question, true
	return reply, nil
}

// FuzzReply gives any octets as a reply: no panic, and an error or at least one record.
func FuzzReply(f *testing.F) {
	z := world()
	for _, name := range []string{"a.example", "alias.example", "loop.example", "nothing.example", "mx.example"} {
		q := new(dns.Msg)
		q.SetQuestion(name+".", dns.TypeA)
		reply, err := z.Exchange(f.Context(), one, q, true)
		if err != nil {
			f.Fatal(err)
		}
		octets, err := reply.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(octets)
	}
	f.Fuzz(func(t *testing.T, octets []byte) {
		r := newResolver(t, resolve.Options{Exchange: raw(octets)})
		for _, qtype := range []uint16{dns.TypeA, dns.TypeTXT, dns.TypeMX, dns.TypePTR} {
			if a, err := r.Lookup(t.Context(), "a.example", qtype); (err == nil) != (len(a.Records) > 0) {
				t.Errorf("%d records, %v", len(a.Records), err)
			}
		}
		_, _ = r.TXT(t.Context(), "a.example")
		_, _ = r.MX(t.Context(), "a.example")
		_, _ = r.IP(t.Context(), "a.example")
	})
}

func BenchmarkCached(b *testing.B) {
	r := newResolver(b, resolve.Options{Exchange: world()})
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.TXT(ctx, "a.example"); err != nil {
			b.Fatal(err)
		}
	}
}
