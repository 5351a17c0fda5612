package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/postroom/postroom/bench/load"
)

// fetching is POP3S: a long listing, retrieval, and many short sessions, each with the login remembered.
func (b *bench) fetching(ctx context.Context) error {
	many, some, during := 20_000, 1000, 5*time.Second
	if b.quick {
		many, some, during = 500, 50, time.Second
	}
	if err := b.fill(ctx, listBox, 1<<10, many); err != nil {
		return err
	}
	if err := b.fill(ctx, fetchBox, 10<<10, some); err != nil {
		return err
	}
	var first, listing, retrieval, sessions [2][]float64
	for round := range b.rounds + 1 {
		for i, s := range b.servers {
			config, err := b.trust(s)
			if err != nil {
				return err
			}
			p := load.POP3{Addr: s.pop3s(), TLS: config, Login: listBox, Password: password}
			took, count, err := p.Listing(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name(), err)
			}
			if count != many {
				return fmt.Errorf("%s lists %d letters of %d", s.name(), count, many)
			}
			if round == 0 { // the login is not remembered yet
				first[i] = append(first[i], took.Seconds())
				continue
			}
			listing[i] = append(listing[i], took.Seconds())
			p.Login = fetchBox
			rate, _, err := p.Retrieve(ctx, 16)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name(), err)
			}
			retrieval[i] = append(retrieval[i], rate)
			rate, err = p.Sessions(ctx, 10, during, account)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name(), err)
			}
			sessions[i] = append(sessions[i], rate)
		}
	}
	b.report.listing(many, medianOf(listing[0]), medianOf(listing[1]), medianOf(first[0]), medianOf(first[1]))
	b.report.ratio("pipelined RETR of 10 KB letters, 16 ahead", 1, "letters/s", medianOf(retrieval[0]), medianOf(retrieval[1]))
	b.report.ratio("new POP3S sessions (login, STAT, UIDL, QUIT), 10 at once", 5, "sessions/s", medianOf(sessions[0]), medianOf(sessions[1]))
	return nil
}

// fill puts letters into one maildrop of each server.
func (b *bench) fill(ctx context.Context, box string, size, count int) error {
	letters, err := load.NewLetters(b.key, box, size)
	if err != nil {
		return err
	}
	for _, s := range b.servers {
		if _, err := b.deliver(ctx, s, load.SMTP{Connections: 20, Count: count, Letters: letters, To: func(int) string { return box }}); err != nil {
			return err
		}
	}
	return nil
}

// idle is what a connection costs that does nothing.
func (b *bench) idle(ctx context.Context) error {
	for _, work := range []struct {
		what   string
		secure bool
		limit  float64
	}{{"plain", false, 18}, {"TLS", true, 38}} {
		for i, s := range b.servers {
			n := 2000
			if i > 0 {
				n = 200 // a process each: 2,000 take minutes and gigabytes
			}
			if b.quick {
				n /= 10
			}
			kib, err := b.idleCost(ctx, s, work.secure, n)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name(), err)
			}
			if i == 0 {
				b.report.add(fmt.Sprintf("%d idle SMTP connections, %s: PSS each", n, work.what), fmt.Sprintf("at most %.0f KiB", work.limit), fmt.Sprintf("%.1f KiB", kib), kib <= work.limit)
			} else {
				b.report.note("Postfix, %d idle SMTP connections, %s: %.0f KiB each.", n, work.what, kib)
			}
		}
	}
	return nil
}

func (b *bench) idleCost(ctx context.Context, s server, secure bool, n int) (kib float64, err error) {
	if _, err := s.restart(ctx); err != nil { // memory that earlier work left would hide some
		return 0, err
	}
	config, err := b.trust(s)
	if err != nil {
		return 0, err
	}
	if !secure {
		config = nil
	}
	warm, err := load.Idle(ctx, s.smtp(), config, 5)
	if err != nil {
		return 0, err
	}
	warm()
	before, err := usage(s, true)
	if err != nil {
		return 0, err
	}
	closeAll, err := load.Idle(ctx, s.smtp(), config, n)
	if err != nil {
		return 0, err
	}
	defer closeAll()
	after, err := usage(s, true)
	return float64(after.PSS-before.PSS) / 1024 / float64(n), err
}

func medianOf(all []float64) float64 { return median(all, func(f float64) float64 { return f }) }

// median is 0 for none.
func median[T any](all []T, of func(T) float64) float64 {
	if len(all) == 0 {
		return 0
	}
	values := make([]float64, len(all))
	for i, v := range all {
		values[i] = of(v)
	}
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}
