//go:build !race

package auth_test

// raceFactor is how much slower the race detector would make things.
const raceFactor = 1
