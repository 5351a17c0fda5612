package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/maillog"
)

const (
	// settleEvery is how soon what was found out is written down again where the database did not take it. Until it does, nothing new
	// is tried: what is not written down would be sent twice.
	settleEvery = time.Second
	// settleLast is how long that goes on when the queue is stopping.
	settleLast = 10 * time.Second
)

// beyond is a context that ends a while after work.
func beyond(work context.Context, while time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(work))
	stop := context.AfterFunc(work, func() { time.AfterFunc(while, cancel) })
	return ctx, func() { stop(); cancel() }
}

// try hands a letter over, and returns what writes down what came of it. ctx ends with the attempt, work with the queue.
func (q *Queue) try(work, ctx context.Context, a *attempt) (settle func()) {
	to := make([]Recipient, len(a.to))
	for i, w := range a.to {
		to[i] = w.Recipient
	}
	open := func(ctx context.Context) (io.ReadCloser, error) {
		a.talking.Store(true)
		return q.Store.Open(ctx, a.letter.blob, a.letter.ID)
	}
	var outcomes []Outcome
	err := caught(func() { outcomes = q.Deliverer.Deliver(ctx, a.letter.Letter, to, open) })
	if err == nil && len(outcomes) != len(to) {
		err = fmt.Errorf("%d outcomes for %d recipients", len(outcomes), len(to))
	}
	tooLong := errors.Is(context.Cause(ctx), errTooLong)
	stopped := ctx.Err() != nil && !a.cut.Load() && !tooLong
	switch {
	case err != nil:
		return func() { q.aside(work, a, err) }
	case a.cut.Load():
		forCut(outcomes, "no answer for "+impatience.String()+", while others waited")
	case tooLong:
		forCut(outcomes, "it took longer than "+longest.String())
	}
	a.well, a.quiet = true, false
	for _, o := range outcomes {
		a.well = a.well && o.Status != Deferred
		a.quiet = a.quiet || o.Silent
	}
	return func() { q.settleAll(work, a, outcomes, stopped) }
}

// forCut says what a destination did whose attempt was ended.
func forCut(outcomes []Outcome, why string) {
	for i, o := range outcomes {
		if o.Status == Deferred {
			outcomes[i].Silent = true
			if !o.Remote {
				outcomes[i].Reply = why
			}
		}
	}
}

// insist writes down what must be kept, again and again until the database takes it, or a while after work has ended. Meanwhile nothing
// new is tried.
func (q *Queue) insist(work context.Context, a *attempt, write func(context.Context) error) {
	ctx, cancel := beyond(work, settleLast)
	defer cancel()
	err := write(ctx)
	if err == nil {
		return
	}
	q.unwritten.Add(1)
	defer q.unwritten.Add(-1)
	for err != nil {
		q.Log.Error("queue cannot be written", maillog.Msg, a.letter.ID, maillog.Err, err)
		select {
		case <-ctx.Done():
			q.Log.Error("outcome lost: the letter will be tried again", maillog.Msg, a.letter.ID)
			return
		case <-time.After(settleEvery):
		}
		err = write(ctx)
	}
}

// aside sets all recipients of an attempt aside that failed in a way that nobody foresaw.
func (q *Queue) aside(work context.Context, a *attempt, why error) {
	for _, w := range a.to {
		q.insist(work, a, func(ctx context.Context) error { return q.setAside(ctx, w.row, why) })
	}
}

// settleAll writes the outcomes down. Where the queue was stopped in the middle, a recipient that was not accepted was not tried.
func (q *Queue) settleAll(work context.Context, a *attempt, outcomes []Outcome, stopped bool) {
	s := &settlement{q: q, letter: a.letter, now: time.Now()}
	for i, o := range outcomes {
		if stopped && o.Status == Deferred {
			continue
		}
		s.add(a.to[i], o)
	}
	if len(s.results) == 0 {
		return
	}
	q.insist(work, a, func(ctx context.Context) error {
		err := s.settle(ctx)
		for d, ok := errors.AsType[*dropped](err); ok && len(s.results) > 0; d, ok = errors.AsType[*dropped](err) {
			s.without(d.rows)
			err = s.settle(ctx)
		}
		if err == nil {
			s.log()
		}
		return err
	})
}

// result is what becomes of a recipient after an attempt.
type result struct {
	waiting
	Outcome
	fate fate
	late bool // it is late, and the sender has not been told
	told bool // the sender is told now
	next time.Time
}

// fate is whether a recipient stays in the queue.
type fate int

const (
	stays fate = iota
	sent
	bounced
)

// settlement is what one attempt changes.
type settlement struct {
	q       *Queue
	letter  queued
	now     time.Time
	results []result
}

// add decides the fate of a recipient.
func (s *settlement) add(w waiting, o Outcome) {
	w.Attempts++
	r := result{waiting: w, Outcome: o}
	age := s.now.Sub(s.letter.Created)
	switch {
	case o.Status == Delivered:
		r.fate = sent
	case o.Status == Failed:
		r.fate = bounced
	case age >= s.q.GiveUp:
		r.fate, r.Enhanced = bounced, "5.4.7" // RFC 3463 section 3.5: delivery time expired
	default:
		r.next = s.now.Add(wait(w.Attempts))
		if last := s.letter.Created.Add(s.q.GiveUp); r.next.After(last) {
			r.next = last // the last try is when the sender was told that it would be
		}
		r.late = age >= s.q.Late && !w.delayTold
	}
	s.results = append(s.results, r)
}

// dropped says that an operator took recipients out while they were tried.
type dropped struct{ rows []int64 }

func (d *dropped) Error() string {
	return fmt.Sprintf("queue: recipients %v were dropped meanwhile", d.rows)
}

// without leaves out what was dropped.
func (s *settlement) without(rows []int64) {
	s.results = slices.DeleteFunc(s.results, func(r result) bool { return slices.Contains(rows, r.row) })
}

// settle writes everything down: the fates, the notices, the ledger.
func (s *settlement) settle(ctx context.Context) error {
	notices, err := s.notices(ctx)
	if err != nil {
		return err
	}
	return s.q.DB.Write(ctx, func(tx *database.Tx) error {
		if err := s.mustBeThere(tx); err != nil {
			return err
		}
		if err := s.fates(tx); err != nil {
			return err
		}
		for _, deliver := range notices {
			if err := deliver(tx); err != nil {
				return err
			}
		}
		return maillog.Add(tx, s.entries()...)
	})
}

func (s *settlement) mustBeThere(tx *database.Tx) error {
	var d dropped
	for _, r := range s.results {
		var there bool
		if err := tx.QueryRow("SELECT EXISTS (SELECT 1 FROM queue_recipients WHERE id = ?)", r.row).Scan(&there); err != nil {
			return err
		}
		if !there {
			d.rows = append(d.rows, r.row)
		}
	}
	if len(d.rows) > 0 {
		return &d
	}
	return nil
}

// fates writes down what becomes of the recipients.
func (s *settlement) fates(tx *database.Tx) (err error) {
	finished := 0
	for _, r := range s.results {
		if r.fate == stays {
			err = s.stay(tx, r)
		} else {
			finished++
			err = leave(tx, r.row)
		}
		if err != nil {
			return err
		}
	}
	if finished == 0 {
		return nil
	}
	return s.q.finish(tx, s.letter.row, finished)
}

// stay writes down a recipient that is tried again.
func (s *settlement) stay(tx *database.Tx, r result) error {
	told := number(r.delayTold || r.late)
	if _, err := tx.Exec("UPDATE queue_recipients SET attempts = ?, next = ?, delay_told = ? WHERE id = ?", r.Attempts, r.next.UnixMilli(), told, r.row); err != nil {
		return err
	}
	_, err := tx.Exec(`INSERT INTO queue_attempts (recipient_id, n, at, reply, enhanced, remote, host, address, tls, policy, unclear)
		SELECT ?, (SELECT coalesce(max(n), 0) + 1 FROM queue_attempts WHERE recipient_id = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?`,
		r.row, r.row, s.now.UnixMilli(), r.Reply, r.Enhanced, number(r.Remote), r.Host, r.Address, r.TLS, r.Policy, number(r.Unclear))
	return err
}

// number is a truth value as a column of numbers has it.
func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// leave takes a recipient out.
func leave(tx *database.Tx, row int64) error {
	if _, err := tx.Exec("DELETE FROM queue_attempts WHERE recipient_id = ?", row); err != nil {
		return err
	}
	_, err := tx.Exec("DELETE FROM queue_recipients WHERE id = ?", row)
	return err
}

// finish counts recipients that left, and gives the letter up with the last one.
func (q *Queue) finish(tx *database.Tx, letter int64, n int) error {
	var left, blob int64
	err := tx.QueryRow("UPDATE queue_letters SET pending = pending - ? WHERE id = ? RETURNING pending, blob_id", n, letter).Scan(&left, &blob)
	if err != nil || left > 0 {
		return err
	}
	if _, err := tx.Exec("DELETE FROM queue_letters WHERE id = ?", letter); err != nil {
		return err
	}
	return q.Store.Release(tx, blob)
}

// entries are the rows of the ledger.
func (s *settlement) entries() (all []maillog.Entry) {
	for _, r := range s.results {
		e := maillog.Entry{Time: s.now, Message: s.letter.ID, Account: s.letter.Account, ReversePath: s.letter.From.String(), Recipient: r.To.String(), Remote: r.Address}
		switch {
		case r.fate == sent:
			e.Kind, e.Detail = maillog.KindSent, fmt.Sprintf("taken by %s (%s, %s): %s", r.Host, plainOr(r.TLS), r.Policy, r.Reply)
		case r.fate == bounced:
			e.Kind, e.Detail = maillog.KindBounced, "not delivered: "+r.Reply
		case r.told:
			e.Kind, e.Detail = maillog.KindDelayed, "still being tried: "+r.Reply
		default:
			continue
		}
		all = append(all, e)
	}
	return all
}

func plainOr(tls string) string {
	if tls == "" {
		return "clear text"
	}
	return tls
}

// log tells the operator.
func (s *settlement) log() {
	for _, r := range s.results {
		event := maillog.Deferred
		switch r.fate {
		case sent:
			event = maillog.Sent
		case bounced:
			event = maillog.Bounced
		}
		log := s.q.Log.With(maillog.Service, "queue", maillog.Msg, s.letter.ID, maillog.From, s.letter.From.String(), maillog.To, r.To.String())
		if r.fate == stays {
			log = log.With("next", r.next)
		}
		log.Info(event, maillog.Reply, r.Reply, maillog.Enhanced, r.Enhanced, "host", r.Host, maillog.Addr, r.Address, "tls", r.TLS, "policy", r.Policy, "attempts", r.Attempts)
	}
}
