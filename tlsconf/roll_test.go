package tlsconf

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postroom/postroom/internal/dane"
	"github.com/postroom/postroom/internal/resolve"
)

func testKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// says is what a name server answers about TLSA records.
func says(server string, ttl time.Duration, keys ...dane.TLSA) resolve.Testimony {
	t := resolve.Testimony{Server: server, Answer: resolve.Answer{TTL: ttl}}
	for _, k := range keys {
		t.Answer.Records = append(t.Answer.Records, &dns.TLSA{
			Hdr: dns.RR_Header{Rrtype: dns.TypeTLSA}, Usage: k.Usage, Selector: k.Selector, MatchingType: k.Matching, Certificate: hex.EncodeToString(k.Data),
		})
	}
	if len(keys) == 0 {
		t.Err = &resolve.Error{Kind: resolve.ErrNoData}
	}
	return t
}

// TestJudgeRoll has a row for each thing that name servers can say, at each stage of a roll.
func TestJudgeRoll(t *testing.T) {
	const ttl, margin = time.Hour, time.Minute
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	key := testKey(t)
	old, next := tlsaOf(testKey(t).Public()), tlsaOf(key.Public())
	silent := resolve.Testimony{Server: "ns2", Err: &resolve.Error{Kind: resolve.ErrTimeout}}
	for _, tc := range []struct {
		name   string
		seen   time.Duration // before now; 0: not yet
		ttl    time.Duration // longest so far
		said   []resolve.Testimony
		failed error
		use    bool
		since  time.Duration // seen afterwards; -1: not
		note   string
	}{
		{"nothing published", 0, 0, []resolve.Testimony{says("ns1", 0), says("ns2", 0)}, nil, true, -1, "nobody knows the key"},
		{"only the old one", 0, 0, []resolve.Testimony{says("ns1", ttl, old)}, nil, false, -1, "ns1 does not show"},
		{"one server is behind", 0, 0, []resolve.Testimony{says("ns1", ttl, old, next), says("ns2", ttl, old)}, nil, false, -1, "ns2 does not show"},
		{"one server has none", 0, 0, []resolve.Testimony{says("ns1", ttl, old, next), says("ns2", 0)}, nil, false, -1, "ns2 does not show"},
		{"one server is silent", 0, 0, []resolve.Testimony{says("ns1", ttl, old, next), silent}, nil, false, -1, "ns2 does not answer"},
		{"first seen", 0, ttl, []resolve.Testimony{says("ns1", time.Minute, old, next)}, nil, false, 0, "forgotten after 2026-01-01T13:01:00Z"},
		{"still remembered", ttl, ttl, []resolve.Testimony{says("ns1", time.Minute, old, next)}, nil, false, ttl, "forgotten after 2026-01-01T12:01:00Z"},
		{"forgotten", ttl + margin, ttl, []resolve.Testimony{says("ns1", time.Minute, old, next)}, nil, true, ttl + margin, ""},
		{"a longer TTL meanwhile", ttl + margin, ttl, []resolve.Testimony{says("ns1", 2*ttl, old, next)}, nil, false, ttl + margin, "forgotten after"},
		{"gone again", ttl, ttl, []resolve.Testimony{says("ns1", ttl, old)}, nil, false, -1, "ns1 does not show"},
		{"silent for a while", ttl, ttl, []resolve.Testimony{silent}, nil, false, ttl, "ns2 does not answer"},
		{"all withdrawn, and remembered", 0, ttl, []resolve.Testimony{says("ns1", 0)}, nil, false, 0, "forgotten after"},
		{"all withdrawn, and forgotten", ttl + margin, ttl, []resolve.Testimony{says("ns1", 0)}, nil, true, ttl + margin, ""},
		{"only the new one", ttl + margin, ttl, []resolve.Testimony{says("ns1", ttl, next)}, nil, true, ttl + margin, ""},
		{"no servers", ttl, ttl, nil, nil, false, ttl, "no name servers"},
		{"not found", ttl, ttl, nil, errors.New("no way"), false, ttl, "not found: no way"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := roll{key: key, made: now.Add(-24 * time.Hour), ttl: tc.ttl}
			if tc.seen > 0 {
				v.seen = now.Add(-tc.seen)
			}
			got := judgeRoll(v, tc.said, tc.failed, now, margin)
			want := time.Time{}
			if tc.since >= 0 {
				want = now.Add(-tc.since)
			}
			if got.use != tc.use || !got.seen.Equal(want) || !strings.Contains(got.note, tc.note) {
				t.Errorf("got use %t, seen %v, %q; want %t, %v, %q", got.use, got.seen, got.note, tc.use, want, tc.note)
			}
		})
	}
}
