package inbound

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/postroom/postroom/auth/authres"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/mailbox"
)

// suspiciousMark stands before the subject of a letter that is kept with a doubt, so that no mail program hides the doubt.
const suspiciousMark = "[suspicious]"

// composed is the letter as it is stored, and where the mark of a suspicious one belongs in it.
type composed struct {
	content io.Reader
	size    int64
	mark    string
	markAt  int64
}

// compose puts our Authentication-Results and Received fields before what came. What came is changed in one way only: the
// fields that only this server may write are left out, Return-Path (RFC 5321 section 4.4) and Authentication-Results in our
// name (RFC 8601 section 5). A last line without CR LF, which only BDAT can send, gets one, as the canonical form of DKIM has
// (RFC 6376 section 3.4.3), so that the size that POP3 tells is what it sends.
func (t *transaction) compose(l letter) (composed, error) {
	trace := l.verdict.Field(t.h.Hostname, l.judgement()...).Append(nil)
	trace = message.Received{
		Helo: t.client.Hello, FromIP: t.client.Remote.Addr(), FromRDNS: l.verdict.IPRev.Name, By: t.h.Hostname, ID: l.id, TLS: t.client.TLS,
		With: message.With(t.client.Extended, t.client.TLS != nil, false, t.mail.UTF8), For: t.recipients, Time: time.Now(),
	}.Append(trace)
	came := message.Without(l.spool, l.spool.Size(), l.header, func(f message.Field) bool {
		return f.Is("Return-Path") || f.Is("Authentication-Results") && authres.Names(f.Body, t.h.Hostname)
	})
	end, err := missingEnd(l.spool)
	if err != nil {
		return composed{}, fmt.Errorf("inbound: read spool: %w", err)
	}
	k := composed{
		content: io.MultiReader(bytes.NewReader(trace), came, bytes.NewReader(end)),
		size:    int64(len(trace)) + came.Size() + int64(len(end)),
	}
	if l.suspicion != "" {
		k.mark, k.markAt = markOf(l.header, came)
		k.markAt += int64(len(trace))
	}
	return k, nil
}

// judgement is our own result in the Authentication-Results field of a suspicious letter (RFC 8601 section 2.7.7: names with
// "x-" are free).
func (l letter) judgement() []authres.Result {
	if l.suspicion == "" {
		return nil
	}
	return []authres.Result{{Method: "x-postroom", Value: "suspicious", Comment: l.suspicion}}
}

// markOf says what is put into the letter for its owner to see, and where: behind the colon of its Subject field, or as a
// Subject field before the others.
func markOf(h *message.Header, came *message.Segments) (mark string, at int64) {
	for field := range h.All("Subject") {
		mark = " " + suspiciousMark
		if !strings.HasPrefix(field.Body, " ") && !strings.HasPrefix(field.Body, "\t") && !strings.HasPrefix(field.Body, "\r\n") {
			mark += " "
		}
		return mark, came.Offset(field.BodyStart)
	}
	return "Subject: " + suspiciousMark + "\r\n", 0
}

// missingEnd is the CR LF that the last line lacks, if it does.
func missingEnd(spool *message.Spool) ([]byte, error) {
	var last [2]byte
	if spool.Size() >= 2 {
		if _, err := spool.ReadAt(last[:], spool.Size()-2); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	if spool.Size() == 0 || string(last[:]) == "\r\n" {
		return nil, nil
	}
	return []byte("\r\n"), nil
}

// deliveries are the mailboxes, and what stands before and in the letter in each.
func (t *transaction) deliveries(k composed) []mailbox.Delivery {
	flags := int64(0)
	if k.mark != "" {
		flags = mailbox.Junk
	}
	all := make([]mailbox.Delivery, len(t.targets))
	for i, target := range t.targets {
		prefix := message.ReturnPath(t.mail.From.String())
		prefix = append(prefix, message.DeliveredTo(deliveredTo(target))...)
		all[i] = mailbox.Delivery{AccountID: target.AccountID, Prefix: prefix, Mark: k.mark, MarkAt: k.markAt, Flags: flags}
	}
	return all
}

// deliveredTo is the recipient as the sender wrote it, so that its owner can sort by tag or alias.
func deliveredTo(t target) string {
	if t.recipient.Postmaster {
		return t.Address
	}
	return t.recipient.Address.String()
}

func (t *transaction) accountIDs() []int64 {
	ids := make([]int64, len(t.targets))
	for i, target := range t.targets {
		ids[i] = target.AccountID
	}
	return ids
}

// entries are the letter's rows in the ledger.
func (t *transaction) entries(l letter) []maillog.Entry {
	all := make([]maillog.Entry, len(t.targets))
	for i, target := range t.targets {
		all[i] = maillog.Entry{
			Time: time.Now(), Message: l.id, Kind: maillog.KindStored, Account: target.AccountID,
			ReversePath: t.mail.From.String(), Recipient: deliveredTo(target),
			Remote: t.client.Remote.Addr().String(), Detail: l.told(target.Target.Address),
		}
	}
	return all
}

// told is what the ledger says of the letter, in a sentence.
func (l letter) told(mailbox string) string {
	detail := "kept in the mailbox of " + mailbox
	if l.suspicion != "" {
		detail += ", marked as suspicious: " + l.suspicion
	}
	return detail + "; " + l.verdict.String()
}
