package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/postroom/postroom/internal/config"
)

const (
	// healthTimeout bounds the whole question; container engines ask every 30 s.
	healthTimeout = 5 * time.Second
	// maxHealth bounds what is read of the answer.
	maxHealth = 4 << 10
)

type healthCommand struct {
	Ready bool `help:"Ask whether it can do all of its work (/readyz), and not only whether it runs (/healthz)."`
}

// Run asks the server that runs whether it is well. Exit status: 0 it is, 1 it says no, 2 it does not answer.
func (h *healthCommand) Run(ctx context.Context, p *program) error {
	c, err := p.load()
	if err != nil {
		return err
	}
	address, ok := adminAddress(c)
	if !ok {
		return nof("the configuration has no admin port to ask: set listen.admin = [\"127.0.0.1:8025\"]")
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	page := "/healthz"
	if h.Ready {
		page = "/readyz"
	}
	status, text, err := askHealth(ctx, "http://"+address+page)
	switch {
	case err != nil:
		return unsuref("no answer from %s: %s", address, reason(err))
	case status != http.StatusOK:
		return nof("the server is not well (%d): %s", status, text)
	}
	_, err = fmt.Fprintln(p.stdout, "well")
	return err
}

// adminAddress is where to reach the admin port from this machine.
func adminAddress(c *config.Config) (address string, ok bool) {
	for _, a := range c.Listen.Admin {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			continue // the configuration was checked
		}
		switch ip, err := netip.ParseAddr(host); {
		case host == "", err == nil && ip == netip.IPv4Unspecified():
			host = "127.0.0.1"
		case err == nil && ip == netip.IPv6Unspecified():
			host = "::1"
		}
		return net.JoinHostPort(host, port), true
	}
	return "", false
}

// askHealth asks one URL, over no proxy, and follows it nowhere.
func askHealth(ctx context.Context, url string) (status int, text string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxHealth))
	first, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	return response.StatusCode, printable(first), err
}
