package limit

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRate[string](RateOptions{Events: 6, Per: time.Minute, Burst: 2})
		allowed := func(key string) int {
			n := 0
			for r.Allow(key) {
				n++
			}
			return n
		}
		if n := allowed("a"); n != 2 {
			t.Errorf("%d at once, want 2", n)
		}
		if n := allowed("b"); n != 2 {
			t.Errorf("another key: %d at once, want 2", n)
		}
		time.Sleep(10 * time.Second)
		if n := allowed("a"); n != 1 {
			t.Errorf("%d after ten seconds, want 1", n)
		}
		time.Sleep(time.Hour)
		if r.AllowN("a", 3) {
			t.Error("three at once were allowed")
		}
		if n := allowed("a"); n != 2 {
			t.Errorf("%d after an hour, want 2: a refusal costs nothing", n)
		}
	})
}

func TestRateForgetsTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRate[int](RateOptions{Events: 1, Per: time.Hour, MaxKeys: 3})
		for _, key := range []int{1, 2, 3, 1, 4} { // 2 is the one not used for longest
			r.Allow(key)
		}
		if r.Len() != 3 {
			t.Errorf("%d keys, want 3", r.Len())
		}
		for _, key := range []int{1, 3, 4} {
			if r.Allow(key) {
				t.Errorf("key %d was forgotten", key)
			}
		}
		if !r.Allow(2) {
			t.Error("key 2 was not forgotten")
		}
		for key := range 10_000 {
			r.Allow(key)
		}
		if r.Len() != 3 || r.recent.Len() != 3 {
			t.Errorf("%d keys, %d in order, want 3", r.Len(), r.recent.Len())
		}
	})
}

func TestRateZero(t *testing.T) {
	var none *Rate[string]
	if !none.Allow("a") || !none.AllowN("a", 1000) || none.Len() != 0 {
		t.Error("a nil Rate limits")
	}
	synctest.Test(t, func(t *testing.T) {
		r := NewRate[string](RateOptions{})
		if !r.Allow("a") || r.Allow("a") {
			t.Error("the zero options do not mean one a second")
		}
		time.Sleep(time.Second)
		if !r.Allow("a") {
			t.Error("not allowed after a second")
		}
	})
}

func TestThroughput(t *testing.T) {
	type step struct {
		after  time.Duration
		octets int
	}
	repeat := func(n int, s step) (steps []step) {
		for range n {
			steps = append(steps, s)
		}
		return steps
	}
	for _, tc := range []struct {
		name  string
		steps []step // all but the last are fast enough
		want  error
	}{
		{"fast", repeat(100, step{time.Second, 2000}), nil},
		{"just enough", repeat(120, step{time.Second, 1024}), nil},
		{"slow", repeat(60, step{time.Second, 1000}), ErrTooSlow},
		{"slow in the second window", append(repeat(60, step{time.Second, 5000}), repeat(60, step{time.Second, 1000})...), ErrTooSlow},
		{"short and slow", repeat(59, step{time.Second, 1}), nil},
		{"one long silence", []step{{50 * time.Second, 0}, {100 * time.Second, 100_000}}, ErrTooSlow},
		{"a silence made good", []step{{50 * time.Second, 0}, {100 * time.Second, 150 << 10}}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				guard := Throughput{MinOctets: 60 << 10, Window: time.Minute}
				guard.Start()
				for i, s := range tc.steps {
					time.Sleep(s.after)
					want := error(nil)
					if i == len(tc.steps)-1 {
						want = tc.want
					}
					if err := guard.Add(s.octets); err != want {
						t.Fatalf("step %d: %v, want %v", i+1, err, want)
					}
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		var none Throughput
		notStarted := Throughput{MinOctets: 1, Window: time.Second}
		time.Sleep(time.Hour)
		if none.Add(0) != nil || notStarted.Add(0) != nil {
			t.Error("a guard that guards nothing, or was not started, complains")
		}
	})
}

func BenchmarkRate(b *testing.B) {
	r := NewRate[int](RateOptions{Events: 1000, MaxKeys: 1000})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.Allow(i % 2000)
	}
}
