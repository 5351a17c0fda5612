package web

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestReady(t *testing.T) {
	fine := func(context.Context) error { return nil }
	for _, tc := range []struct {
		name   string
		checks []Check
		status int
		body   string
	}{
		{"nothing to check", nil, 200, ""},
		{"all well", []Check{{"database", fine}, {"disk", fine}}, 200, "database: ok\ndisk: ok\n"},
		{"one is not", []Check{{"database", fine}, {"certificate", func(context.Context) error { return errors.New("it ended") }}, {"disk", fine}},
			503, "database: ok\ncertificate: it ended\ndisk: ok\n"},
		{"one takes too long", []Check{{"database", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}, {"disk", fine}}, 503, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				a := get(Admin{Metrics: http.NotFoundHandler(), Checks: tc.checks}.Handler(), "http://127.0.0.1/readyz")
				if a.status != tc.status || tc.body != "" && a.body != tc.body {
					t.Errorf("got %s", a)
				}
				if took := time.Since(start); took > checkTime {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// TestHangingCheck shows that a check that does not end runs once, however often it is asked for, and counts again when it has
// ended.
func TestHangingCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		end := make(chan struct{})
		h := Admin{Metrics: http.NotFoundHandler(), Checks: []Check{{"database", func(context.Context) error {
			runs.Add(1)
			<-end // a disk that does not answer does not look at deadlines
			return nil
		}}}}.Handler()
		for range 5 {
			start := time.Now()
			if a := get(h, "http://127.0.0.1/readyz"); a.status != 503 || !strings.Contains(a.body, "database: still waiting") || time.Since(start) != checkTime {
				t.Errorf("after %v: %s", time.Since(start), a)
			}
		}
		if n := runs.Load(); n != 1 {
			t.Errorf("%d runs", n)
		}
		close(end)
		synctest.Wait()
		if a := get(h, "http://127.0.0.1/readyz"); a.status != 200 || runs.Load() != 2 {
			t.Errorf("%d runs, %s", runs.Load(), a)
		}
	})
}

func TestAdmin(t *testing.T) {
	h := Admin{Metrics: NewMetrics("v1").Handler(sources())}.Handler()
	for _, tc := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/healthz", 200}, {"HEAD", "/healthz", 200}, {"GET", "/readyz", 200}, {"GET", "/metrics", 200},
		{"POST", "/metrics", 405}, {"POST", "/healthz", 405}, {"GET", "/", 404}, {"GET", "/metrics/", 404}, {"GET", "/debug/pprof/", 404},
	} {
		if a := ask(h, tc.method, "http://127.0.0.1"+tc.path, nil); a.status != tc.want {
			t.Errorf("%s %s: %d, want %d", tc.method, tc.path, a.status, tc.want)
		}
	}
}
