//go:build !race

package inbound

// raceFactor is how much slower the race detector would make things.
const raceFactor = 1
