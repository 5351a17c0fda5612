package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/internal/config"
	"github.com/postroom/postroom/internal/listen"
	"github.com/postroom/postroom/internal/setup"
)

// toolTimeout bounds a program of the system.
const toolTimeout = time.Minute

// procDir is Linux's view of the system.
const procDir = "/proc"

// machine is what setup needs of the machine. Tests put another one in its place.
type machine interface {
	IsRoot() bool
	// LowPorts is the first port that an ordinary user may open.
	LowPorts() int
	Look(ctx context.Context, c *config.Config, w setup.Wanted) (*setup.Facts, error)
	User(name string) (who owner, found bool)
	GiveTo(path string, who owner) error
	HasSystemd() bool
	Executable() (string, error)
	// Tool runs a program of the system, such as useradd.
	Tool(ctx context.Context, name string, args ...string) error
	// Postroom runs a command of this program, as the owner of the data directory, and returns what it prints.
	Postroom(ctx context.Context, args ...string) (string, error)
}

// thisMachine is the machine as it is.
type thisMachine struct{ p *program }

func (thisMachine) IsRoot() bool { return os.Geteuid() == 0 }

func (thisMachine) LowPorts() int { return setup.LowPorts(procDir) }

func (m thisMachine) Look(ctx context.Context, c *config.Config, w setup.Wanted) (*setup.Facts, error) {
	dns, err := openResolver(c, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer dns.Close()
	l := &setup.Looker{DNS: dns, Caller: setup.Network{}, Interfaces: listen.Addresses, Proc: procDir, Root: m.IsRoot()}
	return l.Look(ctx, w), nil
}

func (thisMachine) User(name string) (who owner, found bool) {
	u, err := user.Lookup(name)
	if err != nil {
		return owner{}, false
	}
	uid, err := strconv.Atoi(u.Uid)
	gid, bad := strconv.Atoi(u.Gid)
	return owner{uid, gid}, err == nil && bad == nil
}

func (thisMachine) GiveTo(path string, who owner) error { return os.Chown(path, who.uid, who.gid) }

// HasSystemd asks as sd_booted(3) does.
func (thisMachine) HasSystemd() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

func (thisMachine) Executable() (string, error) { return os.Executable() }

func (thisMachine) Tool(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return unsuref("`%s %s` failed (%s): %s", name, strings.Join(args, " "), err, firstOf(string(out)))
	}
	return nil
}

// Postroom runs in this process, or, since root that is given up does not come back, in another one.
func (m thisMachine) Postroom(ctx context.Context, args ...string) (string, error) {
	if !m.IsRoot() {
		return m.p.inProcess(ctx, args...)
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", failed(cmd.ProcessState.ExitCode(), args, said.String())
	}
	return out.String(), nil
}

// inProcess runs another command line of this program.
func (p *program) inProcess(ctx context.Context, args ...string) (string, error) {
	var out, said bytes.Buffer
	other := &program{stdin: strings.NewReader(""), stdout: &out, stderr: &said, passwords: p.passwords}
	if status := other.run(ctx, args); status != statusDone {
		return "", failed(status, args, said.String())
	}
	return out.String(), nil
}

// failed is the end of a command that another one ran: its words, and its status.
func failed(status int, args []string, said string) error {
	sentence := strings.TrimPrefix(firstOf(said), "postroom: ")
	if sentence == "" {
		sentence = fmt.Sprintf("`postroom %s` did not end well", strings.Join(args, " "))
	}
	if status != statusNo {
		status = statusUnsure
	}
	return &failure{status, sentence}
}

// firstOf is the first line of what a program said.
func firstOf(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return printable(line)
}
