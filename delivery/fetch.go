package delivery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// The bounds of a policy that is fetched.
const (
	fetchTimeout   = time.Minute // RFC 8461 section 3.3
	maxPolicy      = 64 << 10    // the same
	maxFetchHeader = 16 << 10
)

// fetcher fetches MTA-STS policies by HTTPS.
type fetcher struct {
	o      Options
	client *http.Client
}

// PolicyFetcher returns what fetches the MTA-STS policy of a domain, as it is fetched before mail leaves.
func PolicyFetcher(r Resolver) func(ctx context.Context, domain string) ([]byte, error) {
	return newFetcher(Options{Resolver: r, Dial: dial, HTTPSPort: 443}).fetch
}

func newFetcher(o Options) *fetcher {
	f := &fetcher{o: o}
	f.client = &http.Client{
		Timeout: fetchTimeout,
		// RFC 8461 section 3.3: redirects must not be followed.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            f.dial,
			TLSClientConfig:        &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    fetchTimeout,
			MaxResponseHeaderBytes: maxFetchHeader,
			DisableKeepAlives:      true,
			DisableCompression:     true,
		},
	}
	return f
}

// dial looks up the policy host and opens a connection to one of its addresses.
func (f *fetcher) dial(ctx context.Context, _, hostPort string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout) // the request's own end does not end a call that is under way
	defer cancel()
	found, err := f.o.Resolver.Addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	for _, ip := range orderAddresses(found.IPs, true) {
		var c net.Conn
		if c, err = f.o.Dial(ctx, netip.Addr{}, netip.AddrPortFrom(ip, uint16(n))); err == nil {
			return c, nil
		}
	}
	return nil, err
}

var errPolicyHost = errors.New("the policy host did not answer as RFC 8461 asks")

// fetch returns the policy of a domain as it is published. The certificate must be good for the name of the policy host.
func (f *fetcher) fetch(ctx context.Context, domain string) ([]byte, error) {
	host := "mta-sts." + domain
	if f.o.HTTPSPort != 443 {
		host = net.JoinHostPort(host, strconv.Itoa(int(f.o.HTTPSPort)))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "Postroom")
	response, err := f.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")) // what cannot be read is no text/plain
	switch {
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%w: status %d", errPolicyHost, response.StatusCode)
	case kind != "text/plain":
		return nil, fmt.Errorf("%w: media type %.60q", errPolicyHost, kind)
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, maxPolicy+1))
	switch {
	case err != nil:
		return nil, err
	case len(content) > maxPolicy:
		return nil, fmt.Errorf("%w: it is larger than %d octets", errPolicyHost, maxPolicy)
	}
	return content, nil
}
