package resolve

import (
	"strings"
	"time"

	"github.com/miekg/dns"
)

// How long outcomes are kept.
const (
	maxTTL          = 24 * time.Hour
	maxNegativeTTL  = 15 * time.Minute // RFC 2308 section 5 allows hours; an operator who mends a record should not wait
	defaultNegative = time.Minute      // without a SOA
	failureTTL      = 5 * time.Second  // RFC 2308 section 7 allows up to five minutes
)

// Bounds of one answer.
const (
	maxAnswers = 4    // queries for one chain of CNAMEs
	maxChain   = 10   // CNAMEs in one chain
	maxRecords = 1000 // in one answer
)

// chain is the way from a question to its answer.
type chain struct {
	question key
	name     string // that is asked for now
	cnames   int
	secure   bool // all answers so far are
	ttl      time.Duration
	end      outcome
}

// follow reads a reply. It returns false where another question must be asked, for c.name.
func (c *chain) follow(reply *dns.Msg, trustAD bool) (done bool) {
	c.secure = c.secure && trustAD && reply.AuthenticatedData
	if len(reply.Answer) > maxRecords {
		c.end = c.question.failed(ErrServer, "too many records")
		return true
	}
	moved := c.followCNAMEs(reply.Answer)
	if c.cnames > maxChain {
		c.end = c.question.failed(ErrServer, "a loop of CNAMEs")
		return true
	}
	var found []dns.RR
	octets := 0
	for _, rr := range reply.Answer {
		if rr.Header().Rrtype == c.question.qtype && sameName(rr.Header().Name, c.name) {
			found = append(found, rr)
			octets += dns.Len(rr)
			c.shorten(rr)
		}
	}
	switch {
	case len(found) > 0:
		c.end = outcome{octets: octets, expires: time.Now().Add(c.ttl), answer: Answer{Records: found, Name: c.name, Secure: c.secure, TTL: c.ttl}}
	case reply.Rcode == dns.RcodeNameError:
		c.end = c.negative(ErrNotFound, reply)
	case moved:
		return false // the target is in another zone
	default:
		c.end = c.negative(ErrNoData, reply)
	}
	return true
}

// followCNAMEs walks through those of one reply.
func (c *chain) followCNAMEs(records []dns.RR) (moved bool) {
	if c.question.qtype == dns.TypeCNAME {
		return false
	}
	for again := true; again && c.cnames <= maxChain; {
		again = false
		for _, rr := range records {
			if cname, ok := rr.(*dns.CNAME); ok && sameName(cname.Hdr.Name, c.name) {
				c.name = strings.ToLower(strings.TrimSuffix(cname.Target, "."))
				c.cnames++
				c.shorten(rr)
				again, moved = true, true
				break
			}
		}
	}
	return moved
}

func (c *chain) shorten(rr dns.RR) {
	c.ttl = min(c.ttl, time.Duration(rr.Header().Ttl)*time.Second)
}

// negative is kept as long as the zone says: RFC 2308 section 5, the smaller of the SOA's TTL and its last field.
func (c *chain) negative(kind error, reply *dns.Msg) outcome {
	ttl := defaultNegative
	for _, rr := range reply.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			ttl = min(time.Duration(min(soa.Minttl, soa.Hdr.Ttl))*time.Second, maxNegativeTTL)
		}
	}
	return outcome{err: c.question.fail(kind, ""), expires: time.Now().Add(min(ttl, c.ttl))}
}

func (c *chain) outcome() outcome { return c.end }

func sameName(wire, name string) bool { return strings.EqualFold(strings.TrimSuffix(wire, "."), name) }
