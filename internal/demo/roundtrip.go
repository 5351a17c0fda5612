package demo

import (
	"bytes"
	"context"
	"crypto/x509"
	"time"

	"github.com/postroom/postroom/internal/message"
)

// World is the server that is shown, and whom the letter is for.
type World struct {
	SMTP        string         // host:port where a stranger connects
	POP3S       string         // host:port where the owner's mail program connects
	Submissions string         // host:port where it hands letters in
	Hostname    string         // the name that the server's certificate must have
	Roots       *x509.CertPool // the authority that must have signed it
	From        string         // the stranger's address
	Address     string         // the owner's address, and login
	Password    string
	Outside     *Outside // where From is
	// Policy says what the connection had to meet over which the last letter to an address left.
	Policy func(ctx context.Context, to string) (string, error)
}

// visit is one round trip under way.
type visit struct {
	*World
	letter  []byte
	fetched []byte
	smtp    *smtpClient
	pop3    *pop3Client
}

// RoundTrip is the way of one letter: from outside over SMTP into the server, and out over POP3S. Its steps are taken
// in order, once, by Run; only Address must be known before. A failed step closes the connection that it used.
func RoundTrip(w *World) []Step {
	v := &visit{World: w}
	return []Step{
		{"connect from outside, over SMTP", v.connect},
		{"encrypt with STARTTLS", v.encrypt},
		{"hand over a letter for " + w.Address, v.handOver},
		{"log in over POP3S as " + w.Address, v.logIn},
		{"fetch the letter", v.fetch},
		{"compare it with what was sent", v.compare},
		{"who sent it?", v.seeVerdict},
	}
}

func (v *visit) connect(ctx context.Context, note Note) (err error) {
	_, hello := cutAddress(v.From)
	v.smtp, err = dialSMTP(ctx, v.SMTP, hello, note)
	return err
}

func (v *visit) encrypt(ctx context.Context, note Note) error {
	v.smtp.note = note
	if err := v.smtp.startTLS(ctx, clientTLS(v.Roots, v.Hostname)); err != nil {
		return v.smtp.giveUp(err)
	}
	return nil
}

func (v *visit) handOver(_ context.Context, note Note) error {
	v.smtp.note = note
	_, domain := cutAddress(v.From)
	now := time.Now()
	letter := composeLetter(v.From, v.Address, now.UTC().Format("20060102150405.000000")+"@"+domain, now)
	signed, err := v.Outside.sign(letter)
	if err != nil {
		return v.smtp.giveUp(err)
	}
	v.letter = signed
	if err := v.smtp.sendLetter(v.From, v.Address, v.letter); err != nil {
		return v.smtp.giveUp(err)
	}
	return v.smtp.quit()
}

func (v *visit) logIn(ctx context.Context, note Note) (err error) {
	v.pop3, err = dialPOP3S(ctx, v.POP3S, clientTLS(v.Roots, v.Hostname), note)
	if err != nil {
		return err
	}
	if err := v.pop3.logIn(v.Address, v.Password); err != nil {
		return v.pop3.giveUp(err)
	}
	return nil
}

// fetch takes the newest letter, which is the one handed over: nobody else knows the server.
func (v *visit) fetch(_ context.Context, note Note) error {
	v.pop3.note = note
	n, err := v.pop3.count()
	if err != nil {
		return v.pop3.giveUp(err)
	}
	if v.fetched, err = v.pop3.retrieve(n); err != nil {
		return v.pop3.giveUp(err)
	}
	return v.pop3.quit()
}

func (v *visit) compare(_ context.Context, note Note) error {
	added, err := compareLetter(v.letter, v.fetched)
	if err != nil {
		return err
	}
	note("all %d octets of the letter came back, behind %d octets of trace fields (Return-Path, Authentication-Results, Received)", len(v.letter), added)
	return nil
}

// seeVerdict shows what the server found out about the letter, as any mail program can.
func (v *visit) seeVerdict(_ context.Context, note Note) error {
	header, err := message.ReadHeader(bytes.NewReader(v.fetched), message.HeaderLimits{})
	if err != nil {
		return err
	}
	return showResults(note, header, v.Hostname, map[string]string{"spf": "pass", "dkim": "pass", "dmarc": "pass"})
}
