package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/postroom/postroom/bench/load"
)

// accounts is how many mailboxes each server has; letters go to them in turn.
const accounts = 50

const (
	domain   = "example.org"
	hostname = "mail.example.org"
	password = "correct horse battery"
)

func account(i int) string { return fmt.Sprintf("user%d@%s", i%accounts, domain) }

// listBox and fetchBox are accounts whose maildrops are filled for listings and for retrieval; they get no other letters.
const (
	listBox  = "list@" + domain
	fetchBox = "fetch@" + domain
)

// everybody is all accounts.
func everybody() []string {
	all := []string{listBox, fetchBox}
	for i := range accounts {
		all = append(all, account(i))
	}
	return all
}

// server is one that is measured. Its data are its own, and it listens on loopback only.
type server interface {
	name() string
	// start makes the data, runs it, and returns when it takes connections.
	start(ctx context.Context) error
	// restart ends it and starts it again on the same data; it returns how long the start took.
	restart(ctx context.Context) (time.Duration, error)
	stop()
	smtp() string
	pop3s() string
	// trees are the processes whose descendants are the server.
	trees() []int
	// stored waits until all letters that were accepted are in mailboxes.
	stored(ctx context.Context) error
	version() string
}

// usage adds up the processes of a server.
func usage(s server, memory bool) (all load.Usage, err error) {
	for _, pid := range s.trees() {
		u, err := load.Tree(pid, memory)
		if err != nil {
			return all, err
		}
		all.CPU += u.CPU
		all.Written += u.Written
		all.PSS += u.PSS
	}
	return all, nil
}

// trust reads the certificate that a server shows.
func trust(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return &tls.Config{RootCAs: roots, ServerName: hostname}, nil
}

// await tries until something is there, for half a minute.
func await(ctx context.Context, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		case <-ticker.C:
		}
	}
}

// write writes a file of a server's configuration.
func write(dir, name, text string) error {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
