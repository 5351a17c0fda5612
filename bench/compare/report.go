package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// report collects figures, and prints each as it comes.
type report struct {
	versions []string
	rows     []string
	cells    []string
	notes    []string
}

// add is one work with its goal.
func (r *report) add(work, goal, figure string, reached bool) {
	mark := "yes"
	if !reached {
		mark = "**no**"
	}
	r.rows = append(r.rows, fmt.Sprintf("| %s | %s | %s | %s |", work, goal, figure, mark))
	fmt.Fprintf(os.Stderr, "%s: %s (goal: %s): %s\n", work, figure, goal, mark)
}

func (r *report) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// ratio is a work in which Postroom is to be so many times as fast as its peer.
func (r *report) ratio(work string, goal float64, unit string, ours, theirs float64) {
	if theirs == 0 {
		r.note("%s: %.0f %s.", work, ours, unit)
		return
	}
	r.add(work, fmt.Sprintf("%g times the peer's rate or better", goal), fmt.Sprintf("%.1f times: %.0f and %.0f %s", ours/theirs, ours, theirs, unit), ours/theirs >= goal)
}

// listing is a work in which Postroom is to take no longer than its peer. The first login pays for the password hash.
func (r *report) listing(letters int, ours, theirs, oursFirst, theirsFirst float64) {
	if theirs == 0 {
		r.note("login, STAT, UIDL of %d letters: %s, at the first login %s.", letters, seconds(ours), seconds(oursFirst))
		return
	}
	r.add(fmt.Sprintf("POP3S, login remembered: login + STAT + UIDL of %d letters", letters), "the peer's time or less",
		fmt.Sprintf("%s and %s; at the first login %s (bcrypt, cost 12) and %s (SHA512-CRYPT)", seconds(ours), seconds(theirs), seconds(oursFirst), seconds(theirsFirst)), ours <= theirs)
}

// rawGoals are the parts of the machine's limit that are to be reached.
var rawGoals = map[[2]int]float64{{10 << 10, 50}: 0.15, {10 << 10, 1}: 0.5, {100 << 10, 50}: 0.3}

// cell is one size at one number of connections.
func (r *report) cell(size, connections int, raw float64, servers []server, medians []delivery) {
	for i, d := range medians {
		line := fmt.Sprintf("| %s | %d | %s | %.0f | %s | %s | %.2f | %.2f | %.2f |", kib(size), connections, servers[i].name(), d.stored, ms(d.p50), ms(d.p99), d.cpu, d.written, d.stored/raw)
		r.cells = append(r.cells, line)
		fmt.Fprintln(os.Stderr, line)
	}
	what := fmt.Sprintf("%s letters, %d connections", kib(size), connections)
	ours := medians[0]
	if size == 10<<10 && connections == 10 {
		r.ratio(what, 10, "letters/s stored", ours.stored, peer(medians, func(d delivery) float64 { return d.stored }))
		r.add(what+": p99 of the final 250", "under 10 ms", ms(ours.p99), ours.p99 < 10*time.Millisecond)
		r.add(what+": CPU for 1,000 letters", "under 0.5 s", fmt.Sprintf("%.2f s", ours.cpu), ours.cpu < 0.5)
		r.add(what+": written to the disk", "at most 3.2 times the payload", fmt.Sprintf("%.2f times", ours.written), ours.written <= 3.2)
	} else {
		r.ratio(what, 1, "letters/s stored", ours.stored, peer(medians, func(d delivery) float64 { return d.stored }))
	}
	if goal, ok := rawGoals[[2]int{size, connections}]; ok {
		r.add(what+": part of raw group commit", fmt.Sprintf("%.2f or better", goal), fmt.Sprintf("%.2f (of %.0f/s)", ours.stored/raw, raw), ours.stored/raw >= goal)
	}
}

func kib(size int) string {
	if size >= 1<<20 {
		return fmt.Sprintf("%d MB", size>>20)
	}
	return fmt.Sprintf("%d KB", size>>10)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func seconds(s float64) string { return fmt.Sprintf("%.1f ms", s*1000) }

// write writes the page.
func (r *report) write(path string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# How fast it is, side by side\n\nWritten by `go run ./bench/compare` on %s; README.md says what each row means.\n\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	fmt.Fprintf(&b, "Machine: %d cores (%s), %s, Linux; %s. Versions: %s. Load generator and servers share the machine.\n\n", runtime.NumCPU(), cpuModel(), memory(), runtime.Version(), strings.Join(r.versions, "; "))
	b.WriteString("All checks on (SPF, DKIM, DMARC, iprev), letters signed with RSA-2048, durable before the 250. Postfix and Dovecot check nothing.\n\n")
	b.WriteString("| work | goal | figure | reached |\n|---|---|---|---|\n" + strings.Join(r.rows, "\n") + "\n")
	if len(r.cells) > 0 {
		b.WriteString("\n## Letters, size by connections\n\n| size | connections | server | stored/s | 250 p50 | p99 | CPU s/1,000 | written/payload | of raw |\n|---|---|---|---|---|---|---|---|---|\n" + strings.Join(r.cells, "\n") + "\n")
	}
	if len(r.notes) > 0 {
		b.WriteString("\n" + strings.Join(r.notes, "\n\n") + "\n")
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// cpuModel and memory describe the machine, as far as it tells.
func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // a machine without one has no name
	_, rest, _ := strings.Cut(string(text), "model name\t: ")
	name, _, _ := strings.Cut(rest, "\n")
	return name
}

func memory() string {
	text, _ := os.ReadFile("/proc/meminfo") // the same
	var kib float64
	_, rest, _ := strings.Cut(string(text), "MemTotal:")
	_, _ = fmt.Sscan(rest, &kib)
	return fmt.Sprintf("%.0f GiB", kib/(1<<20))
}
