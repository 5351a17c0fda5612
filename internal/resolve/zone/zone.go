// Package zone is a DNS server for tests and the demonstration: it knows what it was told, for all zones at once, and fails per
// name as it was told to. It can be asked in process (Exchange) or over the network (Start, Listen).
package zone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Fault is how a name fails.
type Fault int

// The faults.
const (
	None           Fault = iota
	Timeout              // never answers
	ServFail             // RCODE 2
	Refused              // RCODE 5
	Truncate             // over UDP; whole over TCP
	TruncateAlways       // over TCP, too
	WrongID              // answers with another id
	WrongQuestion        // answers another question
	Garbage              // answers something that is no DNS message
	CNAMELoop            // is an alias of itself, by way of another name
	Huge                 // has as many TXT records as fit into 64 KiB
	Slow                 // answers after SlowBy
)

// SlowBy is how long Slow takes.
const SlowBy = 2 * time.Second

// hugeStrings is how many strings of 250 octets nearly fill a message.
const hugeStrings = 240

// Zone is what the server knows. It may be changed while it serves.
type Zone struct {
	mu       sync.Mutex // guards what follows
	records  map[string][]dns.RR
	faults   map[string]Fault
	secure   bool
	insecure map[string]bool
	asked    map[string]int
	total    int
}

// New returns an empty zone.
func New() *Zone {
	return &Zone{records: map[string][]dns.RR{}, faults: map[string]Fault{}, insecure: map[string]bool{}, asked: map[string]int{}}
}

// Parse reads records in the form of a zone file (RFC 1035 section 5), names absolute.
func Parse(text string) (*Zone, error) {
	z := New()
	for line := range strings.SplitSeq(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == ';' {
			continue
		}
		if err := z.Add(line); err != nil {
			return nil, err
		}
	}
	return z, nil
}

// MustParse is Parse for text that is known to be right.
func MustParse(text string) *Zone {
	z, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return z
}

// Add adds one record, such as "example.org. 60 IN A 192.0.2.1".
func (z *Zone) Add(record string) error {
	rr, err := dns.NewRR(record)
	if err != nil {
		return fmt.Errorf("zone: %q: %w", record, err)
	}
	if rr == nil {
		return fmt.Errorf("zone: %q is no record", record)
	}
	z.AddRR(rr)
	return nil
}

// AddRR adds one record.
func (z *Zone) AddRR(rr dns.RR) {
	z.mu.Lock()
	defer z.mu.Unlock()
	name := plain(rr.Header().Name)
	z.records[name] = append(z.records[name], rr)
}

// AddTXT adds a TXT record of any length.
func (z *Zone) AddTXT(name, value string) {
	var parts []string
	for len(value) > 255 {
		parts, value = append(parts, escape(value[:255])), value[255:]
	}
	z.AddRR(&dns.TXT{Hdr: header(name, dns.TypeTXT), Txt: append(parts, escape(value))})
}

// escape protects what the library takes for an escape.
func escape(s string) string { return strings.ReplaceAll(s, `\`, `\\`) }

// Remove removes all records of a name.
func (z *Zone) Remove(name string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.records, plain(name))
}

// SetFault makes a name fail.
func (z *Zone) SetFault(name string, f Fault) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.faults[plain(name)] = f
}

// SetQuestionFault makes one type of a name fail; "*" stands for all names and types.
func (z *Zone) SetQuestionFault(name, kind string, f Fault) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.faults[plain(name)+" "+kind] = f
}

// fault is how a question fails. The caller holds mu.
func (z *Zone) fault(name string, qtype uint16) Fault {
	for _, key := range []string{name, name + " " + dns.TypeToString[qtype], "* *"} {
		if f, ok := z.faults[key]; ok {
			return f
		}
	}
	return None
}

// SetSecure says whether answers have the AD bit.
func (z *Zone) SetSecure(secure bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.secure = secure
}

// SetInsecure takes the AD bit from the answers of one name.
func (z *Zone) SetInsecure(name string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.insecure[plain(name)] = true
}

// Queries is how many questions were asked.
func (z *Zone) Queries() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.total
}

// QueriesFor is how many were asked about one name.
func (z *Zone) QueriesFor(name string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[plain(name)]
}

// errGarbage is what an answer that cannot be read comes to.
var errGarbage = errors.New("zone: the answer cannot be read")

// Servers are DNS servers that differ, by their addresses. It implements resolve.Exchanger.
type Servers map[netip.Addr]*Zone

// Exchange asks one of them. One that is not there does not answer.
func (s Servers) Exchange(ctx context.Context, server netip.AddrPort, query *dns.Msg, tcp bool) (*dns.Msg, error) {
	if z, ok := s[server.Addr()]; ok {
		return z.Exchange(ctx, server, query, tcp)
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// Exchange answers in process, so that it works in a bubble of testing/synctest. It implements resolve.Exchanger.
func (z *Zone) Exchange(ctx context.Context, _ netip.AddrPort, query *dns.Msg, tcp bool) (*dns.Msg, error) {
	reply, fault := z.answer(query, tcp)
	switch fault {
	case Timeout:
		<-ctx.Done()
		return nil, ctx.Err()
	case Slow:
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(SlowBy):
		}
	case WrongID:
		return nil, dns.ErrId
	case Garbage:
		return nil, errGarbage
	}
	return reply, nil
}

// answer makes the reply to a query, and says how it fails.
func (z *Zone) answer(query *dns.Msg, tcp bool) (*dns.Msg, Fault) {
	z.mu.Lock()
	defer z.mu.Unlock()
	reply := new(dns.Msg)
	reply.SetReply(query)
	reply.RecursionAvailable, reply.Compress = true, true
	reply.Authoritative = !query.RecursionDesired // as the server of every zone, when it is asked as one
	if len(query.Question) != 1 {
		reply.Rcode = dns.RcodeFormatError
		return reply, None
	}
	q := query.Question[0]
	name := plain(q.Name)
	z.total++
	z.asked[name]++
	z.fill(reply, name, q.Qtype)
	reply.AuthenticatedData = z.secure && !z.insecure[name]
	fault := z.fault(name, q.Qtype)
	z.fail(reply, fault, tcp)
	return reply, fault
}

// fill answers as a server does that has no faults.
func (z *Zone) fill(reply *dns.Msg, name string, qtype uint16) {
	for range 10 {
		records, exists := z.find(name)
		var alias *dns.CNAME
		for _, rr := range records {
			if cname, ok := rr.(*dns.CNAME); ok && qtype != dns.TypeCNAME {
				alias = cname
			}
			if rr.Header().Rrtype == qtype {
				reply.Answer = append(reply.Answer, named(rr, name))
			}
		}
		if alias == nil {
			if !exists {
				reply.Rcode = dns.RcodeNameError
			}
			break
		}
		reply.Answer = append(reply.Answer, named(alias, name))
		name = plain(alias.Target)
	}
	if len(reply.Answer) == 0 || reply.Rcode == dns.RcodeNameError {
		reply.Ns = append(reply.Ns, &dns.SOA{Hdr: header(".", dns.TypeSOA), Ns: "ns.", Mbox: "hostmaster.", Minttl: 60})
	}
}

// find returns the records of a name, by a wildcard too, and whether the name exists: it does where there is one below it.
func (z *Zone) find(name string) (records []dns.RR, exists bool) {
	if records, ok := z.records[name]; ok {
		return records, true
	}
	for other := range z.records {
		if strings.HasSuffix(other, "."+name) {
			return nil, true
		}
	}
	for rest := name; ; {
		_, parent, more := strings.Cut(rest, ".")
		if !more {
			return nil, false
		}
		if records, ok := z.records["*."+parent]; ok {
			return records, true
		}
		rest = parent
	}
}

// fail spoils a reply.
func (z *Zone) fail(reply *dns.Msg, fault Fault, tcp bool) {
	name := reply.Question[0].Name
	switch fault {
	case ServFail, Refused:
		reply.Answer, reply.Ns, reply.Rcode = nil, nil, dns.RcodeServerFailure
		if fault == Refused {
			reply.Rcode = dns.RcodeRefused
		}
	case Truncate, TruncateAlways:
		if !tcp || fault == TruncateAlways {
			reply.Answer, reply.Ns, reply.Truncated = nil, nil, true
		}
	case WrongID:
		reply.Id++
	case WrongQuestion:
		reply.Question = []dns.Question{{Name: "other." + name, Qtype: reply.Question[0].Qtype, Qclass: dns.ClassINET}}
	case CNAMELoop:
		reply.Rcode, reply.Ns = dns.RcodeSuccess, nil
		reply.Answer = []dns.RR{
			&dns.CNAME{Hdr: header(name, dns.TypeCNAME), Target: "loop." + name},
			&dns.CNAME{Hdr: header("loop."+name, dns.TypeCNAME), Target: name},
		}
	case Huge:
		reply.Rcode, reply.Ns, reply.Answer = dns.RcodeSuccess, nil, nil
		for range hugeStrings {
			reply.Answer = append(reply.Answer, &dns.TXT{Hdr: header(name, dns.TypeTXT), Txt: []string{strings.Repeat("x", 250)}})
		}
		if !tcp {
			reply.Answer, reply.Truncated = nil, true
		}
	}
}

// Start serves on a free port of the loopback, UDP and TCP, until stop or the end of ctx.
func (z *Zone) Start(ctx context.Context) (server netip.AddrPort, stop func(), err error) {
	return z.Listen(ctx, "127.0.0.1:0")
}

// Listen is Start at an address, such as "198.51.100.1:53".
func (z *Zone) Listen(ctx context.Context, address string) (server netip.AddrPort, stop func(), err error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return server, nil, err
	}
	packets, err := config.ListenPacket(ctx, "udp", listener.Addr().String())
	if err != nil {
		return server, nil, errors.Join(err, listener.Close())
	}
	server = listener.Addr().(*net.TCPAddr).AddrPort()
	servers := []*dns.Server{
		{Listener: listener, Handler: z.handler(true)},
		{PacketConn: packets, Handler: z.handler(false)},
	}
	var running sync.WaitGroup
	for _, s := range servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		running.Go(func() { _ = s.ActivateAndServe() }) // ends with Shutdown
		<-started
	}
	ended := sync.OnceFunc(func() {
		for _, s := range servers {
			_ = s.Shutdown() // it runs, so it can be shut down
		}
		running.Wait()
	})
	unwatch := context.AfterFunc(ctx, ended)
	return server, func() { unwatch(); ended() }, nil
}

// handler answers over the network.
func (z *Zone) handler(tcp bool) dns.HandlerFunc {
	return func(w dns.ResponseWriter, query *dns.Msg) {
		reply, fault := z.answer(query, tcp)
		switch fault {
		case Timeout:
			return
		case Slow:
			time.Sleep(SlowBy)
		case Garbage:
			_, _ = w.Write([]byte{0, 1, 2}) // a client that is gone does not matter
			return
		}
		if !tcp {
			reply.Truncate(1232)
		}
		_ = w.WriteMsg(reply) // likewise
	}
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: dns.Fqdn(name), Rrtype: kind, Class: dns.ClassINET, Ttl: 60}
}

// named is the record under the name that was asked for, which a wildcard's has not.
func named(rr dns.RR, name string) dns.RR {
	c := dns.Copy(rr)
	c.Header().Name = dns.Fqdn(name)
	return c
}

func plain(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
