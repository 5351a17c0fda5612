package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/postroom/postroom/bench/load"
	smarthosts "github.com/postroom/postroom/delivery"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/mailbox"
	"github.com/postroom/postroom/queue"
)

// destinations is how many domains letters wait for, each at a server of its own.
const destinations = 240

// away are servers that do not take letters now.
type away struct {
	refusing *load.Sink // asks to come back later
	silent   *load.Sink // never answers MAIL
}

func newAway() (a away, err error) {
	const host = "127.0.0.1"
	if a.refusing, err = load.NewSink(true, host); err != nil {
		return a, err
	}
	a.silent, err = load.NewSink(false, host)
	return a, err
}

func (a away) close() {
	a.refusing.Close()
	a.silent.Close()
}

// port is that of one more destination: a third refuses, a third is silent, and a third is not there.
func (a away) port(n int) (uint16, error) {
	var port string
	var err error
	switch n % 3 {
	case 0:
		port, err = a.refusing.Listen("127.0.0.1:0")
	case 1:
		port, err = a.silent.Listen("127.0.0.1:0")
	default:
		free, err := freePort()
		return uint16(free), err
	}
	if err != nil {
		return 0, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	return uint16(number), err
}

// queued is what a long queue costs while it is tried in vain: memory, and the time of a start.
func (b *bench) queued(ctx context.Context) error {
	total, during := 200_000, time.Minute
	if b.quick {
		total, during = 500, 3*time.Second
	}
	a, err := newAway()
	if err != nil {
		return err
	}
	defer a.close()
	p, err := b.fullQueue(ctx, a, total)
	if err != nil {
		return err
	}
	defer p.stop()
	var starts []float64
	start := func() error {
		took, err := p.restart(ctx)
		starts = append(starts, took.Seconds())
		return err
	}
	if err := start(); err != nil {
		return err
	}
	pss, err := peakPSS(ctx, p, during)
	if err != nil {
		return err
	}
	tries := a.refusing.Attempts() + a.silent.Attempts()
	if tries == 0 {
		return errors.New("nothing was tried")
	}
	if err := errors.Join(start(), start()); err != nil {
		return err
	}
	took := time.Duration(medianOf(starts) * float64(time.Second))
	b.report.add(fmt.Sprintf("%d letters queued for %d destinations that do not take them, being tried: PSS", total, destinations), "under 150 MB",
		fmt.Sprintf("%.0f MB (%d tries in %s came as far as MAIL)", pss/1e6, tries, during), pss < 150e6)
	b.report.add(fmt.Sprintf("start with %d letters queued", total), "under 1 s", took.Round(time.Millisecond).String(), took < time.Second)
	return nil
}

// fullQueue makes a Postroom that has letters to send when it is started.
func (b *bench) fullQueue(ctx context.Context, a away, total int) (*postroom, error) {
	roots := filepath.Join(b.folder, "away.pem")
	if err := os.WriteFile(roots, append(a.refusing.Certificate, a.silent.Certificate...), 0o644); err != nil {
		return nil, err
	}
	p := b.unstarted("queued", "SSL_CERT_FILE="+roots)
	if err := p.prepare(ctx, []string{account(0)}); err != nil {
		return nil, err
	}
	return p, p.fillQueue(ctx, a, total)
}

// peakPSS is the most that a server takes of memory during a while.
func peakPSS(ctx context.Context, s server, during time.Duration) (peak float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, during)
	defer cancel()
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return peak, nil
		case <-ticker.C:
		}
		u, err := usage(s, true)
		if err != nil {
			return 0, err
		}
		peak = max(peak, float64(u.PSS))
	}
}

// fillQueue puts letters of 1 KB into the queue of a server that does not run. Each domain has a smarthost, since all is on loopback.
func (p *postroom) fillQueue(ctx context.Context, a away, total int) (err error) {
	db, err := database.Open(ctx, database.Options{DataDir: p.data()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	box, err := mailbox.New(db, mailbox.Options{})
	if err != nil {
		return err
	}
	q, err := queue.New(queue.Options{Hostname: hostname, DB: db, Store: struct{ queue.Store }{}}) // Add asks nothing of it
	if err != nil {
		return err
	}
	if err := pointTo(ctx, db, a); err != nil {
		return err
	}
	f := &filling{db: db, box: box, queue: q, letters: load.NewUnsigned("somebody@far.example", 1<<10)}
	for first := 0; first < total; first += 500 {
		if err := f.add(ctx, first, min(first+500, total)); err != nil {
			return fmt.Errorf("fill the queue: %w", err)
		}
	}
	return nil
}

// pointTo gives each domain its server.
func pointTo(ctx context.Context, db *database.DB, a away) error {
	relays := smarthosts.NewSmarthosts(db, nil)
	defer relays.Close()
	for n := range destinations {
		port, err := a.port(n)
		if err != nil {
			return err
		}
		domain, err := addr.ParseDomain(farAway(n))
		if err != nil {
			return err
		}
		if err := relays.SetRelay(ctx, smarthosts.Relay{Destination: domain, Host: "127.0.0.1", Port: port}); err != nil {
			return err
		}
	}
	return nil
}

// farAway is the domain that letter n is for.
func farAway(n int) string { return fmt.Sprintf("far%d.example", n%destinations) }

// filling is what letters are put into a queue with.
type filling struct {
	db      *database.DB
	box     *mailbox.Store
	queue   *queue.Queue
	letters *load.Letters
}

// add adds letters in one write.
func (f *filling) add(ctx context.Context, first, end int) error {
	var adds []func(*database.Tx) error
	for n := first; n < end; n++ {
		add, err := f.letter(ctx, n)
		if err != nil {
			return err
		}
		adds = append(adds, add)
	}
	return f.db.Write(ctx, func(tx *database.Tx) error {
		for _, add := range adds {
			if err := add(tx); err != nil {
				return err
			}
		}
		return nil
	})
}

// letter makes letter n ready, and returns what adds it inside a write.
func (f *filling) letter(ctx context.Context, n int) (add func(*database.Tx) error, err error) {
	from, _, err := addr.ParsePath("<" + account(0) + ">")
	if err != nil {
		return nil, err
	}
	to, _, err := addr.ParsePath(fmt.Sprintf("<user%d@%s>", n, farAway(n)))
	if err != nil {
		return nil, err
	}
	content := f.letters.Letter(n, account(0))
	l := queue.Letter{ID: message.NewID(), Account: 1, From: from, Size: int64(len(content)), Created: time.Now()}
	staged, err := f.box.Stage(ctx, l.ID, l.Size, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	return func(tx *database.Tx) error {
		blob, err := f.box.Hold(tx, staged)
		if err != nil {
			return err
		}
		return f.queue.Add(tx, l, blob, []queue.Recipient{{To: to}})
	}, nil
}
