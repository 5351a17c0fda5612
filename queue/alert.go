package queue

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/message"
)

const (
	// alertInterval is how soon the same is told again.
	alertInterval = time.Hour
	// maxAlerts bounds what is told in that time: who is told everything reads nothing.
	maxAlerts = 50
)

// Alert is what the operator must know.
type Alert struct {
	Domain addr.Domain // whose mail it is about; zero: this server's
	Title  string      // what happened, to what; the same title is told once an hour
	Text   string      // the rest, and what to do next
}

// told are the alerts of the last hour.
type told struct {
	mu     sync.Mutex // guards titles
	titles map[string]time.Time
}

// first tells whether an alert is new.
func (t *told) first(title string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for old, at := range t.titles {
		if now.Sub(at) >= alertInterval {
			delete(t.titles, old)
		}
	}
	if _, again := t.titles[title]; again || len(t.titles) >= maxAlerts {
		return false
	}
	if t.titles == nil {
		t.titles = map[string]time.Time{}
	}
	t.titles[title] = now
	return true
}

// Alert writes to postmaster here, and to AlertsTo. The caller has logged what happened; that a letter could not be written is
// logged, too.
func (q *Queue) Alert(ctx context.Context, a Alert) {
	now := time.Now()
	if !q.told.first(a.Title, now) {
		return
	}
	recipients := []addr.Path{{Postmaster: true}}
	if !q.AlertsTo.IsZero() {
		recipients = append(recipients, addr.Path{Address: q.AlertsTo})
	}
	for _, to := range recipients {
		if err := q.alert(ctx, a, to, now); err != nil {
			q.Log.Error("alert not written", maillog.To, to.String(), "title", a.Title, maillog.Err, err)
		}
	}
}

func (q *Queue) alert(ctx context.Context, a Alert, to addr.Path, now time.Time) error {
	m := mail{id: message.NewID(), from: q.postmaster(a.Domain), to: to, now: now}
	m.content = a.compose(m, q.Hostname)
	deliver, err := q.send(ctx, m)
	if err != nil || deliver == nil {
		return err
	}
	return q.DB.Write(ctx, func(tx *database.Tx) error { return deliver(tx) })
}

// compose writes the letter.
func (a Alert) compose(m mail, hostname string) []byte {
	var b bytes.Buffer
	to := m.to.Address.String()
	if m.to.Postmaster {
		to = m.from.String()
	}
	fmt.Fprintf(&b, "From: Postroom on %s <%s>\r\nTo: <%s>\r\nSubject: [postroom] %s\r\nDate: %s\r\nMessage-ID: <%s@%s>\r\n",
		hostname, m.from, to, ascii(a.Title), m.now.Format(time.RFC1123Z), m.id, hostname)
	b.WriteString("Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n")
	for line := range strings.Lines(a.Title + ".\n\n" + a.Text + "\n") {
		b.WriteString(ascii(strings.TrimRight(line, "\r\n")) + "\r\n")
	}
	return b.Bytes()
}

// ascii makes text fit for a line that everybody can read.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, cut(s, 900))
}
