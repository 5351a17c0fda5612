package delivery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/database/databasetest"
	"github.com/postroom/postroom/internal/resolve/zone"
)

func TestPolicyStale(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	good := stsRow{id: "1", policy: []byte("x"), fetched: now.Add(-time.Hour), expires: now.Add(time.Hour)}
	over, failing := good, good
	over.expires = now
	failing.failed = now.Add(-time.Minute)
	for _, tc := range []struct {
		name         string
		row          stsRow
		id           string
		valid, stale bool
	}{
		{"nothing known, no record", stsRow{}, "", false, false},
		{"nothing known, a record", stsRow{}, "1", false, true},
		{"the same id", good, "1", true, false},
		{"another id", good, "2", true, true},
		{"the record is gone", good, "", true, false},
		{"expired, the same id", over, "1", false, true},
		{"expired, the record is gone", over, "", false, false},
		{"another id, fetching failed just now", failing, "2", true, false},
		{"nothing known, fetching failed just now", stsRow{failed: now.Add(-time.Minute)}, "1", false, false},
		{"nothing known, fetching failed a while ago", stsRow{failed: now.Add(-stsRetry)}, "1", false, true},
	} {
		if got := tc.row.valid(now); got != tc.valid {
			t.Errorf("%s: valid %t", tc.name, got)
		}
		if got := tc.row.stale(tc.id, now); got != tc.stale {
			t.Errorf("%s: stale %t", tc.name, got)
		}
	}
}

// stsWorld is a cache whose fetches are counted and answered by the test.
type stsWorld struct {
	*world
	cache *stsCache

	mu      sync.Mutex // guards what follows
	answer  string     // "" fails
	fetches int
	pause   time.Duration
}

func newSTSWorld(t *testing.T) *stsWorld {
	w := &stsWorld{world: newWorld(t)}
	w.options.DB = databasetest.Open(t)
	w.cache = newSTSCache(w.options)
	w.cache.fetch = func(context.Context, string) ([]byte, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.fetches++
		time.Sleep(w.pause)
		if w.answer == "" {
			return nil, errors.New("no policy")
		}
		return []byte(w.answer), nil
	}
	return w
}

func (w *stsWorld) record(id string) {
	w.zone.Remove("_mta-sts.remote.example")
	if id != "" {
		w.zone.AddTXT("_mta-sts.remote.example", "v=STSv1; id="+id+";")
	}
	time.Sleep(25 * time.Hour) // longer than the resolver remembers
}

func policyText(mode, mx string, age time.Duration) string {
	return fmt.Sprintf("version: STSv1\r\nmode: %s\r\nmx: %s\r\nmax_age: %d\r\n", mode, mx, int(age.Seconds()))
}

// check asks for the policy and compares mode, host and number of fetches.
func (w *stsWorld) check(step, want string) {
	w.Helper()
	a, err := w.cache.get(w.Context(), "remote.example")
	if err != nil {
		w.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	got := fmt.Sprint([]string{"none", "testing", "enforce"}[a.mode], " ", a.match("mx.remote.example"), " ", w.fetches)
	if got != want {
		w.Errorf("%s: %s, want %s", step, got, want)
	}
}

// TestPolicyLife follows one domain: an enforced policy outlives its record and every fetch that fails, until its time is over.
func TestPolicyLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSTSWorld(t)
		week := 7 * 24 * time.Hour
		w.check("no record", "none false 0")
		w.record("1")
		w.check("the policy host is down", "none false 1")
		w.check("again at once", "none false 1")
		time.Sleep(stsRetry)
		w.answer = policyText("enforce", "mx.remote.example", week)
		w.check("the policy host is up", "enforce true 2")
		w.check("the same id", "enforce true 2")
		w.record("")
		w.check("the record is gone", "enforce true 2")
		w.answer = ""
		w.record("2")
		w.check("another id, the policy host is down", "enforce true 3")
		w.answer = "version: STSv1\r\nmode: none"
		time.Sleep(stsRetry)
		w.check("another id, a policy that is none", "enforce true 4")
		w.zone.SetFault("_mta-sts.remote.example", zone.ServFail)
		time.Sleep(25 * time.Hour)
		w.check("the DNS fails", "enforce true 4")
		w.zone.SetFault("_mta-sts.remote.example", zone.None)
		w.answer = policyText("testing", "other.example", week)
		time.Sleep(time.Hour)
		w.check("another id, testing", "testing false 5")
		w.answer = policyText("none", "mx.remote.example", week)
		w.record("3")
		w.check("another id, none", "none false 6")
		w.answer = policyText("enforce", "mx.remote.example", time.Hour)
		w.record("4")
		w.check("another id, for an hour", "enforce true 7")
		time.Sleep(time.Hour)
		w.answer = ""
		w.check("its time is over", "none false 8")
		w.options.Resolver.(interface{ Close() }).Close()
	})
}

// TestOneFetch shows that many letters at once cost one fetch.
func TestOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSTSWorld(t)
		w.record("1")
		w.answer, w.pause = policyText("enforce", "mx.remote.example", time.Hour), 10*time.Second
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if a, err := w.cache.get(t.Context(), "remote.example"); err != nil || a.mode != stsEnforce {
					t.Errorf("mode %d", a.mode)
				}
			})
		}
		all.Wait()
		if w.fetches != 1 {
			t.Errorf("%d fetches", w.fetches)
		}
		w.options.Resolver.(interface{ Close() }).Close()
	})
}

// TestUnreadablePolicy shows that a policy that is kept, and cannot be read now, is not taken for none.
func TestUnreadablePolicy(t *testing.T) {
	for name, spoil := range map[string]string{"no table": "DROP TABLE mta_sts", "no policy": "UPDATE mta_sts SET policy = 'x'"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.options.DB, w.options.Sealer = databasetest.Open(t), sealer(t, 1)
				w.serve("192.0.2.1", (&sink{}).serve)
				d, end := w.deliverer()
				defer end()
				w.publishSTS(d, "enforce", "mx.remote.example")
				checkMatch(t, "outcome", "deferred 4.7.10 *", describeOutcome(send(t, d, "ben@remote.example")))
				if err := w.options.DB.Write(t.Context(), func(tx *database.Tx) error { _, err := tx.Exec(spoil); return err }); err != nil {
					t.Fatal(err)
				}
				checkMatch(t, "outcome", "deferred 4.3.0 local | the MTA-STS policy*", describeOutcome(send(t, d, "ben@remote.example")))
			})
		})
	}
}

// TestRenewalOrder shows that policies that cannot be renewed do not stand before the others.
func TestRenewalOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSTSWorld(t)
		w.record("1")
		w.answer = policyText("enforce", "mx.remote.example", 30*24*time.Hour)
		w.check("first", "enforce true 1")
		time.Sleep(time.Minute)
		begun := time.Now()
		for i := range maxRenewals { // older ones, without a record
			row := stsRow{domain: fmt.Sprintf("n%d.example", i), id: "1", policy: []byte("x"), fetched: begun.Add(-time.Hour), expires: begun.Add(300 * 24 * time.Hour)}
			if err := w.cache.save(t.Context(), row); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(24 * time.Hour)
		w.cache.renewAll(t.Context())
		w.cache.renewAll(t.Context())
		if w.mu.Lock(); w.fetches != 2 {
			t.Errorf("%d fetches", w.fetches)
		}
		w.mu.Unlock()
		w.options.Resolver.(interface{ Close() }).Close()
	})
}

// TestRenewal shows that policies are fetched again each day, and forgotten when they are over.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSTSWorld(t)
		w.zone.AddTXT("_mta-sts.remote.example", "v=STSv1; id=1;")
		w.answer = policyText("enforce", "mx.remote.example", 2*24*time.Hour)
		w.check("first", "enforce true 1")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.cache.run(ctx) }()
		time.Sleep(4*24*time.Hour + time.Minute)
		w.mu.Lock()
		if w.fetches < 4 || w.fetches > 5 {
			t.Errorf("%d fetches in 4 days", w.fetches)
		}
		w.fetches, w.answer = 0, ""
		w.mu.Unlock()
		w.check("after 4 days", "enforce true 0")
		time.Sleep(4 * 24 * time.Hour)
		cancel()
		<-done
		n := -1
		err := w.options.DB.Read(t.Context(), func(tx *database.Tx) error { return tx.QueryRow("SELECT count(*) FROM mta_sts").Scan(&n) })
		if err != nil || n != 0 {
			t.Errorf("%d policies are kept, %v", n, err)
		}
		if !strings.Contains(w.log.String(), "cannot be fetched") {
			t.Error("nobody was told that fetching fails")
		}
		w.options.Resolver.(interface{ Close() }).Close()
	})
}
