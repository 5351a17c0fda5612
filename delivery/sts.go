package delivery

import (
	"context"
	"sync"
	"time"

	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/resolve"
)

// When policies are fetched.
const (
	stsRefresh = 24 * time.Hour  // RFC 8461 section 3.3: long before they expire, whatever the id
	stsRetry   = 5 * time.Minute // RFC 8461 section 3.3: after a fetch that failed
	stsMaxAge  = 365 * 24 * time.Hour
	stsFetches = 8 // at once
)

// stsAnswer is what MTA-STS asks of a domain's hosts.
type stsAnswer struct {
	mode   stsMode
	policy stsPolicy
}

func (a stsAnswer) match(host string) bool { return a.mode != stsNone && a.policy.Match(host) }

// stsRow is what is known about a domain's policy.
type stsRow struct {
	domain  string
	id      string
	policy  []byte // empty: none was ever fetched
	fetched time.Time
	expires time.Time
	failed  time.Time // zero: the last fetch did not fail
}

// valid tells whether the policy counts. A record that is gone and a fetch that fails do not end it: only its time does (RFC
// 8461 section 3.3).
func (r stsRow) valid(now time.Time) bool { return len(r.policy) > 0 && now.Before(r.expires) }

// stale tells whether the policy is to be fetched before the next letter. id is that of the record in the DNS, "" where there is
// none. RFC 8461 section 3.3: the policy is only fetched when the id is another one.
func (r stsRow) stale(id string, now time.Time) bool {
	return r.mayFetch(id, now) && (!r.valid(now) || id != r.id)
}

// mayFetch tells whether there is a policy to be fetched, and fetching it did not fail just now.
func (r stsRow) mayFetch(id string, now time.Time) bool {
	return id != "" && !now.Before(r.failed.Add(stsRetry))
}

// stsCache gives out policies from the database, and fetches them when it is time.
type stsCache struct {
	o      Options
	fetch  func(ctx context.Context, domain string) ([]byte, error)
	limit  chan struct{} // one for each fetch under way
	mu     sync.Mutex    // guards flying
	flying map[string]chan struct{}
}

func newSTSCache(o Options) *stsCache {
	f := newFetcher(o)
	return &stsCache{o: o, fetch: f.fetch, limit: make(chan struct{}, stsFetches), flying: map[string]chan struct{}{}}
}

// get returns what counts for a domain now. What cannot be found out is no policy, RFC 8461 section 3.1 and 3.3; but a policy that is
// kept here counts, so that it is an error when it cannot be read.
func (c *stsCache) get(ctx context.Context, domain string) (stsAnswer, error) {
	id := c.lookUp(ctx, domain)
	row, err := c.load(ctx, domain)
	if err != nil {
		c.o.Log.Error("MTA-STS policy cannot be read", "domain", domain, maillog.Err, err)
		return stsAnswer{}, err
	}
	if row.stale(id, time.Now()) {
		row = c.refresh(ctx, row, id)
	}
	return row.answer(time.Now())
}

// lookUp returns the id of the record in the DNS, "" where there is none, or none can be found out.
func (c *stsCache) lookUp(ctx context.Context, domain string) string {
	records, err := c.o.Resolver.TXT(ctx, "_mta-sts."+domain)
	if err != nil {
		if resolve.IsTemporary(err) {
			c.o.Log.Info("MTA-STS record cannot be looked up", "domain", domain, maillog.Err, err)
		}
		return ""
	}
	id, err := parseTXT(records)
	if err != nil {
		return ""
	}
	return id
}

// answer is what a row means.
func (r stsRow) answer(now time.Time) (stsAnswer, error) {
	if !r.valid(now) {
		return stsAnswer{}, nil
	}
	p, err := parsePolicy(r.policy)
	return stsAnswer{mode: modeOf(p), policy: p}, err
}

// refresh fetches a policy, once for all who ask for it meanwhile, and returns what counts then.
func (c *stsCache) refresh(ctx context.Context, row stsRow, id string) stsRow {
	c.mu.Lock()
	done, flying := c.flying[row.domain]
	if !flying {
		done = make(chan struct{})
		c.flying[row.domain] = done
	}
	c.mu.Unlock()
	if flying {
		select {
		case <-done:
		case <-ctx.Done():
		}
		return c.reload(ctx, row)
	}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.flying, row.domain)
		close(done)
	}()
	return c.renew(ctx, row, id)
}

// reload reads a row again, and keeps the old one where that fails.
func (c *stsCache) reload(ctx context.Context, old stsRow) stsRow {
	row, err := c.load(ctx, old.domain)
	if err != nil {
		return old
	}
	return row
}

// renew fetches a policy and keeps it. Where that fails, the one that is there goes on to count: a failing fetch never lowers
// what a domain asked for.
func (c *stsCache) renew(ctx context.Context, row stsRow, id string) stsRow {
	select {
	case c.limit <- struct{}{}:
		defer func() { <-c.limit }()
	case <-ctx.Done():
		return row
	}
	content, err := c.fetch(ctx, row.domain)
	if ctx.Err() != nil {
		return row // stopped by us: it says nothing about the domain
	}
	now := time.Now()
	p, parseErr := stsPolicy{}, err
	if err == nil {
		p, parseErr = parsePolicy(content)
	}
	if parseErr != nil {
		c.o.Log.Warn("MTA-STS policy cannot be fetched", "domain", row.domain, maillog.Err, parseErr)
		row.failed = now
	} else {
		row = stsRow{domain: row.domain, id: id, policy: content, fetched: now, expires: now.Add(min(maxAge(p), stsMaxAge))}
	}
	if err := c.save(ctx, row); err != nil {
		c.o.Log.Error("MTA-STS policy cannot be kept", "domain", row.domain, maillog.Err, err)
	}
	return row
}

// run renews what is a day old, and forgets what has expired, until ctx ends.
func (c *stsCache) run(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		c.renewAll(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (c *stsCache) renewAll(ctx context.Context) {
	rows, err := c.due(ctx, time.Now())
	if err != nil {
		if ctx.Err() == nil {
			c.o.Log.Error("MTA-STS policies cannot be read", maillog.Err, err)
		}
		return
	}
	var renewing sync.WaitGroup
	slots := make(chan struct{}, stsFetches)
	for _, row := range rows {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		renewing.Go(func() {
			defer func() { <-slots }()
			c.renewOne(ctx, row)
		})
	}
	renewing.Wait()
}

// renewOne fetches a policy that is a day old. Where there is nothing to be fetched, that is noted, so that others have their turn first.
func (c *stsCache) renewOne(ctx context.Context, row stsRow) {
	id := c.lookUp(ctx, row.domain)
	switch {
	case row.mayFetch(id, time.Now()):
		c.refresh(ctx, row, id)
	case id == "" && ctx.Err() == nil:
		row.failed = time.Now()
		if err := c.save(ctx, row); err != nil {
			c.o.Log.Error("MTA-STS policy cannot be kept", "domain", row.domain, maillog.Err, err)
		}
	}
}
