package queue

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/message"
)

// ErrNoContent is what a Store's Open returns for content that is gone. A notice does without it.
var ErrNoContent = errors.New("queue: the content is gone")

// notices makes the notices that the sender is to get, and returns what keeps each inside a write.
func (s *settlement) notices(ctx context.Context) (all []func(*database.Tx) error, err error) {
	for _, kind := range []noticeKind{failure, delay, success} {
		to, ok := s.addressee(kind)
		if !ok {
			continue
		}
		var about []result
		for i, r := range s.results {
			if kind.wanted(r) {
				s.results[i].told = s.results[i].told || kind == delay
				about = append(about, r)
			}
		}
		if len(about) == 0 {
			continue
		}
		n := notice{id: message.NewID(), kind: kind, hostname: s.q.Hostname, from: s.q.postmaster(to.Address.Domain), to: to, letter: s.letter.Letter,
			about: about, original: s.original(ctx), now: s.now, giveUp: s.letter.Created.Add(s.q.GiveUp)}
		deliver, err := s.q.send(ctx, n.mail())
		if err != nil {
			return nil, err
		}
		if deliver != nil {
			all = append(all, deliver)
		}
	}
	return all, nil
}

// Confirm makes the notice that a letter has reached mailboxes here, and returns what keeps it inside a write; nil where nobody is to get it.
func (q *Queue) Confirm(ctx context.Context, l Letter, to []Recipient, content io.Reader) (deliver func(*database.Tx) error, err error) {
	if l.From.Null {
		return nil, nil
	}
	original, err := io.ReadAll(io.LimitReader(content, maxOriginal))
	if err != nil {
		return nil, err
	}
	about := make([]result, len(to))
	for i, r := range to {
		about[i] = result{waiting: waiting{Recipient: r}, Outcome: Outcome{Status: Delivered, Reply: "kept in the mailbox", Enhanced: "2.0.0"}, fate: sent}
	}
	n := notice{id: message.NewID(), kind: arrived, hostname: q.Hostname, from: q.postmaster(l.From.Domain), to: l.From, letter: l, about: about,
		original: original, now: time.Now()}
	return q.send(ctx, n.mail())
}

// wanted: RFC 3461 section 4.1. Where nothing was asked for, failures and delays are told. Where the other side takes DSN
// parameters, telling of success is its work (section 5.2.1).
func (k noticeKind) wanted(r result) bool {
	asked := func(what string) bool {
		return len(r.Notify) == 0 && what != "SUCCESS" || slices.Contains(r.Notify, what)
	}
	switch k {
	case failure:
		return r.fate == bounced && asked("FAILURE")
	case delay:
		return r.fate == stays && r.late && asked("DELAY")
	}
	return r.fate == sent && !r.DSN && asked("SUCCESS")
}

// addressee is who gets a notice. There is none about a letter with a null reverse-path (RFC 5321 section 4.5.5); where that is a
// notice of our own which nobody takes, postmaster hears of it, and that is the end. Nor is there one for a sender who has not logged in.
func (s *settlement) addressee(kind noticeKind) (to addr.Path, ok bool) {
	if !s.letter.From.Null {
		return s.letter.From, s.letter.Account != 0
	}
	return addr.Path{Postmaster: true}, s.letter.Account == 0 && kind == failure
}

// maxOriginal bounds what is returned of a letter.
const maxOriginal = 256 << 10

// original reads what a notice returns: the header, or where RET asks for it and it is not large, all. A notice without it is better than
// none.
func (s *settlement) original(ctx context.Context) []byte {
	content, err := s.q.Store.Open(ctx, s.letter.blob, s.letter.ID)
	var octets []byte
	if err == nil {
		octets, err = io.ReadAll(io.LimitReader(content, maxOriginal))
		_ = content.Close() // it was only read
	}
	if err != nil {
		s.q.Log.Warn("a notice does without the letter that it is about", maillog.Msg, s.letter.ID, maillog.Err, err)
		return nil
	}
	return octets
}

// mail is a letter of our own: a notice or an alert.
type mail struct {
	id      message.ID
	from    addr.Address
	to      addr.Path
	content []byte
	wide    bool // it needs SMTPUTF8
	secure  bool // it needs REQUIRETLS
	now     time.Time
}

// mail is the notice as a letter. RFC 8689 section 5: one about a letter that had to be encrypted is encrypted, too.
func (n notice) mail() mail {
	return mail{id: n.id, from: n.from, to: n.to, content: n.compose(), wide: n.wide(), secure: n.letter.RequireTLS, now: n.now}
}

// postmaster is the author of our own letters: postmaster of a domain, or of this host.
func (q *Queue) postmaster(domain addr.Domain) addr.Address {
	for _, name := range []string{domain.ASCII(), q.Hostname} {
		if a, err := addr.Parse("postmaster@" + name); name != "" && err == nil {
			return a
		}
	}
	return addr.Address{}
}

// send makes a letter of our own ready: for a mailbox here, or for the queue. It returns what keeps it inside a write; nothing where
// nobody gets it.
func (q *Queue) send(ctx context.Context, m mail) (deliver func(*database.Tx) error, err error) {
	deliver, found, err := q.Store.Keep(ctx, m.id, m.to, m.content)
	switch {
	case err != nil:
		return nil, err
	case found:
		return deliver, nil
	case m.to.Postmaster:
		q.Log.Error("a letter of the server reaches nobody: there is no postmaster", maillog.Msg, m.id)
		return nil, nil
	}
	content := m.content
	if q.Signer != nil {
		fields, err := q.Signer.Sign(ctx, m.from.Domain, content)
		if err != nil { // an unsigned notice is better than none
			q.Log.Error("a letter of the server is not signed", maillog.Msg, m.id, maillog.Err, err)
		}
		content = append(fields, content...)
	}
	hold, err := q.Store.Hold(ctx, m.id, content)
	if err != nil {
		return nil, err
	}
	l := Letter{ID: m.id, From: addr.Path{Null: true}, Size: int64(len(content)), EightBit: !isASCII(content), UTF8: m.wide, RequireTLS: m.secure, Created: m.now}
	return func(tx *database.Tx) error {
		blob, err := hold(tx)
		if err != nil {
			return err
		}
		return q.Add(tx, l, blob, []Recipient{{To: m.to}})
	}, nil
}

// noticeKind is what a notice tells.
type noticeKind int

const (
	failure noticeKind = iota
	delay
	success
	arrived // here
)

// notice is a delivery status notification: RFC 3464, and RFC 6533 where addresses are not ASCII.
type notice struct {
	id       message.ID
	kind     noticeKind
	hostname string
	from     addr.Address
	to       addr.Path
	letter   Letter
	about    []result
	original []byte
	now      time.Time
	giveUp   time.Time
}
