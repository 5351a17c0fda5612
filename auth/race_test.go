//go:build race

package auth_test

// raceFactor is how much slower the race detector makes things.
const raceFactor = 15
