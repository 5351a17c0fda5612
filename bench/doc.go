// Package bench measures Postroom beside its peers. bench/load makes the load, bench/compare runs it on each server in turn
// and writes RESULTS.md; README.md says how.
package bench
