package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/postroom/postroom/bench/load"
)

// delivery is what one load of letters cost one server.
type delivery struct {
	stored  float64       // letters a second, until all are in mailboxes
	p50     time.Duration // of the final 250
	p99     time.Duration
	cpu     float64 // seconds for 1,000 letters
	written float64 // octets for each octet of payload
}

// deliver runs a load on a server, and wants every letter accepted.
func (b *bench) deliver(ctx context.Context, s server, l load.SMTP) (d delivery, err error) {
	l.Addr, l.First = s.smtp(), b.next
	if l.To == nil {
		l.To = account
	}
	b.next += l.Count
	before, err := usage(s, false)
	if err != nil {
		return d, err
	}
	began := time.Now()
	r := l.Run(ctx)
	if r.Err != nil || r.Accepted != l.Count {
		return d, fmt.Errorf("%s: %d of %d letters accepted: %w", s.name(), r.Accepted, l.Count, errors.Join(r.Err, ctx.Err()))
	}
	if err := s.stored(ctx); err != nil {
		return d, err
	}
	took := time.Since(began)
	after, err := usage(s, false)
	if err != nil {
		return d, err
	}
	return delivery{
		stored: float64(r.Accepted) / took.Seconds(), p50: r.Percentile(50), p99: r.Percentile(99),
		cpu:     (after.CPU - before.CPU).Seconds() * 1000 / float64(r.Accepted),
		written: float64(after.Written-before.Written) / float64(r.Octets),
	}, nil
}

// count is how many letters of a size are enough for a figure.
func (b *bench) count(size, connections int) int {
	n := map[int]int{1 << 10: 3000, 10 << 10: 3000, 100 << 10: 1000, 1 << 20: 200}[size]
	if connections == 1 {
		n /= 3
	}
	if b.quick {
		n = max(50, n/20)
	}
	return n
}

// rounds runs a load on each server in turn, and returns the medians.
func (b *bench) inTurn(ctx context.Context, work func(s server) (delivery, error)) (medians []delivery, err error) {
	all := make([][]delivery, len(b.servers))
	for range b.rounds {
		for i, s := range b.servers {
			d, err := work(s)
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], d)
		}
	}
	for _, runs := range all {
		medians = append(medians, delivery{
			stored: median(runs, func(d delivery) float64 { return d.stored }), cpu: median(runs, func(d delivery) float64 { return d.cpu }),
			written: median(runs, func(d delivery) float64 { return d.written }),
			p50:     time.Duration(median(runs, func(d delivery) float64 { return float64(d.p50) })),
			p99:     time.Duration(median(runs, func(d delivery) float64 { return float64(d.p99) })),
		})
	}
	return medians, nil
}

// letters is the matrix of sizes and connections.
func (b *bench) letters(ctx context.Context) error {
	for _, size := range []int{1 << 10, 10 << 10, 100 << 10, 1 << 20} {
		letters, err := load.NewLetters(b.key, account(0), size)
		if err != nil {
			return err
		}
		for _, connections := range []int{1, 10, 50} {
			raw, err := b.raw(size, connections)
			if err != nil {
				return err
			}
			medians, err := b.inTurn(ctx, func(s server) (delivery, error) {
				return b.deliver(ctx, s, load.SMTP{Connections: connections, Count: b.count(size, connections), Letters: letters})
			})
			if err != nil {
				return err
			}
			b.report.cell(size, connections, raw, b.servers, medians)
		}
	}
	return b.arrivedOnce(ctx)
}

// raw is the limit of the machine, a median of three.
func (b *bench) raw(size, connections int) (float64, error) {
	var all []float64
	for range 3 {
		during := time.Second
		if b.quick {
			during /= 10
		}
		rate, err := load.Raw(b.folder, size, connections, during)
		if err != nil {
			return 0, err
		}
		all = append(all, rate)
	}
	return median(all, func(f float64) float64 { return f }), nil
}

// arrivedOnce fetches the heads of all letters: each that was accepted is there, once. Ids are shared by the servers, each of
// which got its own.
func (b *bench) arrivedOnce(ctx context.Context) error {
	total := 0
	for _, s := range b.servers {
		config, err := b.trust(s)
		if err != nil {
			return err
		}
		ids := map[int]int{}
		for i := range accounts {
			if err := (load.POP3{Addr: s.pop3s(), TLS: config, Password: password}).IDs(ctx, account(i), ids); err != nil {
				return fmt.Errorf("%s: %w", s.name(), err)
			}
		}
		for id, n := range ids {
			if n != 1 {
				return fmt.Errorf("%s: letter %d is there %d times", s.name(), id, n)
			}
		}
		total += len(ids)
	}
	if total != b.next {
		return fmt.Errorf("%d letters were accepted and %d are there", b.next, total)
	}
	b.report.add("every acknowledged letter is there, once", "all", fmt.Sprintf("%d of %d, over all servers", total, b.next), true)
	return nil
}

func (b *bench) trust(s server) (*tls.Config, error) {
	if p, ok := s.(*postroom); ok {
		return trust(p.ca())
	}
	return trust(filepath.Join(b.folder, "cert.pem"))
}

// startTLS is a new connection with a handshake for each letter.
func (b *bench) startTLS(ctx context.Context) error {
	letters, err := load.NewLetters(b.key, account(0), 10<<10)
	if err != nil {
		return err
	}
	medians, err := b.inTurn(ctx, func(s server) (delivery, error) {
		config, err := b.trust(s)
		if err != nil {
			return delivery{}, err
		}
		return b.deliver(ctx, s, load.SMTP{TLS: config, Reconnect: true, Connections: 10, Count: b.count(10<<10, 10) / 2, Letters: letters})
	})
	if err != nil {
		return err
	}
	b.report.ratio("STARTTLS, a new connection for each letter of 10 KB, 10 at once", 3.2, "letters/s", medians[0].stored, peer(medians, func(d delivery) float64 { return d.stored }))
	return nil
}

// peer is the figure of the other server, or 0 where Postroom runs alone.
func peer(medians []delivery, of func(delivery) float64) float64 {
	if len(medians) < 2 {
		return 0
	}
	return of(medians[1])
}

// large lets letters of 50 MB arrive while small ones do.
func (b *bench) large(ctx context.Context) error {
	small, err := load.NewLetters(b.key, account(0), 10<<10)
	if err != nil {
		return err
	}
	huge, err := load.NewLetters(b.key, account(0), 49<<20)
	if err != nil {
		return err
	}
	s := b.servers[0]
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan load.Result)
	first := b.next
	b.next += 1000
	go func() {
		ended <- load.SMTP{Addr: s.smtp(), Connections: 1, Count: 1000, First: first, To: account, Letters: huge}.Run(ctx)
	}()
	d, err := b.deliver(ctx, s, load.SMTP{Connections: 10, Count: b.count(10<<10, 10) * 3, Letters: small})
	stop()
	r := <-ended
	if err != nil {
		return err
	}
	b.report.add("letters of 50 MB arriving one after the other meanwhile: p99 of the 250 to 10 KB letters, 10 connections", "under 50 ms",
		fmt.Sprintf("%s (p50 %s), while %d letters of 50 MB came", ms(d.p99), ms(d.p50), r.Accepted), d.p99 < 50*time.Millisecond && (r.Accepted > 0 || b.quick))
	return nil
}
