//go:build race

package dkim

// raceFactor is how much slower the race detector makes things.
const raceFactor = 15
