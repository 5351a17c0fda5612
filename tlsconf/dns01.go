package tlsconf

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/libdns/libdns"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"

	"github.com/postroom/postroom/internal/resolve"
)

const (
	// challengeTTL is how long a challenge's record may be remembered.
	challengeTTL = time.Minute
	// maxPropagation is how long to wait until all name servers show it.
	maxPropagation = 3 * time.Minute
	// propagationPoll is how often they are asked.
	propagationPoll = 2 * time.Second
)

// Provider changes the records of a zone: one of libdns, or the RFC 2136 client here.
type Provider interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// DNS answers questions to the DNS; *resolve.Resolver does.
type DNS interface {
	Addresses(ctx context.Context, name string) (resolve.Addresses, error)
	CAA(ctx context.Context, name string) (records []resolve.CAA, at string, err error)
	Zone(ctx context.Context, name string) (string, error)
	Alias(ctx context.Context, name string) (string, error)
	AuthoritativeTXT(ctx context.Context, name string) ([]resolve.Testimony, error)
	AuthoritativeTLSA(ctx context.Context, name string) ([]resolve.Testimony, error)
}

var _ DNS = (*resolve.Resolver)(nil)

// dnsSolver proves names with TXT records: RFC 8555 section 8.4. The library's own would ask the system's resolvers.
type dnsSolver struct {
	provider Provider
	dns      DNS

	mu     sync.Mutex // guards placed
	placed map[string]placed
}

// placed is a record that is to be removed again.
type placed struct {
	zone   string // with the final dot
	record libdns.Record
}

var (
	_ acmez.Solver = (*dnsSolver)(nil)
	_ acmez.Waiter = (*dnsSolver)(nil)
)

// Present places the record: where an alias leads, since the authority follows it, too.
func (s *dnsSolver) Present(ctx context.Context, c acme.Challenge) error {
	name, err := s.dns.Alias(ctx, c.DNS01TXTRecordName())
	if err != nil {
		return err
	}
	zone, err := s.dns.Zone(ctx, name)
	if err != nil {
		return fmt.Errorf("the zone of %s is not found: %w", name, err)
	}
	record := libdns.TXT{Name: libdns.RelativeName(name, zone), Text: c.DNS01KeyAuthorization(), TTL: challengeTTL}
	done, err := s.provider.AppendRecords(ctx, zone+".", []libdns.Record{record})
	if err != nil {
		return fmt.Errorf("the DNS provider did not take a TXT record for %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.placed == nil {
		s.placed = map[string]placed{}
	}
	p := placed{zone + ".", record}
	if len(done) == 1 {
		p.record = done[0] // some remember an id in it
	}
	s.placed[c.DNS01KeyAuthorization()] = p
	return nil
}

// Wait waits until all name servers that answer show the record. Where they are not found, or none of them answers us, the authority may
// try: it is not we who have to see it.
func (s *dnsSolver) Wait(ctx context.Context, c acme.Challenge) error {
	name, err := s.dns.Alias(ctx, c.DNS01TXTRecordName())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, maxPropagation, fmt.Errorf("not all name servers of %s show the TXT record that was placed there, after %s", name, maxPropagation))
	defer cancel()
	ticker := time.NewTicker(propagationPoll)
	defer ticker.Stop()
	for heard := false; ; {
		said, err := s.dns.AuthoritativeTXT(ctx, name)
		if ctx.Err() == nil && err != nil {
			return nil
		}
		answered, all := shown(said, c.DNS01KeyAuthorization())
		if all {
			return nil
		}
		heard = heard || answered
		select {
		case <-ctx.Done():
			if !heard && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil
			}
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// shown tells whether any server answered, and whether all that did have the text.
func shown(said []resolve.Testimony, text string) (answered, all bool) {
	for _, t := range said {
		if resolve.IsTemporary(t.Err) {
			continue
		}
		answered = true
		found := false
		for _, txt := range t.Answer.TXT() {
			found = found || txt == text
		}
		if !found {
			return true, false
		}
	}
	return answered, answered
}

// CleanUp removes the record, also where the order was given up.
func (s *dnsSolver) CleanUp(ctx context.Context, c acme.Challenge) error {
	s.mu.Lock()
	p, ok := s.placed[c.DNS01KeyAuthorization()]
	delete(s.placed, c.DNS01KeyAuthorization())
	s.mu.Unlock()
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if _, err := s.provider.DeleteRecords(ctx, p.zone, []libdns.Record{p.record}); err != nil {
		return fmt.Errorf("the TXT record at %s.%s is not removed: %w", p.record.RR().Name, p.zone, err)
	}
	return nil
}

// RFC2136 changes zones by dynamic updates, signed with TSIG (RFC 8945).
type RFC2136 struct {
	Server    string // host:port of the primary server
	KeyName   string
	Algorithm string // such as hmac-sha256
	Secret    string // base64
}

var _ Provider = (*RFC2136)(nil)

// AppendRecords adds records.
func (r *RFC2136) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, r.update(ctx, zone, records, (*dns.Msg).Insert)
}

// DeleteRecords removes exactly these records.
func (r *RFC2136) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, r.update(ctx, zone, records, (*dns.Msg).Remove)
}

// update sends one update and reads what became of it: RFC 2136 section 3.8.
func (r *RFC2136) update(ctx context.Context, zone string, records []libdns.Record, change func(*dns.Msg, []dns.RR)) error {
	zone = dns.Fqdn(zone)
	var rrs []dns.RR
	for _, record := range records {
		rr := record.RR()
		if rr.Type != "TXT" {
			return fmt.Errorf("only TXT records are changed, not %s", rr.Type)
		}
		header := dns.RR_Header{Name: libdns.AbsoluteName(rr.Name, zone), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(rr.TTL.Seconds())}
		rrs = append(rrs, &dns.TXT{Hdr: header, Txt: []string{strings.ReplaceAll(rr.Data, `\`, `\\`)}})
	}
	message := new(dns.Msg)
	message.SetUpdate(zone)
	change(message, rrs)
	client := &dns.Client{Net: "tcp", Timeout: 20 * time.Second}
	if r.KeyName != "" {
		name := dns.CanonicalName(r.KeyName)
		client.TsigSecret = map[string]string{name: r.Secret}
		message.SetTsig(name, dns.Fqdn(r.Algorithm), 300, time.Now().Unix())
	}
	reply, _, err := client.ExchangeContext(ctx, message, r.Server)
	switch {
	case err != nil:
		return fmt.Errorf("the name server %s: %w", r.Server, err)
	case r.KeyName != "" && reply.IsTsig() == nil:
		return fmt.Errorf("the name server %s does not sign its answer (%s): see that it knows the key %s", r.Server, dns.RcodeToString[reply.Rcode], r.KeyName)
	case reply.Rcode != dns.RcodeSuccess:
		return fmt.Errorf("the name server %s refuses to change %s: %s", r.Server, zone, dns.RcodeToString[reply.Rcode])
	}
	return nil
}
