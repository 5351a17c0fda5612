// Compare runs the same work on Postroom and on Debian's Postfix with Dovecot, in turn, on loopback, and writes the figures
// side by side. Everything that it starts it ends; all data are in a folder of its own.
//
//	go run ./bench/compare            all of it, about half an hour; writes bench/RESULTS.md
//	go run ./bench/compare --quick    each work for a moment: to see that it works, not for figures
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postroom/postroom/bench/load"
)

// options are those of the command line.
type options struct {
	quick  bool
	only   string
	rounds int
	out    string
	dir    string
	alone  bool
}

func main() {
	var o options
	flag.BoolVar(&o.quick, "quick", false, "each work for a moment only")
	flag.StringVar(&o.only, "only", "", "groups of works, with commas: letters, starttls, large, pop3, idle, memory, growth, start, sending, queued")
	flag.IntVar(&o.rounds, "rounds", 3, "how often each work is done on each server, in turn")
	flag.StringVar(&o.out, "out", "bench/RESULTS.md", "where the figures go")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "where the servers' data go, in a folder that is removed at the end")
	flag.BoolVar(&o.alone, "alone", false, "Postroom without its peers, for work on it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	options
	folder  string
	key     *load.Key
	servers []server
	next    int // the id of the next letter
	report  report
}

func run(ctx context.Context, o options) (err error) {
	b := &bench{options: o}
	if b.quick {
		b.rounds = 1
	}
	if b.folder, err = os.MkdirTemp(o.dir, "postroom-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.folder)
	if err := os.Chmod(b.folder, 0o755); err != nil { // Dovecot's processes have another user
		return err
	}
	if b.key, err = load.NewKey(); err != nil {
		return err
	}
	dns, stop, err := outside(ctx, b.key)
	if err != nil {
		return err
	}
	defer stop()
	p := &postroom{dir: filepath.Join(b.folder, "postroom"), binary: filepath.Join(b.folder, "postroom.bin"), dns: dns}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", p.binary, "./cmd/postroom").CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	b.servers = []server{p}
	if !o.alone {
		other, err := b.newPostfix()
		if err != nil {
			return err
		}
		b.servers = append(b.servers, other)
	}
	for _, s := range b.servers {
		defer s.stop()
		if err := s.start(ctx); err != nil {
			return fmt.Errorf("start %s: %w", s.name(), err)
		}
		b.report.versions = append(b.report.versions, s.version())
	}
	if err := b.all(ctx); err != nil {
		return err
	}
	return b.report.write(o.out)
}

// all does the works, one group after the other.
func (b *bench) all(ctx context.Context) error {
	for _, group := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"letters", b.letters}, {"starttls", b.startTLS}, {"large", b.large}, {"pop3", b.fetching}, {"idle", b.idle},
		{"memory", b.memory}, {"growth", b.growth}, {"start", b.starting},
		{"sending", b.sending}, {"queued", b.queued},
	} {
		if b.only != "" && !slices.Contains(strings.Split(b.only, ","), group.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "== %s %s\n", time.Now().Format(time.TimeOnly), group.name)
		if err := group.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", group.name, err)
		}
	}
	return nil
}

// newPostfix makes the certificate that Postfix and Dovecot show.
func (b *bench) newPostfix() (*postfix, error) {
	p := &postfix{dir: filepath.Join(b.folder, "postfix"), cert: filepath.Join(b.folder, "cert.pem"), key: filepath.Join(b.folder, "key.pem")}
	certificate, key, err := load.Certificate(hostname)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(p.cert, certificate, 0o644); err != nil {
		return nil, err
	}
	return p, os.WriteFile(p.key, key, 0o600)
}
