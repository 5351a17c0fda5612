package delivery

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/internal/wire"
	"github.com/postroom/postroom/queue"
)

// maxRecipients is how many recipients one transaction has at most, whatever the server allows.
const maxRecipients = 1000

// batch is one mail transaction: a MAIL, some RCPT, one content.
//
//	MAIL --2yz--> RCPT... --some 2yz--> DATA --354--> content, dot --2yz--> delivered
//	                                    BDAT n LAST, content -------2yz--> delivered
type batch struct {
	a        *attempt
	s        *session
	to       []int // indexes of the letter's recipients
	accepted []int
	mail     wire.Reply
	data     wire.Reply
	failure  *failure // what came to light in a reply
	ended    bool     // the end of the content may have reached the server
}

// exchange is a command and what to do with its reply.
type exchange struct {
	line    string
	timeout time.Duration
	got     func(wire.Reply)
}

// run makes the transaction. It settles at least one recipient, or returns a failure.
func (b *batch) run(ctx context.Context) *failure {
	b.s.used++
	b.s.until(envelopeTimeout + time.Duration(len(b.to))*perRecipient)
	if err := b.envelope(); err != nil {
		return b.lost(ctx, err, "after MAIL")
	}
	if b.failure != nil || len(b.accepted) == 0 {
		// RFC 2920 section 3.1: a server that wants the content nevertheless does not get it.
		b.s.broken = b.s.broken || b.data.Code == 354
		return b.failure
	}
	if f := b.content(ctx); f != nil {
		return f
	}
	return b.failure
}

// lost is the failure that an error of the connection means. Nothing is known about recipients after the end of the content:
// RFC 5321 section 4.5.4.1 has them tried again, and they may get the letter twice.
func (b *batch) lost(ctx context.Context, err error, doing string) *failure {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	f := lost(err, doing)
	if b.ended {
		o := f.at(b.s.stamp).Outcome
		o.Unclear = true
		b.settle(b.accepted, o)
	}
	return f
}

func (b *batch) settle(recipients []int, o queue.Outcome) {
	o.Host, o.Address, o.TLS, o.Policy, o.DSN = b.s.stamp.Host, b.s.stamp.Address, b.s.stamp.TLS, b.s.stamp.Policy, b.s.stamp.DSN
	for _, i := range slices.Clone(recipients) { // they may be those that are pending
		b.a.settle(i, o)
	}
}

// envelope sends MAIL and RCPT, and DATA behind them where that can be done at once.
func (b *batch) envelope() error {
	var all []exchange
	if b.s.dirty {
		all = append(all, exchange{"RSET", commandTimeout, func(wire.Reply) {}})
	}
	b.s.dirty = true
	all = append(all, exchange{b.mailLine(), commandTimeout, b.gotMail})
	for _, i := range b.to {
		all = append(all, exchange{b.rcptLine(i), commandTimeout, func(r wire.Reply) { b.gotRcpt(i, r) }})
	}
	if !b.s.ext.has("PIPELINING") {
		return b.oneByOne(all)
	}
	if !b.s.ext.has("CHUNKING") {
		all = append(all, exchange{"DATA", dataTimeout, func(r wire.Reply) { b.data = r }})
	}
	return b.together(all)
}

// together pipelines commands. RFC 2920.
func (b *batch) together(all []exchange) error {
	if err := b.s.quiet(); err != nil {
		return err
	}
	var commands []byte
	for _, e := range all {
		commands = append(append(commands, e.line...), '\r', '\n')
	}
	sent := b.s.begin(commands)
	for _, e := range all {
		r, err := b.s.reply(e.timeout)
		if err != nil {
			b.s.abort()
			_ = sent() // it ended in the same way
			return err
		}
		if b.got(e, r); r.Code == closing {
			b.s.abort()
			break
		}
	}
	if err := sent(); err != nil && b.failure == nil {
		return err
	}
	return nil
}

// oneByOne waits for each reply, for servers that cannot do otherwise.
func (b *batch) oneByOne(all []exchange) error {
	for _, e := range all {
		r, err := b.s.command(e.line, e.timeout)
		if err != nil {
			return err
		}
		if b.got(e, r); b.failure != nil || len(b.a.pending) == 0 {
			return nil
		}
	}
	return nil
}

// got handles a reply. 421 ends the session, whatever it answers.
func (b *batch) got(e exchange, r wire.Reply) {
	if r.Code == closing {
		b.failure = refused(r, thisHost)
		return
	}
	e.got(r)
}

func (b *batch) gotMail(r wire.Reply) {
	b.mail = r
	switch status, ok := b.judge(r); {
	case !ok:
		b.failure = lost(errReply, "after MAIL")
	case status == queue.Deferred:
		b.failure = refused(r, thisHost)
	case status == queue.Failed && !b.avoid6(r):
		b.settle(b.a.pending, replied(queue.Failed, r)) // it is about the letter
	}
}

func (b *batch) gotRcpt(i int, r wire.Reply) {
	if b.failure != nil || b.mail.Code/100 != 2 {
		return // it only says that there was no MAIL
	}
	switch status, ok := b.judge(r); {
	case !ok:
		b.failure = lost(errReply, "after RCPT")
	case status == queue.Delivered:
		b.accepted = append(b.accepted, i)
	case len(b.accepted) > 0 && tooMany(r):
	case !b.avoid6(r):
		b.settle([]int{i}, replied(status, r))
	}
}

// judge is what a reply to a command means. What says that we did not keep to the order is no word about the letter; nor is the demand
// for TLS (RFC 3207 section 4) by a server that offers it, where a handshake that failed has led here.
func (b *batch) judge(r wire.Reply) (queue.Status, bool) {
	status, ok := classOf(r)
	if status != queue.Failed {
		return status, ok
	}
	wantsTLS := r.Code == 530 || r.Enhanced.Subject == 7 && r.Enhanced.Detail == 10
	if wantsTLS && b.s.stamp.TLS == "" && b.s.ext.has("STARTTLS") {
		b.a.d.memory.forget(b.s.stamp.Host)
		b.s.broken = true // nothing else is sent over it
		return queue.Deferred, true
	}
	if r.Code == 503 {
		return queue.Deferred, true
	}
	return status, ok
}

// tooMany tells whether a reply to RCPT says that the recipient should come in another transaction. RFC 5321 section
// 4.5.3.1.10: 452, and 552 from older servers, where it is not about a mailbox.
func tooMany(r wire.Reply) bool {
	none := r.Enhanced == wire.Enhanced{}
	return (r.Code == 452 || r.Code == 552) && (none || r.Enhanced.Subject == 5 && r.Enhanced.Detail == 3)
}

// avoid6 leaves what is pending for IPv4, when the server does not like the reverse DNS of our IPv6 address.
func (b *batch) avoid6(r wire.Reply) bool {
	status, _ := classOf(r)
	o := replied(status, r)
	if !b.s.ip.Is6() || !b.a.six || !noReverse(o) {
		return false
	}
	b.failure = &failure{Outcome: o}
	return true
}

// utf8 tells whether the letter, or an address, needs SMTPUTF8.
func (b *batch) utf8() bool {
	return b.a.letter.UTF8 || slices.ContainsFunc(b.to, func(i int) bool { return !b.a.to[i].To.Address.IsASCII() })
}

// mailLine is MAIL with what the letter needs and the server offers.
func (b *batch) mailLine() string {
	l, ext := b.a.letter, b.s.ext
	var w strings.Builder
	w.WriteString("MAIL FROM:" + l.From.String())
	if ext.has("SIZE") && l.Size > 0 {
		w.WriteString(" SIZE=" + strconv.FormatInt(l.Size, 10))
	}
	if l.EightBit && ext.has("8BITMIME") {
		w.WriteString(" BODY=8BITMIME")
	}
	if b.utf8() {
		w.WriteString(" SMTPUTF8")
	}
	if l.RequireTLS && b.s.key.requireTLS {
		w.WriteString(" REQUIRETLS")
	}
	if ext.has("DSN") && l.Return != "" {
		w.WriteString(" RET=" + l.Return)
	}
	if ext.has("DSN") && isWord(l.EnvelopeID) {
		w.WriteString(" ENVID=" + l.EnvelopeID)
	}
	return w.String()
}

// rcptLine is RCPT with what the sender wants to be told. RFC 3461 section 5.2.1.
func (b *batch) rcptLine(i int) string {
	to := b.a.to[i]
	line := "RCPT TO:" + to.To.String()
	if !b.s.ext.has("DSN") {
		return line
	}
	if len(to.Notify) > 0 {
		line += " NOTIFY=" + strings.Join(to.Notify, ",")
	}
	if isWord(to.Original) || b.utf8() && isWideWord(to.Original) {
		line += " ORCPT=" + to.Original
	}
	return line
}

// isWord tells whether s can be the value of a parameter: RFC 5321 section 4.1.2, esmtp-value, where = is let through.
func isWord(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}

// isWideWord is isWord for letters that need SMTPUTF8. RFC 6533 section 3.
func isWideWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}
