package demo

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"time"

	"github.com/postroom/postroom/auth/dkim"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/smtpd"
)

// friendHost is the server of the friend's domain.
const friendHost = "mail." + friendDomain

// neighbour is the friend's mail server. It takes letters for everybody but nobody@, and looks who signed them.
type neighbour struct {
	server  *smtpd.Server
	address net.Addr
	outside *Outside
	arrived chan arrival
}

// arrival is a letter as the neighbour has it.
type arrival struct {
	from    string
	tls     *tls.ConnectionState // nil: it came in clear text
	letter  []byte
	results []dkim.Result
}

// openNeighbour starts it, and publishes its certificate in the DNS: RFC 7672.
func openNeighbour(o *Outside) (*neighbour, error) {
	certificate, err := selfSigned(friendHost)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &neighbour{address: listener.Addr(), outside: o, arrived: make(chan arrival, 10)}
	n.server = &smtpd.Server{Hostname: friendHost, Handler: n, TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}}
	digest := sha256.Sum256(certificate.Leaf.RawSubjectPublicKeyInfo)
	if err := o.zone.Add(fmt.Sprintf("_%d._tcp.%s. 60 IN TLSA 3 1 1 %s", n.port(), friendHost, hex.EncodeToString(digest[:]))); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	go func() { _ = n.server.Serve(listener) }() // ends with close
	return n, nil
}

// selfSigned makes a certificate that nobody has to trust: the DNS says that it is the right one.
func selfSigned(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

func (n *neighbour) port() uint16 { return n.address.(*net.TCPAddr).AddrPort().Port() }

func (n *neighbour) close() { n.server.Close() }

// Connect implements smtpd.Handler.
func (n *neighbour) Connect(_ context.Context, c *smtpd.Client) (smtpd.Session, error) {
	return &neighbourly{n, c}, nil
}

type neighbourly struct {
	*neighbour
	client *smtpd.Client
}

func (s *neighbourly) Hello(context.Context) error { return nil }
func (s *neighbourly) Close()                      {}

func (s *neighbourly) Mail(_ context.Context, m smtpd.Mail) (smtpd.Transaction, error) {
	return &taking{neighbourly: s, from: m.From.String()}, nil
}

type taking struct {
	*neighbourly
	from string
}

func (t *taking) Rcpt(_ context.Context, r smtpd.Rcpt) error {
	if strings.EqualFold(r.To.Address.String(), nobodyOutside) {
		return smtpd.Refuse(550, 1, 1, "nobody of that name lives here")
	}
	return nil
}

// Data verifies the signatures, with the keys that the DNS knows now.
func (t *taking) Data(ctx context.Context, body io.Reader) (smtpd.Reply, error) {
	letter, err := io.ReadAll(body)
	if err != nil {
		return smtpd.Reply{}, err
	}
	header, err := message.ReadHeader(bytes.NewReader(letter), message.HeaderLimits{})
	if err != nil {
		return smtpd.Reply{}, err
	}
	results := dkim.Verify(ctx, dkim.Letter{Content: bytes.NewReader(letter), Size: int64(len(letter)), Header: header}, dkim.Options{TXT: t.outside.resolver.TXT})
	select {
	case t.arrived <- arrival{t.from, t.client.TLS, letter, results}:
	default: // nobody looks any more
	}
	return smtpd.NewReply(250, 0, 0, "it is in the letter box"), nil
}
