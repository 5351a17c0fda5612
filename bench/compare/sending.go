package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	logins "github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/bench/load"
	"github.com/postroom/postroom/internal/database"
)

// sinkHost is where all letters go: a name in the domain that the load comes from.
const sinkHost = "sink." + load.SenderDomain

// hop is a server between those who hand letters in and the sink.
type hop struct {
	name   string
	server server
	in     load.SMTP                       // how letters are handed in
	ready  func(ctx context.Context) error // before each run
	queued func(ctx context.Context) error // waits until all that was handed in can leave
	secure bool                            // letters go on over TLS
}

// sent is one way to send letters.
type sent struct {
	what      string
	domains   int
	meanwhile bool // letters leave while others are handed in
}

var sendings = []sent{
	{"10 KB letters to 20 domains, from the queue to a fast server", 20, false},
	{"10 KB letters to one domain, from the queue to a fast server", 1, false},
	{"10 KB letters to 20 domains, from 20 connections that hand them in to a fast server", 20, true},
}

// sending lets each server hand letters to the same sink. Postroom goes there as to a smarthost, over TLS with a certificate that it
// verifies. Postfix goes there in clear text and over TLS that it does not verify, and the better of both counts.
func (b *bench) sending(ctx context.Context) error {
	sink, err := load.NewSink(false, sinkHost)
	if err != nil {
		return err
	}
	defer sink.Close()
	port, err := sink.Listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	ours, err := b.toSink(ctx, sink, port)
	if err != nil {
		return err
	}
	defer ours.server.stop()
	hops := []hop{ours}
	if !b.alone {
		hops = append(hops, b.postfixHops(port)...)
	}
	for _, w := range sendings {
		all := make([][]delivery, len(hops))
		for range b.rounds {
			for i, h := range hops {
				d, err := b.send(ctx, sink, h, w)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", w.what, h.name, err)
				}
				all[i] = append(all[i], d)
			}
		}
		b.report.sent(w.what, hops, all)
	}
	return nil
}

// toSink starts a Postroom whose mail all goes to the sink.
func (b *bench) toSink(ctx context.Context, sink *load.Sink, port string) (h hop, err error) {
	roots := filepath.Join(b.folder, "sink.pem")
	if err := os.WriteFile(roots, sink.Certificate, 0o644); err != nil {
		return h, err
	}
	p := b.unstarted("sending", "SSL_CERT_FILE="+roots)
	if err := p.prepare(ctx, everybody()); err != nil {
		return h, err
	}
	if err := p.run(ctx, "", "relay", "set", sinkHost, "--port", port); err != nil {
		return h, err
	}
	if err := p.serve(); err != nil {
		return h, err
	}
	config, err := b.trust(p)
	in := load.SMTP{Addr: p.ports["submissions"], TLS: config, Implicit: true, Password: password}
	return hop{name: "Postroom", server: p, in: in, ready: p.forgive, queued: p.stored, secure: true}, err
}

// forgive lets all accounts send as much again as they may in a day.
func (p *postroom) forgive(ctx context.Context) (err error) {
	db, err := database.Open(ctx, database.Options{DataDir: p.data()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.Write(ctx, func(tx *database.Tx) error {
		for id := range len(everybody()) {
			if _, err := logins.ReleaseSending(tx, int64(id+1)); err != nil {
				return err
			}
		}
		return nil
	})
}

// postfixHops are two ways to the sink: with no cost for TLS, and with TLS at its lowest cost.
func (b *bench) postfixHops(port string) (all []hop) {
	p := b.servers[1].(*postfix)
	shared := []string{"relayhost = [127.0.0.1]:" + port, "in_flow_delay = 0s", "smtp_tls_connection_reuse = yes",
		"smtp_tls_session_cache_database = btree:${data_directory}/smtp_scache"}
	for _, h := range []struct {
		name, level string
		secure      bool
	}{{"Postfix in clear text", "none", false}, {"Postfix over TLS", "encrypt", true}} {
		ready := func(ctx context.Context) error {
			return p.set(ctx, append(slices.Clone(shared), "smtp_tls_security_level = "+h.level)...)
		}
		queued := func(ctx context.Context) error { return p.emptied(ctx, "maildrop", "incoming") }
		all = append(all, hop{name: h.name, server: p, in: load.SMTP{Addr: p.smtp()}, ready: ready, queued: queued, secure: h.secure})
	}
	return all
}

// send hands letters in and returns the rate at which they reached the sink. Where they are not to leave meanwhile, the sink takes
// none until all are in the queue, and the time begins then.
func (b *bench) send(ctx context.Context, sink *load.Sink, h hop, w sent) (d delivery, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := h.ready(ctx); err != nil {
		return d, err
	}
	l, count := h.in, b.countSent()
	l.Connections, l.Count, l.First, l.From = 20, count, b.next, account
	l.To = func(n int) string { return fmt.Sprintf("user%d@far%d.example", n%1000, n%w.domains) }
	l.Letters = load.NewUnsigned("somebody@far.example", 10<<10)
	b.next += count
	sink.Expect(l.First, count)
	if w.meanwhile {
		sink.Open()
	} else if err := handIn(ctx, h, l); err != nil {
		return d, err
	}
	before, err := usage(h.server, false)
	if err != nil {
		return d, err
	}
	began := time.Now()
	if w.meanwhile {
		err = handIn(ctx, h, l)
	}
	sink.Open()
	if err := errors.Join(err, sink.Wait(ctx)); err != nil {
		return d, err
	}
	took := time.Since(began)
	after, err := usage(h.server, false)
	if n := sink.Clear(); h.secure && n > 0 {
		err = fmt.Errorf("%d letters came in clear text", n)
	}
	return delivery{stored: float64(count) / took.Seconds(), cpu: (after.CPU - before.CPU).Seconds() * 1000 / float64(count)},
		errors.Join(err, h.server.stored(ctx))
}

func (b *bench) countSent() int {
	if b.quick {
		return 100
	}
	return 4000
}

// handIn hands letters in until all can leave.
func handIn(ctx context.Context, h hop, l load.SMTP) error {
	r := l.Run(ctx)
	if r.Err != nil || r.Accepted != l.Count {
		return fmt.Errorf("%d of %d letters accepted: %w", r.Accepted, l.Count, errors.Join(r.Err, ctx.Err()))
	}
	return h.queued(ctx)
}

// sent is one way of sending: Postroom comes first, and the best of the others is its peer.
func (r *report) sent(what string, hops []hop, all [][]delivery) {
	rate := func(d delivery) float64 { return d.stored }
	best := 0.0
	for i, h := range hops {
		m := median(all[i], rate)
		r.note("%s: %s, %.0f letters/s, %.2f s of CPU for 1,000.", what, h.name, m, median(all[i], func(d delivery) float64 { return d.cpu }))
		if i > 0 {
			best = max(best, m)
		}
	}
	r.ratio(what, 3, "letters/s", median(all[0], rate), best)
}
