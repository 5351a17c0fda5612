package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/postroom/postroom/bench/load"
	"github.com/postroom/postroom/internal/resolve/zone"
)

// postroom is the binary of this tree, with all checks on.
type postroom struct {
	dir    string
	binary string
	dns    netip.AddrPort
	env    []string // more of the server's environment

	cmd   *exec.Cmd
	ended chan struct{}
	ports map[string]string
}

func (p *postroom) name() string  { return "Postroom" }
func (p *postroom) smtp() string  { return p.ports["smtp"] }
func (p *postroom) pop3s() string { return p.ports["pop3s"] }
func (p *postroom) trees() []int  { return []int{p.cmd.Process.Pid} }

// stored has nothing to wait for: what was accepted is in its mailbox.
func (p *postroom) stored(context.Context) error { return nil }

func (p *postroom) data() string { return filepath.Join(p.dir, "data") }
func (p *postroom) ca() string   { return filepath.Join(p.data(), "tls", "ca.pem") }

func (p *postroom) version() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "Postroom"
	}
	return "Postroom " + strings.TrimSpace(string(out))
}

// outside is the DNS of the domain that the letters come from: every check has something to find, and passes.
func outside(ctx context.Context, key *load.Key) (server netip.AddrPort, stop func(), err error) {
	z, err := zone.Parse(strings.ReplaceAll(`
		$. 3600 IN MX 10 client.$.
		$. 3600 IN TXT "v=spf1 ip4:127.0.0.0/8 -all"
		client.$. 3600 IN A 127.0.0.1
		sink.$. 3600 IN A 127.0.0.1
		client.$. 3600 IN TXT "v=spf1 a -all"
		_dmarc.$. 3600 IN TXT "v=DMARC1; p=reject"
		1.0.0.127.in-addr.arpa. 3600 IN PTR client.$.
		`, "$", load.SenderDomain))
	if err != nil {
		return netip.AddrPort{}, nil, err
	}
	z.AddTXT(key.Name(), key.Record)
	return z.Start(ctx)
}

const postroomConfig = `hostname = %q
data_dir = %q
dns.resolvers = [%q]
[listen]
smtp = ["127.0.0.1:0"]
pop3 = []
pop3s = ["127.0.0.1:0"]
submission = []
submissions = ["127.0.0.1:0"]
http = []
https = []
admin = []
[tls]
source = "local"
[limits]
connections = 10000
connections_per_address = 10000
connections_per_account = 1000
[log]
format = "json"
`

func (p *postroom) start(ctx context.Context) error {
	if err := p.prepare(ctx, everybody()); err != nil {
		return err
	}
	return p.serve()
}

// prepare makes its configuration and its accounts.
func (p *postroom) prepare(ctx context.Context, names []string) error {
	if err := write(p.dir, "postroom.toml", fmt.Sprintf(postroomConfig, hostname, p.data(), p.dns)); err != nil {
		return err
	}
	if err := p.run(ctx, "", "domain", "add", domain); err != nil {
		return err
	}
	for _, name := range names {
		if err := p.run(ctx, password+"\n", "account", "add", name, "--password-stdin"); err != nil {
			return err
		}
	}
	return nil
}

func (p *postroom) run(ctx context.Context, stdin string, args ...string) error {
	cmd := exec.CommandContext(ctx, p.binary, append(args, "--config", filepath.Join(p.dir, "postroom.toml"))...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("postroom %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// serve starts it and waits until it says that it is ready.
func (p *postroom) serve() error {
	p.cmd = exec.Command(p.binary, "serve", "--config", filepath.Join(p.dir, "postroom.toml"))
	p.cmd.Env = append(append(os.Environ(), profileEnvironment()...), p.env...)
	log, err := p.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.ports, p.ended = map[string]string{}, make(chan struct{})
	ready := make(chan error, 1)
	go p.follow(log, ready)
	return <-ready
}

// profileEnvironment passes on what tunes the Go runtime, for experiments.
func profileEnvironment() (all []string) {
	for _, name := range []string{"GOGC", "GODEBUG"} {
		if v, ok := os.LookupEnv(name); ok {
			all = append(all, name+"="+v)
		}
	}
	return all
}

// follow reads the log to its end: the ports on the way, errors for whoever looks.
func (p *postroom) follow(log io.Reader, ready chan<- error) {
	defer close(p.ended)
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var line struct{ Event, Svc, Addr, Level string }
		_ = json.Unmarshal(lines.Bytes(), &line) // a line that is no JSON has none of these
		switch {
		case line.Event == "listening":
			p.ports[line.Svc] = line.Addr
		case line.Event == "ready":
			ready <- nil
		case line.Level == "ERROR" || line.Level == "":
			fmt.Fprintln(os.Stderr, "postroom:", lines.Text())
		}
	}
	_ = p.cmd.Wait()
	select {
	case ready <- errors.New("postroom ended at once"):
	default:
	}
}

func (p *postroom) stop() {
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(40 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

func (p *postroom) restart(context.Context) (time.Duration, error) {
	p.stop()
	began := time.Now()
	err := p.serve()
	return time.Since(began), err
}
