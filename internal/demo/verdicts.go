package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postroom/postroom/auth/authres"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/internal/wire"
)

// Verdicts shows who wrote what: the letter of the round trip, one that is forged, and one that came over a mailing list. Its
// steps come after those of RoundTrip, with the same World.
func Verdicts(w *World) []Step {
	v := &visit{World: w}
	return []Step{
		{"a forged letter, From: a bank", v.forge},
		{"a letter that a mailing list changed", v.passOn},
		{"fetch it: what does its owner see?", v.seeMark},
	}
}

// forge hands over a letter that must be refused.
func (v *visit) forge(ctx context.Context, note Note) error {
	reply, err := v.deliver(ctx, note, "mallory@"+forgerDomain, forged(v.Address, time.Now()))
	if err != nil {
		return err
	}
	if reply.Code != 550 || reply.Enhanced.Subject != 7 || reply.Enhanced.Detail != 26 {
		return fmt.Errorf("the forged letter was answered with %s", reply)
	}
	note("refused: %s did not send it, and says that such mail should be rejected", bankDomain)
	return nil
}

// passOn hands over a letter that must be kept with a mark.
func (v *visit) passOn(ctx context.Context, note Note) error {
	letter, err := v.Outside.throughList(v.From, v.Address, time.Now())
	if err != nil {
		return err
	}
	v.letter = letter
	reply, err := v.deliver(ctx, note, "friends-bounces@"+listDomain, letter)
	if err != nil {
		return err
	}
	if reply.Code != 250 {
		return fmt.Errorf("the letter of the list was answered with %s", reply)
	}
	return nil
}

// deliver hands one letter over on a connection of its own.
func (v *visit) deliver(ctx context.Context, note Note, from string, letter []byte) (wire.Reply, error) {
	_, hello := cutAddress(from)
	s, err := dialSMTP(ctx, v.SMTP, hello, func(string, ...any) {})
	if err != nil {
		return wire.Reply{}, err
	}
	if err := s.startTLS(ctx, clientTLS(v.Roots, v.Hostname)); err != nil {
		return wire.Reply{}, s.giveUp(err)
	}
	s.note = note
	reply, err := s.offerLetter(from, v.Address, letter)
	if err != nil {
		return wire.Reply{}, s.giveUp(err)
	}
	s.note = func(string, ...any) {}
	return reply, s.quit()
}

// seeMark fetches the letter of the list.
func (v *visit) seeMark(ctx context.Context, note Note) error {
	if err := v.logIn(ctx, func(string, ...any) {}); err != nil {
		return err
	}
	if err := v.fetch(ctx, func(string, ...any) {}); err != nil {
		return err
	}
	header, err := message.ReadHeader(bytes.NewReader(v.fetched), message.HeaderLimits{})
	if err != nil {
		return err
	}
	subject := header.Get("Subject")
	note("Subject: %s", subject)
	if subject != "[suspicious] [friends] News" {
		return errors.New("the subject is not marked")
	}
	return showResults(note, header, v.Hostname, map[string]string{"spf": "pass", "dkim": "fail", "dmarc": "fail"})
}

// showResults prints the Authentication-Results field of the server, and compares some of its results with what they must be.
func showResults(note Note, header *message.Header, server string, want map[string]string) error {
	got := map[string]string{}
	for f := range header.All("Authentication-Results") {
		field, err := authres.Parse(f.Value())
		if err != nil || field.ServID != server {
			continue
		}
		for _, r := range field.Results {
			note("%s", describe(r))
			if got[r.Method] == "" {
				got[r.Method] = r.Value
			}
		}
	}
	for method, value := range want {
		if got[method] != value {
			return fmt.Errorf("%s is %q, not %q", method, got[method], value)
		}
	}
	return nil
}

// describe is a result in one line.
func describe(r authres.Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s=%s", r.Method, r.Value)
	if r.Comment != "" {
		fmt.Fprintf(&b, " (%s)", r.Comment)
	}
	for _, p := range r.Properties {
		fmt.Fprintf(&b, " %s.%s=%s", p.Type, p.Name, p.Value)
	}
	return b.String()
}
