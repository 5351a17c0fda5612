package demo

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/resolve/zone"
)

// The domains of the outside world; RFC 2606: nobody's.
const (
	friendDomain = "elsewhere.example" // signs its mail, and asks to reject what it did not send
	listDomain   = "lists.example"     // runs a mailing list
	forgerDomain = "forger.example"    // pretends to be a bank
	bankDomain   = "bank.example"      // asks to reject what it did not send
	selector     = "demo"
)

// Outside is the rest of the Internet: a DNS server with the domains that send mail in the demonstration, all of them from
// this machine, the key with which one of them signs, and the mail server of that one.
type Outside struct {
	DNS       netip.AddrPort
	zone      *zone.Zone
	resolver  *resolve.Resolver
	key       ed25519.PrivateKey
	neighbour *neighbour
	stop      func()
}

// OpenOutside starts it. Close ends it.
func OpenOutside(ctx context.Context) (*Outside, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	z, err := zone.Parse(fmt.Sprintf(`
		%[1]s.                 60 IN MX  10 mail.%[1]s.
		%[1]s.                 60 IN TXT "v=spf1 ip4:127.0.0.0/8 -all"
		mail.%[1]s.            60 IN A   127.0.0.1
		_dmarc.%[1]s.          60 IN TXT "v=DMARC1; p=reject"
		%[5]s._domainkey.%[1]s. 60 IN TXT "v=DKIM1; k=ed25519; p=%[6]s"
		1.0.0.127.in-addr.arpa. 60 IN PTR mail.%[1]s.
		%[2]s.                 60 IN MX  10 mail.%[1]s.
		%[2]s.                 60 IN TXT "v=spf1 ip4:127.0.0.0/8 -all"
		%[3]s.                 60 IN MX  10 mail.%[1]s.
		%[3]s.                 60 IN TXT "v=spf1 ip4:127.0.0.0/8 -all"
		%[4]s.                 60 IN MX  10 mail.%[4]s.
		mail.%[4]s.            60 IN A   192.0.2.1
		%[4]s.                 60 IN TXT "v=spf1 ip4:192.0.2.1 -all"
		_dmarc.%[4]s.          60 IN TXT "v=DMARC1; p=reject"
		`, friendDomain, listDomain, forgerDomain, bankDomain, selector, base64.StdEncoding.EncodeToString(public)))
	if err != nil {
		return nil, err
	}
	z.SetSecure(true)
	server, stop, err := z.Start(ctx)
	if err != nil {
		return nil, err
	}
	o := &Outside{DNS: server, zone: z, key: private, stop: stop}
	if o.resolver, err = resolve.New(resolve.Options{Servers: []netip.AddrPort{server}}); err == nil {
		o.neighbour, err = openNeighbour(o)
	}
	if err != nil {
		stop()
		return nil, err
	}
	return o, nil
}

// Port is where the mail servers of the outside world listen, instead of 25.
func (o *Outside) Port() uint16 { return o.neighbour.port() }

// Publish puts a TXT record into the DNS.
func (o *Outside) Publish(name, text string) { o.zone.AddTXT(name, text) }

// Add puts a record into the DNS, written as in a zone file.
func (o *Outside) Add(record string) error { return o.zone.Add(record) }

// Close ends its servers.
func (o *Outside) Close() {
	o.neighbour.close()
	o.resolver.Close()
	o.stop()
}

// sign puts the signature of the friend's domain before a letter.
func (o *Outside) sign(letter []byte) ([]byte, error) {
	var signed bytes.Buffer
	err := dkim.Sign(&signed, bytes.NewReader(letter), &dkim.SignOptions{
		Domain: friendDomain, Selector: selector, Signer: o.key,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
		HeaderKeys: []string{"From", "From", "To", "Subject", "Date", "Message-ID"},
	})
	return signed.Bytes(), err
}

// forged is a letter that pretends to come from a bank.
func forged(to string, now time.Time) []byte {
	return plain("Your bank <security@"+bankDomain+">", to, "Your account is locked", "1@"+forgerDomain, now,
		"Dear customer, log in at once.")
}

// throughList is a signed letter as a mailing list passes it on: with its name in the subject and a line at the end, which
// breaks the signature.
func (o *Outside) throughList(from, to string, now time.Time) ([]byte, error) {
	signed, err := o.sign(plain("Ben Outside <"+from+">", "friends@"+listDomain, "News", "2@"+friendDomain, now, "Hello everybody."))
	if err != nil {
		return nil, err
	}
	changed := strings.Replace(string(signed), "Subject: News", "Subject: [friends] News", 1)
	return []byte("List-Id: <friends." + listDomain + ">\r\n" + changed + "-- \r\nThe list of friends\r\n"), nil
}

// plain composes a short letter.
func plain(from, to, subject, id string, now time.Time, text string) []byte {
	return []byte(strings.Join([]string{
		"From: " + from, "To: <" + to + ">", "Subject: " + subject, "Date: " + now.Format(dateLayout), "Message-ID: <" + id + ">", "", text, "",
	}, "\r\n"))
}
