package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/postroom/postroom/bench/load"
)

// memory lets 200 letters of 25 MB arrive at once.
func (b *bench) memory(ctx context.Context) error {
	n := 200
	if b.quick {
		n = 10
	}
	letters, err := load.NewLetters(b.key, account(0), 25<<20)
	if err != nil {
		return err
	}
	s := b.servers[0].(*postroom)
	if _, err := s.restart(ctx); err != nil {
		return err
	}
	if _, err := b.deliver(ctx, s, load.SMTP{Connections: n, Count: n, Letters: letters}); err != nil {
		return err
	}
	peak, err := peakMemory(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	b.report.add(fmt.Sprintf("%d letters of 25 MB at once: peak resident memory", n), "under 400 MB", fmt.Sprintf("%.0f MB", peak/1e6), peak < 400e6)
	return nil
}

// peakMemory is VmHWM, in octets.
func peakMemory(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kib float64
	_, err = fmt.Sscan(rest, &kib)
	return kib * 1024, err
}

// growth compares the rate with an empty store and with 200,000 letters, in a data directory of its own.
func (b *bench) growth(ctx context.Context) error {
	fresh, err := b.another(ctx, "growth")
	if err != nil {
		return err
	}
	defer fresh.stop()
	letters, err := load.NewLetters(b.key, account(0), 10<<10)
	if err != nil {
		return err
	}
	total := 200_000
	if b.quick {
		total = 1000
	}
	rate := func() (float64, error) {
		var all []float64
		for range b.rounds {
			d, err := b.deliver(ctx, fresh, load.SMTP{Connections: 10, Count: b.count(10<<10, 10), Letters: letters})
			if err != nil {
				return 0, err
			}
			all = append(all, d.stored)
		}
		return medianOf(all), nil
	}
	empty, err := rate()
	if err != nil {
		return err
	}
	if _, err := b.deliver(ctx, fresh, load.SMTP{Connections: 20, Count: total, Letters: letters}); err != nil {
		return err
	}
	full, err := rate()
	if err != nil {
		return err
	}
	b.report.add(fmt.Sprintf("10 KB letters, 10 connections, with %d stored, against none", total), "0.85 of the rate or better",
		fmt.Sprintf("%.2f (%.0f/s, %.0f/s with none)", full/empty, full, empty), full/empty >= 0.85)
	return nil
}

// another starts one more Postroom, with nothing stored.
func (b *bench) another(ctx context.Context, folder string) (*postroom, error) {
	p := b.unstarted(folder)
	return p, p.start(ctx)
}

// unstarted is one more Postroom of which nothing is there yet.
func (b *bench) unstarted(folder string, env ...string) *postroom {
	first := b.servers[0].(*postroom)
	return &postroom{dir: filepath.Join(b.folder, folder), binary: first.binary, dns: first.dns, env: env}
}

// starting is how long a start takes with 1,000,000 letters stored.
func (b *bench) starting(ctx context.Context) error {
	p, err := b.another(ctx, "start")
	if err != nil {
		return err
	}
	defer p.stop()
	letters, err := load.NewLetters(b.key, account(0), 1<<10)
	if err != nil {
		return err
	}
	total := 1_000_000
	if b.quick {
		total = 1000
	}
	if _, err := b.deliver(ctx, p, load.SMTP{Connections: 50, Count: total, Letters: letters, Pipelined: true}); err != nil {
		return err
	}
	var all []float64
	for range 3 {
		took, err := p.restart(ctx)
		if err != nil {
			return err
		}
		all = append(all, took.Seconds())
	}
	took := time.Duration(medianOf(all) * float64(time.Second))
	b.report.add(fmt.Sprintf("start with %d letters stored", total), "under 1 s", took.Round(time.Millisecond).String(), took < time.Second)
	return nil
}
