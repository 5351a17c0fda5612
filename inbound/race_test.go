//go:build race

package inbound

// raceFactor is how much slower the race detector makes things.
const raceFactor = 15
