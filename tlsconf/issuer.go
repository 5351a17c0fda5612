package tlsconf

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

const (
	// orderTimeout is how long one order may take, propagation in the DNS included.
	orderTimeout = 8 * time.Minute
	// maxDirectory bounds the directory of an authority.
	maxDirectory = 64 << 10
)

// authority is who issues certificates.
type authority struct {
	directory string
	staging   string   // where orders can be tried that count for nothing; "": nowhere
	caa       []string // its names in CAA records; nil: ask its directory
}

// authorities are those with a name in the configuration.
var authorities = map[string]authority{
	"letsencrypt": {certmagic.LetsEncryptProductionCA, certmagic.LetsEncryptStagingCA, []string{"letsencrypt.org"}},
	"zerossl":     {certmagic.ZeroSSLProductionCA, "", []string{"sectigo.com", "zerossl.com", "trust-provider.com", "usertrust.com", "comodoca.com", "comodo.com"}},
	"google":      {certmagic.GoogleTrustProductionCA, "", []string{"pki.goog"}}, // its staging wants another external account
}

// Identities are the names that CAA records know an authority by, which is named as in ACME.CA; none where they are not known.
func Identities(ca string) []string { return authorityOf(ca).caa }

func authorityOf(ca string) authority {
	if ca == "" {
		ca = "letsencrypt"
	}
	if known, ok := authorities[ca]; ok {
		return known
	}
	return authority{directory: ca}
}

// method is a way to prove that a name is ours.
type method string

// The methods, by their names in RFC 8555 and 8737.
const (
	byHTTP method = "http-01"
	byALPN method = "tls-alpn-01"
	byDNS  method = "dns-01"
)

// orderer gets certificates.
type orderer interface {
	// order returns a chain in PEM for a name and a key.
	order(ctx context.Context, directory string, methods []method, name string, key *ecdsa.PrivateKey) (string, error)
	// identities are the names of the authority in CAA records.
	identities(ctx context.Context) ([]string, error)
}

// issuers orders certificates: a library's issuer for each authority and set of methods.
type issuers struct {
	o       *ACME
	ca      authority
	storage *storage
	log     *zap.Logger
	http    *http.Client // for the directory
	cache   *certmagic.Cache
	answers *certmagic.Config // knows the challenges of all

	mu  sync.Mutex // guards all
	all map[string]*certmagic.ACMEIssuer
}

func newIssuers(o *ACME, s *storage, log *zap.Logger) *issuers {
	i := &issuers{o: o, ca: authorityOf(o.CA), storage: s, log: log, all: map[string]*certmagic.ACMEIssuer{}}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: o.CARoots}, IdleConnTimeout: time.Minute}
	i.http = &http.Client{Transport: transport, Timeout: 30 * time.Second}
	// The library's cache of certificates stays empty: which certificate is served is our own rows' business.
	i.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return i.answers, nil }, Logger: log,
	})
	i.answers = certmagic.New(i.cache, certmagic.Config{Storage: s, Logger: log, Issuers: []certmagic.Issuer{}, DisableARI: true})
	production := i.issuer(i.ca.directory, []method{byHTTP, byALPN})
	i.answers.Issuers = []certmagic.Issuer{production}
	if i.ca.staging != "" {
		i.answers.Issuers = append(i.answers.Issuers, i.issuer(i.ca.staging, []method{byHTTP, byALPN}))
	}
	return i
}

func (i *issuers) close() {
	i.cache.Stop()
	i.http.CloseIdleConnections()
}

// issuer returns the library's issuer for an authority and the methods that may prove a name.
func (i *issuers) issuer(directory string, methods []method) *certmagic.ACMEIssuer {
	key := directory + fmt.Sprint(methods)
	i.mu.Lock()
	defer i.mu.Unlock()
	if known := i.all[key]; known != nil {
		return known
	}
	template := certmagic.ACMEIssuer{
		CA: directory, Email: i.o.Email, Agreed: true, TrustedRoots: i.o.CARoots, CertObtainTimeout: orderTimeout, Logger: i.log,
		DisableHTTPChallenge: true, DisableTLSALPNChallenge: true,
	}
	if i.o.EABKeyID != "" && directory == i.ca.directory {
		template.ExternalAccount = &acme.EAB{KeyID: i.o.EABKeyID, MACKey: i.o.EABKey}
	}
	for _, m := range methods {
		switch m {
		case byHTTP:
			template.DisableHTTPChallenge = false
			template.ListenHost, template.AltHTTPPort = hostPort(i.o.HTTP)
		case byALPN:
			template.DisableTLSALPNChallenge = false
			template.ListenHost, template.AltTLSALPNPort = hostPort(i.o.HTTPS)
		case byDNS:
			template.DNS01Solver = &dnsSolver{provider: i.o.Provider, dns: i.o.DNS}
		}
	}
	made := certmagic.NewACMEIssuer(i.answers, template)
	i.all[key] = made
	return made
}

// hostPort is where the first of our ports listens. The library opens a port of its own where nobody listens, which never is.
func hostPort(addrs []string) (host string, port int) {
	if len(addrs) == 0 {
		return "", 0
	}
	host, text, err := net.SplitHostPort(addrs[0])
	if err != nil {
		return "", 0 // the configuration was checked
	}
	port, _ = strconv.Atoi(text)
	return host, port
}

// order gets a certificate for a name and a key: a chain in PEM.
func (i *issuers) order(ctx context.Context, directory string, methods []method, name string, key *ecdsa.PrivateKey) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, key)
	if err != nil {
		return "", err
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return "", err
	}
	issuer := i.issuer(directory, methods)
	if err := issuer.PreCheck(ctx, []string{name}, false); err != nil {
		return "", err
	}
	issued, err := issuer.Issue(ctx, request)
	if err != nil {
		return "", err
	}
	c, err := certificate(issued.Certificate, key)
	switch {
	case err != nil:
		return "", fmt.Errorf("the authority sent a certificate that is of no use: %w", err)
	case c.Leaf.VerifyHostname(name) != nil || !time.Now().Before(c.Leaf.NotAfter):
		return "", errors.New("the authority sent a certificate for another name or time")
	}
	return string(issued.Certificate), nil
}

// identities are the names of the authority in CAA records. Where they are not known, its directory may say (RFC 8555 section 7.1.1).
func (i *issuers) identities(ctx context.Context) ([]string, error) {
	if i.ca.caa != nil {
		return i.ca.caa, nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, i.ca.directory, nil)
	if err != nil {
		return nil, err
	}
	response, err := i.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("the authority %s is not reached: %w", i.ca.directory, err)
	}
	defer response.Body.Close()
	var directory struct {
		Meta struct {
			Identities []string `json:"caaIdentities"`
		} `json:"meta"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxDirectory)).Decode(&directory); err != nil || response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the authority %s shows no directory (status %d): see that the URL is right", i.ca.directory, response.StatusCode)
	}
	return directory.Meta.Identities, nil
}

// answer answers an HTTP-01 challenge, if the request is one.
func (i *issuers) answer(w http.ResponseWriter, r *http.Request) bool {
	return i.issuer(i.ca.directory, []method{byHTTP, byALPN}).HandleHTTPChallenge(w, r)
}

// pending tells whether a challenge of a name is under way, here or on another node. Strangers ask for others, which is not worth a
// line in the log.
func (i *issuers) pending(ctx context.Context, name string) bool {
	if _, here := certmagic.GetACMEChallenge(name); here {
		return true
	}
	for _, issuer := range i.answers.Issuers {
		if i.storage.Exists(ctx, challengeAsset(issuer, name)) {
			return true
		}
	}
	return false
}

// challengeAsset is where the library keeps a challenge.
func challengeAsset(issuer certmagic.Issuer, name string) string {
	return "acme/" + certmagic.StorageKeys.Safe(issuer.IssuerKey()) + "/challenge_tokens/" + certmagic.StorageKeys.Safe(name) + ".json"
}

// isALPN tells whether an authority asks for the certificate of a TLS-ALPN-01 challenge: RFC 8737 section 3.
func isALPN(hello *tls.ClientHelloInfo) bool {
	return hello.ServerName != "" && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmez.ACMETLS1Protocol
}

// because is the cause of a failed order in one sentence for people.
func because(err error) string {
	if p, ok := errors.AsType[acme.Problem](err); ok {
		detail := p.Detail
		for _, sub := range p.Subproblems {
			detail += "; " + sub.Detail
		}
		return fmt.Sprintf("the authority says: %s (%s)", oneLine(detail), strings.TrimPrefix(p.Type, acme.ProblemTypeNamespace))
	}
	return oneLine(err.Error())
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
