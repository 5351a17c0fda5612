package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/queue"
)

type queueCommand struct {
	List    queueList    `cmd:"" help:"List the recipients that letters are on their way to."`
	Show    queueShow    `cmd:"" help:"Show every attempt for a letter, with the other side's reply word for word."`
	Retry   queueRetry   `cmd:"" help:"Try now, and not when it is due."`
	Hold    queueHold    `cmd:"" help:"Try nothing of it until it is released."`
	Release queueRelease `cmd:"" help:"Go on with what was held or set aside. With --account, let an account send again that sent too much."`
	Drop    queueDrop    `cmd:"" help:"Take it out of the queue. Nobody is told."`
}

// queueFilter chooses recipients.
type queueFilter struct {
	ID          string          `placeholder:"ID" help:"Only the letter with this id."`
	Account     addressArgument `placeholder:"ADDRESS" help:"Only letters of this account."`
	Destination domainArgument  `placeholder:"DOMAIN" help:"Only recipients in this domain."`
}

// filter is the choice in terms of the queue. all says whether choosing nothing in particular means everything.
func (f *queueFilter) filter(ctx context.Context, s *stores, all bool) (chosen queue.Filter, err error) {
	chosen.Domain = f.Destination.Domain
	if f.ID != "" {
		if chosen.Message, err = message.ParseID(f.ID); err != nil {
			return chosen, usagef("%q is no id of a letter: `postroom queue list` shows them", f.ID)
		}
	}
	if !f.Account.Domain.IsZero() {
		a, err := s.accounts.Account(ctx, f.Account.Address)
		if err != nil {
			return chosen, err
		}
		chosen.Account = a.ID
	}
	if !all && chosen == (queue.Filter{}) {
		return chosen, usagef("say which: --id ID, --account ADDRESS or --destination DOMAIN")
	}
	return chosen, nil
}

// withQueue runs fn with the queue, and with what was chosen.
func (p *program) withQueue(ctx context.Context, f *queueFilter, all bool, fn func(*stores, *queue.Queue, queue.Filter) error) error {
	c, err := p.load()
	if err != nil {
		return err
	}
	return p.withStores(ctx, func(s *stores) error {
		chosen, err := f.filter(ctx, s, all)
		if err != nil {
			return err
		}
		q, err := queue.New(queue.Options{Hostname: c.Hostname, DB: s.db, Store: queueStore{s}})
		if err != nil {
			return err
		}
		return fn(s, q, chosen)
	})
}

// shownQueued is a recipient in the queue as --json prints it.
type shownQueued struct {
	ID        string     `json:"id"`
	From      string     `json:"from"`
	Recipient string     `json:"recipient"`
	Size      int64      `json:"size"`
	Created   time.Time  `json:"created"`
	State     string     `json:"state"`
	Attempts  int        `json:"attempts"`
	Next      *time.Time `json:"next"` // null: not before it is released
	Last      string     `json:"last"`
	Reason    string     `json:"reason"`
	Tries     []shownTry `json:"tries,omitempty"`
}

type shownTry struct {
	Time    time.Time `json:"time"`
	Reply   string    `json:"reply"`
	Status  string    `json:"status"`
	Remote  bool      `json:"remote"`
	Host    string    `json:"host"`
	Address string    `json:"address"`
	TLS     string    `json:"tls"`
	Policy  string    `json:"policy"`
	MayBeIn bool      `json:"may_have_arrived"`
}

// stateNames are what people read.
var stateNames = map[queue.State]string{queue.Waiting: "waiting", queue.Held: "held", queue.AccountHeld: "held with its account", queue.Aside: "set aside"}

func showQueued(e queue.Entry) shownQueued {
	s := shownQueued{ID: e.Message.String(), From: e.From, Recipient: e.Recipient, Size: e.Size, Created: e.Created, State: stateNames[e.State],
		Attempts: e.Attempts, Last: e.Last, Reason: e.Reason}
	if e.State == queue.Waiting {
		s.Next = &e.Next
	}
	return s
}

func (s shownQueued) next() string {
	if s.Next == nil {
		return "-"
	}
	return s.Next.Format(time.DateTime)
}

type queueList struct {
	queueFilter
	Limit int `default:"1000" help:"Show at most so many."`
	asJSON
}

func (c *queueList) Run(ctx context.Context, p *program) error {
	return p.withQueue(ctx, &c.queueFilter, true, func(_ *stores, q *queue.Queue, f queue.Filter) error {
		all, err := q.List(ctx, f, c.Limit)
		if err != nil {
			return err
		}
		shown := []shownQueued{}
		t := &table{head: []string{"ID", "FROM", "TO", "SIZE", "STATE", "TRIES", "NEXT (UTC)", "LAST REPLY"}, empty: "nothing is in the queue"}
		for _, e := range all {
			s := showQueued(e)
			shown = append(shown, s)
			t.add(s.ID, s.From, s.Recipient, size(s.Size).String(), s.State, strconv.Itoa(s.Attempts), s.next(), orDash(s.Last))
		}
		return c.show(p.stdout, shown, t)
	})
}

type queueShow struct {
	ID string `arg:"" help:"The id of the letter."`
	asJSON
}

func (c *queueShow) Run(ctx context.Context, p *program) error {
	return p.withQueue(ctx, &queueFilter{ID: c.ID}, false, func(_ *stores, q *queue.Queue, f queue.Filter) error {
		all, err := q.List(ctx, f, 10_000)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			return nof("letter %s is not in the queue", c.ID)
		}
		shown := []shownQueued{}
		t := &table{head: []string{"TO", "TIME (UTC)", "HOST", "TLS", "POLICY", "REPLY"}}
		for _, e := range all {
			s := showQueued(e)
			tries, err := q.Tries(ctx, e)
			if err != nil {
				return err
			}
			for _, y := range tries {
				s.Tries = append(s.Tries, shownTry{y.Time, y.Reply, y.Enhanced, y.Remote, y.Host, y.Address, y.TLS, y.Policy, y.Unclear})
				t.add(e.Recipient, y.Time.Format(time.DateTime), orDash(y.Host), orDash(y.TLS), orDash(y.Policy), y.Reply)
			}
			t.add(e.Recipient, s.next(), "-", "-", "-", s.State+", next try at the time shown"+because(e.Reason))
			shown = append(shown, s)
		}
		return c.show(p.stdout, shown, t)
	})
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// changeQueue does what changes recipients, and says how many.
func (p *program) changeQueue(ctx context.Context, f *queueFilter, done string, change func(*queue.Queue, queue.Filter) (int, error)) error {
	return p.withQueue(ctx, f, false, func(_ *stores, q *queue.Queue, chosen queue.Filter) error {
		n, err := change(q, chosen)
		if errors.Is(err, queue.ErrNotFound) {
			return nof("nothing in the queue is that: `postroom queue list` shows what is there")
		}
		if err != nil {
			return err
		}
		p.say("%d %s.", n, done)
		return nil
	})
}

type queueRetry struct{ queueFilter }

func (c *queueRetry) Run(ctx context.Context, p *program) error {
	return p.changeQueue(ctx, &c.queueFilter, "due now", func(q *queue.Queue, f queue.Filter) (int, error) { return q.Retry(ctx, f) })
}

type queueHold struct{ queueFilter }

func (c *queueHold) Run(ctx context.Context, p *program) error {
	return p.changeQueue(ctx, &c.queueFilter, "held", func(q *queue.Queue, f queue.Filter) (int, error) { return q.Hold(ctx, f) })
}

type queueDrop struct{ queueFilter }

func (c *queueDrop) Run(ctx context.Context, p *program) error {
	return p.changeQueue(ctx, &c.queueFilter, "dropped", func(q *queue.Queue, f queue.Filter) (int, error) { return q.Drop(ctx, f, operator()) })
}

type queueRelease struct{ queueFilter }

// Run releases what was held, or with --account alone an account that sent too much together with its letters.
func (c *queueRelease) Run(ctx context.Context, p *program) error {
	return p.withQueue(ctx, &c.queueFilter, false, func(s *stores, q *queue.Queue, f queue.Filter) error {
		released, was := 0, false
		if f == (queue.Filter{Account: f.Account}) {
			var err error
			if released, was, err = c.account(ctx, s, q, f.Account); err != nil {
				return err
			}
		}
		n, err := q.Release(ctx, f, onHold)
		switch {
		case err == nil:
			released += n
		case !errors.Is(err, queue.ErrNotFound):
			return err
		case released == 0 && !was:
			return nof("nothing that is held is that: `postroom queue list` shows what is there, and --account ADDRESS alone releases what is held with an account")
		}
		if was {
			p.say("%s may send again.", c.Account.Address)
		}
		p.say("%d released.", released)
		return nil
	})
}

// account lets an account send again.
func (c *queueRelease) account(ctx context.Context, s *stores, q *queue.Queue, account int64) (n int, was bool, err error) {
	err = s.db.Write(ctx, func(tx *database.Tx) (err error) {
		if was, err = accounts.ReleaseSending(tx, account); err != nil {
			return err
		}
		n, err = q.ReleaseAccount(tx, account)
		return err
	})
	if err != nil {
		err = fmt.Errorf("release %s: %w", c.Account.Address, err)
	}
	return n, was, err
}

// onHold tells whether an account may not send.
func onHold(tx *database.Tx, account int64) (bool, error) {
	err := accounts.MaySend(tx, account)
	if errors.Is(err, accounts.ErrHeld) {
		return true, nil
	}
	return false, err
}

// operator is who gives the command: behind sudo, the one who used it.
func operator() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("user id %d", os.Getuid())
}
