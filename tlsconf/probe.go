package tlsconf

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/mholt/acmez/v3"
)

const (
	// challengePath is where authorities look: RFC 8555 section 8.3.
	challengePath = "/.well-known/acme-challenge/"
	// probePrefix begins what we look for there ourselves, which no authority's token does.
	probePrefix = "postroom-"
	// probeTimeout is how long one address may take.
	probeTimeout = 10 * time.Second
	// maxProbe bounds what is read of an answer.
	maxProbe = 4 << 10
)

// prober finds out whether a name's addresses lead to this server.
type prober interface {
	Probe(ctx context.Context, m method, name string, ip netip.Addr, nonce string) reach
}

// network connects to port 80 and 443, as an authority does.
type network struct {
	http, https uint16 // 0: 80 and 443
}

// Probe asks one address for what only we know.
func (n network) Probe(ctx context.Context, m method, name string, ip netip.Addr, nonce string) reach {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if m == byALPN {
		return n.probeALPN(ctx, name, ip, nonce)
	}
	return n.probeHTTP(ctx, name, ip, nonce)
}

func port(configured, usual uint16) uint16 {
	if configured != 0 {
		return configured
	}
	return usual
}

func (n network) probeHTTP(ctx context.Context, name string, ip netip.Addr, nonce string) reach {
	target := netip.AddrPortFrom(ip, port(n.http, 80)).String()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, target)
		},
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+name+challengePath+probePrefix+nonce, nil)
	if err != nil {
		return reach{err: err.Error()}
	}
	response, err := client.Do(request)
	if err != nil {
		return reach{err: plainCause(err)}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxProbe))
	switch {
	case err != nil:
		return reach{err: plainCause(err)}
	case string(body) == nonce:
		return reach{here: true}
	}
	return reach{other: strings.TrimSpace(fmt.Sprintf("%d %s", response.StatusCode, response.Header.Get("Server")))}
}

func (n network) probeALPN(ctx context.Context, name string, ip netip.Addr, nonce string) reach {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", netip.AddrPortFrom(ip, port(n.https, 443)).String())
	if err != nil {
		return reach{err: plainCause(err)}
	}
	defer conn.Close()
	// The certificate signs itself, as that of a challenge does: what counts is what is in it.
	client := tls.Client(conn, &tls.Config{ServerName: name, NextProtos: []string{acmez.ACMETLS1Protocol}, InsecureSkipVerify: true})
	if err := client.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil {
			return reach{err: plainCause(ctx.Err())}
		}
		return reach{other: "it does not know acme-tls/1: " + oneLine(err.Error())}
	}
	leaf := client.ConnectionState().PeerCertificates[0]
	if leaf.Subject.CommonName == probePrefix+nonce {
		return reach{here: true}
	}
	return reach{other: "its certificate is for " + leaf.Subject.CommonName}
}

// plainCause says in few words why nobody answered.
func plainCause(err error) string {
	switch timeout, ok := errors.AsType[net.Error](err); {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no route to it"
	case errors.Is(err, context.DeadlineExceeded), ok && timeout.Timeout():
		return "no answer in time"
	}
	return oneLine(err.Error())
}

// probeAsset is where a nonce is kept for all nodes, while a probe is under way.
func probeAsset(name string) string { return "probe/" + name }

// answerProbe answers a probe over HTTP, if the request is one.
func (a *acmeSource) answerProbe(w http.ResponseWriter, r *http.Request) bool {
	nonce, ok := strings.CutPrefix(r.URL.Path, challengePath+probePrefix)
	if !ok {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	known, err := a.storage.Load(r.Context(), probeAsset(strings.ToLower(host)))
	if err != nil || string(known) != nonce {
		return false
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, nonce) // who asked sees whether it arrived
	return true
}

// probeCertificate answers a probe over TLS.
func (a *acmeSource) probeCertificate(ctx context.Context, name string) (*tls.Certificate, error) {
	nonce, err := a.storage.Load(ctx, probeAsset(strings.ToLower(name)))
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return selfMade(probePrefix+string(nonce), name, key)
}

// selfMade makes a certificate that signs itself.
func selfMade(subject, name string, key *ecdsa.PrivateKey) (*tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: subject},
		DNSNames:     []string{name},
		NotBefore:    time.Now().Add(-backdate),
		NotAfter:     time.Now().AddDate(0, 0, certDays),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
