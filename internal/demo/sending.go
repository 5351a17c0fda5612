package demo

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postroom/postroom/auth/dkim"
)

// nobodyOutside is an address that nobody has.
const nobodyOutside = "nobody@" + friendDomain

// Sending shows the way out: the owner writes to the stranger, and to nobody. Its steps come after those of RoundTrip, with the same
// World.
func Sending(w *World) []Step {
	v := &visit{World: w}
	return []Step{
		{w.Address + " writes to " + w.From + ", with a login", v.writeOut},
		{"what has arrived at " + friendHost + "?", v.seeArrival},
		{w.Address + " writes to somebody who is not there", v.writeToNobody},
		{"fetch what came back", v.fetchBounce},
	}
}

func (v *visit) writeOut(ctx context.Context, note Note) error {
	return v.submit(ctx, note, v.From, plain("Anna <"+v.Address+">", v.From, "Thank you", "3@"+v.Hostname, time.Now(), "Your letter has arrived, and so does mine."))
}

func (v *visit) writeToNobody(ctx context.Context, note Note) error {
	return v.submit(ctx, note, nobodyOutside, plain("Anna <"+v.Address+">", nobodyOutside, "Are you there?", "4@"+v.Hostname, time.Now(), "Hello?"))
}

// submit hands a letter in as a mail program does: RFC 6409, with TLS from the first octet (RFC 8314).
func (v *visit) submit(ctx context.Context, note Note, to string, letter []byte) error {
	c, err := dial(ctx, v.Submissions, clientTLS(v.Roots, v.Hostname), note)
	if err != nil {
		return err
	}
	s := &smtpClient{conn: c, hello: "annas-laptop.home.example"}
	if err := s.introduce(v.Address, v.Password); err != nil {
		return s.giveUp(err)
	}
	if err := s.sendLetter(v.Address, to, letter); err != nil {
		return s.giveUp(err)
	}
	return s.quit()
}

// introduce greets and logs in: RFC 4954, RFC 4616.
func (s *smtpClient) introduce(name, password string) error {
	if err := s.expect(220); err != nil {
		return err
	}
	s.note("C: EHLO %s", s.hello)
	if _, err := s.ehlo(); err != nil {
		return err
	}
	s.note("C: AUTH PLAIN ********")
	if err := s.send("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+name+"\x00"+password))); err != nil {
		return err
	}
	return s.expect(235)
}

// seeArrival looks at the letter as the other server has it.
func (v *visit) seeArrival(ctx context.Context, note Note) error {
	select {
	case a := <-v.Outside.neighbour.arrived:
		return v.judge(ctx, note, a)
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(patience):
		return fmt.Errorf("nothing has arrived within %s", patience)
	}
}

// judge wants TLS, verified, and signatures; and nothing in the letter that tells where it was written.
func (v *visit) judge(ctx context.Context, note Note, a arrival) error {
	if a.tls == nil {
		return errors.New("it came in clear text")
	}
	note("it came over %s, %s", tls.VersionName(a.tls.Version), tls.CipherSuiteName(a.tls.CipherSuite))
	policy, err := v.policy(ctx)
	if err != nil {
		return err
	}
	if policy != "dane" {
		return fmt.Errorf("the certificate was not held against the DNS: the policy was %q", policy)
	}
	note("the certificate is the one that the DNS names (DANE, RFC 7672)")
	good := 0
	for _, r := range a.results {
		note("dkim=%s, signed by %s with %s (selector %s)", r.Status, r.Signature.Domain, r.Signature.Algorithm, r.Signature.Selector)
		if r.Status == dkim.Pass {
			good++
		}
	}
	if good != 2 {
		return fmt.Errorf("%d good signatures, not 2", good)
	}
	for _, secret := range []string{"127.0.0.1", "annas-laptop"} {
		if bytes.Contains(a.letter, []byte(secret)) {
			return fmt.Errorf("the letter tells %q to everybody", secret)
		}
	}
	note("nothing in it tells where it was written")
	return nil
}

// policy waits until the server has written down how the letter left.
func (v *visit) policy(ctx context.Context) (policy string, err error) {
	for until := time.Now().Add(patience); ; {
		policy, err = v.Policy(ctx, v.From)
		if err == nil || time.Now().After(until) {
			return policy, err
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// fetchBounce waits for the notice that the letter to nobody failed.
func (v *visit) fetchBounce(ctx context.Context, note Note) error {
	quiet := func(string, ...any) {}
	for until := time.Now().Add(patience); ; {
		if err := v.logIn(ctx, quiet); err != nil {
			return err
		}
		if err := v.fetch(ctx, quiet); err != nil {
			return err
		}
		if bytes.Contains(v.fetched, []byte("report-type=delivery-status")) {
			return readBounce(note, string(v.fetched))
		}
		if time.Now().After(until) {
			return fmt.Errorf("no notice within %s", patience)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// readBounce shows the lines of a notice that count: RFC 3464.
func readBounce(note Note, notice string) error {
	for _, want := range []string{"Subject: Not delivered: Are you there?", "Final-Recipient: rfc822; " + nobodyOutside, "Action: failed", "Status: 5.1.1",
		"Diagnostic-Code: smtp; 550 5.1.1 nobody of that name lives here"} {
		if !strings.Contains(notice, "\r\n"+want+"\r\n") {
			return fmt.Errorf("the notice does not say %q", want)
		}
		note("%s", want)
	}
	return nil
}
