package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/config"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/tlsconf"
)

// webNames are the names below a domain that its web services need: RFC 8461 section 3.3, and what mail programs look for.
var webNames = []string{"mta-sts.", "autoconfig.", "autodiscover."}

// certificateOptions say where the server's certificates come from.
func (s *server) certificateOptions() (tlsconf.Options, error) {
	c := s.config
	o := tlsconf.Options{Source: c.TLS.Source, CertFile: c.TLS.Cert, KeyFile: c.TLS.Key, DataDir: c.DataDir, Hostname: c.Hostname, Log: s.log}
	if c.TLS.Source != "acme" {
		return o, nil
	}
	o.ACME = tlsconf.ACME{
		DB: s.stores.db, Sealer: s.stores.key.For("tls"), DNS: s.dns, Alert: s.alert, NamesChanged: s.stores.accounts.Changed,
		Names: func(ctx context.Context) ([]string, error) { return certificateNames(ctx, s.stores.accounts) },
		CA:    c.TLS.CA, Email: c.TLS.Email, EABKeyID: c.TLS.EABKeyID, Challenge: c.TLS.Challenge, HTTP: c.Listen.HTTP, HTTPS: c.Listen.HTTPS,
	}
	return o, readSecrets(&o.ACME, c.TLS)
}

// readSecrets reads the files that the configuration names.
func readSecrets(o *tlsconf.ACME, c config.TLS) (err error) {
	if o.CARoots, err = readRoots(c.CARoots); err != nil {
		return err
	}
	if o.EABKey, err = readSecret(c.EABKeyFile); err != nil {
		return err
	}
	if c.Challenge != "dns-01" {
		return nil
	}
	secret, err := readSecret(c.KeyFile)
	if err != nil {
		return err
	}
	o.Provider, err = tlsconf.NewProvider(tlsconf.ProviderOptions{Kind: c.Provider, Server: c.Server, KeyName: c.KeyName, Secret: secret})
	return err
}

// readSecret returns what is in a file; nothing for no file.
func readSecret(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err == nil && strings.TrimSpace(string(text)) == "" {
		err = fmt.Errorf("%s is empty", file)
	}
	return strings.TrimSpace(string(text)), err
}

func readRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil // those of the system
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in PEM", file)
	}
	return pool, nil
}

// certificateNames are the names that get certificates besides the host name, where they lead here.
func certificateNames(ctx context.Context, s *accounts.Service) ([]string, error) {
	domains, err := s.Domains(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range domains {
		for _, web := range webNames {
			names = append(names, web+d.Name.ASCII())
		}
	}
	return names, nil
}

// alert tells the operator by mail.
func (s *server) alert(ctx context.Context, title, text string) {
	s.queue.Alert(ctx, queue.Alert{Title: title, Text: text})
}
