package tlsconf

import (
	"fmt"
	"slices"
	"time"

	"github.com/postroom/postroom/internal/dane"
	"github.com/postroom/postroom/internal/resolve"
)

// judgeRoll says how far the roll of a key is, from what the name servers say about the TLSA records of port 25. The next key is used
// once every cache has forgotten the records that were there before its own (RFC 7671 section 8.1): whoever still knows the
// older ones would refuse it.
func judgeRoll(v roll, said []resolve.Testimony, failed error, now time.Time, margin time.Duration) roll {
	if failed != nil {
		v.note = "its name servers are not found: " + oneLine(failed.Error())
		return v
	}
	next, published := tlsaOf(v.key.Public()), false
	missing := ""
	for _, t := range said {
		switch {
		case resolve.IsTemporary(t.Err):
			v.note = fmt.Sprintf("%s does not answer: %s", t.Server, oneLine(t.Err.Error()))
			return v // what it was seen to show before still counts
		case t.Err == nil:
			published = true
			v.ttl = max(v.ttl, t.Answer.TTL)
		}
		if !slices.ContainsFunc(t.Answer.TLSA(), func(r resolve.TLSA) bool { return sameTLSA(r, next) }) {
			missing = t.Server
		}
	}
	switch {
	case len(said) == 0:
		v.note = "it has no name servers"
	case !published && v.ttl == 0:
		v.use, v.note = true, "no TLSA record is published, so nobody knows the key"
	case published && missing != "":
		v.seen, v.note = time.Time{}, fmt.Sprintf("%s does not show its TLSA record yet", missing)
	case v.seen.IsZero():
		v.seen = now
		fallthrough
	default:
		until := v.seen.Add(v.ttl + margin)
		v.use, v.note = !now.Before(until), "the TLSA records before it are forgotten after "+until.UTC().Format(time.RFC3339)
	}
	return v
}

func sameTLSA(a resolve.TLSA, b dane.TLSA) bool {
	return a.Usage == b.Usage && a.Selector == b.Selector && a.Matching == b.Matching && string(a.Data) == string(b.Data)
}
