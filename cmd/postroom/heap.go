package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// roomyHeap is how large the heap may grow before the collector runs, however little of it is in use: a small server
	// would else spend a sixth of its time on collecting a few megabytes, over and over.
	roomyHeap = 64 << 20
	// heapInterval is how often it is looked at.
	heapInterval = 5 * time.Second
)

// tuneCollector gives a small heap room, and a large one Go's usual share, until ctx ends.
func tuneCollector(ctx context.Context) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	ticker := time.NewTicker(heapInterval)
	defer ticker.Stop()
	for {
		metrics.Read(live)
		debug.SetGCPercent(gcPercent(live[0].Value.Uint64()))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// gcPercent is how much the heap may grow beyond what is in use.
func gcPercent(live uint64) int {
	const usual = 100
	if live == 0 {
		return 10 * usual // nothing was collected yet
	}
	return int(min(10*usual, max(usual, roomyHeap*100/live)))
}
