// Package load makes mail traffic and measures how a server bears it: letters over SMTP in every way that they may come,
// sessions of POP3, and idle connections. It talks to loopback only, and every run is bounded in number or time.
package load

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
)

// The domain that the letters come from, and the name that their client has.
const (
	SenderDomain = "sender.example"
	Sender       = "ben@" + SenderDomain
	ClientName   = "client." + SenderDomain
	selector     = "bench"
)

// variants is how many different letters a pool holds: enough that no server gains by seeing one again.
const variants = 50

// Letters are signed letters of one size, made ahead. Each one that is sent has an id of its own in a field before the
// signature, which does not cover it.
type Letters struct {
	bodies [][]byte
	signed bool // the From field is there already
}

// Key signs letters.
type Key struct {
	private *rsa.PrivateKey
	Record  string // to be published at Name
}

// Name is where the public key belongs.
func (k *Key) Name() string { return selector + "._domainkey." + SenderDomain }

// NewKey makes an RSA key of 2048 bits, as most mail is signed with.
func NewKey() (*Key, error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, err
	}
	return &Key{private, "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)}, nil
}

// NewLetters makes a pool of letters of about size octets to a recipient.
func NewLetters(key *Key, to string, size int) (*Letters, error) {
	l := &Letters{signed: true}
	for i := range variants {
		var signed bytes.Buffer
		letter := append([]byte(author(Sender)), compose(to, size, i)...)
		err := dkim.Sign(&signed, bytes.NewReader(letter), &dkim.SignOptions{
			Domain: SenderDomain, Selector: selector, Signer: key.private, Hash: crypto.SHA256,
			HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
			HeaderKeys: []string{"From", "From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"},
		})
		if err != nil {
			return nil, err
		}
		l.bodies = append(l.bodies, signed.Bytes())
		if size > 1<<20 {
			break // one is large enough
		}
	}
	return l, nil
}

// NewUnsigned makes a pool of letters that nobody has signed. Whoever sends one is its author.
func NewUnsigned(to string, size int) *Letters {
	l := &Letters{}
	for i := range variants {
		l.bodies = append(l.bodies, compose(to, size, i))
	}
	return l
}

func author(address string) string { return "From: <" + address + ">\r\n" }

// compose writes the letter of one variant, but for its author: words in lines of about 76 octets.
func compose(to string, size, variant int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "To: <%s>\r\nSubject: letter %d of some length\r\nDate: Thu, 01 Oct 2026 10:00:00 +0000\r\n"+
		"Message-ID: <%d.%d@%s>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n", to, variant, variant, size, SenderDomain)
	for line := variant; b.Len() < size-500; line++ { // the signature takes the rest
		text := fmt.Sprintf("%06d ", line*7919%1000000)
		b.WriteString(strings.Repeat(text, 11)[:76] + "\r\n")
	}
	return b.Bytes()
}

// idField names the field with the id.
const idField = "X-Load-Id: "

// parts are the fields of its own and the rest of letter number n: CR LF line ends, and no line that begins with a dot.
func (l *Letters) parts(n int, from string) (head, body []byte) {
	head = fmt.Appendf(nil, "%s%d\r\n", idField, n)
	if !l.signed {
		head = append(head, author(from)...)
	}
	return head, l.bodies[n%len(l.bodies)]
}

// Letter is letter number n as a whole.
func (l *Letters) Letter(n int, from string) []byte {
	head, body := l.parts(n, from)
	return append(head, body...)
}

// Size is about the size of one.
func (l *Letters) Size() int { return len(l.bodies[0]) + len(idField) + 8 }
