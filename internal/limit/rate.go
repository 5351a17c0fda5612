package limit

import (
	"container/list"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate limits events per key, each with its own token bucket. It remembers the keys used last, up to a number, so its
// memory is bounded; a forgotten key starts anew with a full bucket. A nil Rate allows everything.
type Rate[K comparable] struct {
	perSecond rate.Limit
	burst     int
	maxKeys   int

	mu      sync.Mutex // guards the two below
	buckets map[K]*list.Element
	recent  *list.List // of *bucket[K], the one used last in front
}

type bucket[K comparable] struct {
	key K
	*rate.Limiter
}

// RateOptions say how many events are allowed. Events below one are taken as one.
type RateOptions struct {
	Events  int           // so many events ...
	Per     time.Duration // ... in this time, in the long run; zero means a second
	Burst   int           // at once; zero means Events
	MaxKeys int           // remembered; zero means 10,000
}

const defaultMaxKeys = 10_000

// NewRate makes a limiter.
func NewRate[K comparable](o RateOptions) *Rate[K] {
	o.Events = max(o.Events, 1)
	if o.Per <= 0 {
		o.Per = time.Second
	}
	return &Rate[K]{
		perSecond: rate.Limit(float64(o.Events) / o.Per.Seconds()),
		burst:     max(orDefault(o.Burst, o.Events), 1),
		maxKeys:   max(orDefault(o.MaxKeys, defaultMaxKeys), 1),
		buckets:   make(map[K]*list.Element),
		recent:    list.New(),
	}
}

// Allow tells whether one more event of this key may happen now, and counts it if so.
func (r *Rate[K]) Allow(key K) bool { return r.AllowN(key, 1) }

// AllowN is Allow for n events at once, all or none.
func (r *Rate[K]) AllowN(key K, n int) bool {
	return r == nil || r.limiter(key).AllowN(time.Now(), n)
}

func (r *Rate[K]) limiter(key K) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.buckets[key]; ok {
		r.recent.MoveToFront(e)
		return e.Value.(*bucket[K]).Limiter
	}
	if len(r.buckets) >= r.maxKeys {
		oldest := r.recent.Back()
		delete(r.buckets, r.recent.Remove(oldest).(*bucket[K]).key)
	}
	b := &bucket[K]{key, rate.NewLimiter(r.perSecond, r.burst)}
	r.buckets[key] = r.recent.PushFront(b)
	return b.Limiter
}

// Len is how many keys are remembered.
func (r *Rate[K]) Len() int {
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.buckets)
}
