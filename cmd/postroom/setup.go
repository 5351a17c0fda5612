package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/config"
	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/setup"
)

type setupCommand struct {
	Domain    domainArgument  `arg:"" optional:"" help:"The domain to receive mail for, such as example.org."`
	Address   addressArgument `placeholder:"ADDRESS" help:"The first account, such as anna@example.org."`
	Alerts    addressArgument `placeholder:"ADDRESS" help:"An address elsewhere that hears of trouble."`
	Hostname  domainArgument  `placeholder:"NAME" help:"The full name of this host (default: mail.DOMAIN)."`
	Public    []netip.Addr    `placeholder:"IP" help:"A public address that leads here, where this machine does not have it itself."`
	Dir       string          `placeholder:"DIR" help:"Keep everything in DIR, instead of /etc/postroom and /var/lib/postroom."`
	User      string          `default:"postroom" help:"The user to serve as, made where it is missing (as root only)."`
	NoWeb     bool            `help:"Leave ports 80 and 443 to a web server that is there already."`
	TLS       string          `name:"tls" enum:",acme,local" default:"" placeholder:"SOURCE" help:"Where certificates come from: acme, a public authority (default, on the usual ports), or local, an authority of its own."`
	Service   bool            `help:"Install the service and start it (systemd; as root only)."`
	Yes       bool            `short:"y" help:"Ask nothing: take what is proposed."`
	Anyway    bool            `help:"Go on where something stands in the way."`
	NoNetwork bool            `help:"Ask nobody else: no DNS, no calls to other mail servers."`
	Undo      bool            `help:"Remove what setup made, and nothing else."`
	WithMail  bool            `help:"With --undo: also where mail, or accounts made later, are lost by it."`
}

// setupJob is one run of setup.
type setupJob struct {
	*setupCommand
	p   *program
	m   machine
	ask *questions

	file     string         // of the configuration
	config   *config.Config // as it is, or as it is going to be
	there    bool           // the configuration file was there before
	manifest *setup.Manifest

	addresses []netip.Addr // that the world sees
}

// Run looks at the machine, asks what it must, and makes what is missing. What is there is never changed.
func (c *setupCommand) Run(ctx context.Context, p *program) error {
	j := &setupJob{setupCommand: c, p: p, m: p.machine, ask: newQuestions(p, c.Yes)}
	if j.m == nil {
		j.m = thisMachine{p}
	}
	if err := j.prepare(); err != nil {
		return err
	}
	if c.Undo {
		return j.undo(ctx)
	}
	if err := j.look(ctx); err != nil {
		return err
	}
	if err := j.askAll(ctx); err != nil {
		return err
	}
	return j.make(ctx)
}

var plainUser = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)

// prepare finds out where everything is, or is going to be.
func (j *setupJob) prepare() (err error) {
	switch {
	case !plainUser.MatchString(j.User):
		return usagef("%q is not the name of a system user", printable(j.User))
	case j.Service && !j.m.IsRoot():
		return usagef("only root can install a service: run this as root, or leave --service out")
	}
	j.config = config.Default()
	j.file = j.p.configFile
	if j.Dir != "" {
		if j.Dir, err = filepath.Abs(j.Dir); err != nil {
			return err
		}
		j.config.DataDir = filepath.Join(j.Dir, "data")
		if j.file == defaultConfig {
			j.file = filepath.Join(j.Dir, "postroom.toml")
		}
	}
	if j.file, err = filepath.Abs(j.file); err != nil {
		return err
	}
	switch _, err := os.Stat(j.file); {
	case err == nil:
		j.there = true
		c, err := config.Load(j.file)
		if err != nil {
			return &failure{statusConfig, strings.TrimSpace(err.Error())}
		}
		j.config = c
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case !j.m.IsRoot() && j.Dir == "":
		return usagef("only root can set up %s: run this as root, or give --dir DIR for a place of your own", j.file)
	}
	j.manifest, err = setup.OpenManifest(filepath.Join(j.config.DataDir, setup.ManifestFile))
	if err != nil {
		return unsuref("%s", reason(err))
	}
	return nil
}

// look prints what was found, and stops where going on makes no sense.
func (j *setupJob) look(ctx context.Context) error {
	j.p.say("Looking at this machine …")
	if !j.there {
		j.choosePorts()
	}
	wanted := setup.Wanted{Hostname: j.hostname(), Public: j.Public, Offline: j.NoNetwork}
	for _, s := range j.config.Listen.Services() {
		wanted.Listen = append(wanted.Listen, setup.Service(s))
	}
	facts, err := j.m.Look(ctx, j.config, wanted)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, a := range facts.Addresses {
		j.addresses = append(j.addresses, a.IP)
	}
	found := setup.Judge(facts)
	for _, f := range found {
		j.p.say("  %-4s  %s", f.Level, f.What)
		if f.Fix != "" {
			j.p.say("        %s", f.Fix)
		}
	}
	if setup.Worst(found) == setup.Stop && !j.Anyway {
		return nof("nothing was made: mend what is marked STOP and run this again, or give --anyway")
	}
	return nil
}

// smtpPort is the lowest of the usual ports.
const smtpPort = 25

// choosePorts moves the ports of an ordinary user's server out of those for the privileged, as 25 to 2525.
func (j *setupJob) choosePorts() {
	l := &j.config.Listen
	if j.NoWeb {
		l.HTTP, l.HTTPS = nil, nil
	}
	if j.m.IsRoot() || j.m.LowPorts() <= smtpPort {
		return
	}
	for _, addrs := range []*[]string{&l.SMTP, &l.Submission, &l.Submissions, &l.POP3, &l.POP3S, &l.HTTP, &l.HTTPS} {
		var high []string
		for _, a := range *addrs {
			high = append(high, highPort(a))
		}
		*addrs = high
	}
	j.config.TLS.Source = "local" // no authority certifies a name on such ports
}

// chooseCertificates asks a public authority where it can be asked: for the usual ports of a web server.
func (j *setupJob) chooseCertificates() {
	l := j.config.Listen
	switch {
	case j.TLS != "":
		j.config.TLS.Source = j.TLS
	case j.config.TLS.Source == "local" && (j.m.IsRoot() || j.m.LowPorts() <= smtpPort) && len(l.HTTP)+len(l.HTTPS) > 0:
		j.config.TLS.Source = "acme"
	}
	if j.config.TLS.Source == "acme" {
		j.config.TLS.Email = j.config.Alerts.To
	}
}

func highPort(address string) string {
	i := strings.LastIndexByte(address, ':')
	port, err := strconv.Atoi(address[i+1:])
	switch {
	case err != nil || port >= 1024 || port == 0:
		return address
	case port < 100: // 25 -> 2525, 80 -> 8080
		port *= 101
	default: // 587 -> 2587
		port += 2000
	}
	return address[:i+1] + strconv.Itoa(port)
}

// hostname is the full name of this host: as configured, as given, or as proposed.
func (j *setupJob) hostname() string {
	switch {
	case j.there:
		return j.config.Hostname
	case !j.Hostname.IsZero():
		return j.Hostname.ASCII()
	case j.Domain.IsZero():
		return "mail.(your domain)"
	}
	return "mail." + j.Domain.ASCII()
}

// askAll asks at most three questions: what a flag says, or what is there already, is not asked.
func (j *setupJob) askAll(ctx context.Context) error {
	if j.Domain.IsZero() {
		err := j.ask.line(ctx, "Domain to receive mail for", "", func(text string) error { return j.Domain.UnmarshalText([]byte(text)) })
		if err != nil {
			return err
		}
	}
	has, err := j.hasAccounts(ctx)
	if err != nil {
		return err
	}
	if j.Address.IsZero() && !has {
		err := j.ask.line(ctx, "First address", proposedName()+"@"+j.Domain.Unicode(), func(text string) error {
			if err := j.Address.UnmarshalText([]byte(text)); err != nil {
				return err
			}
			return j.sameDomain()
		})
		if err != nil {
			return err
		}
	}
	if err := j.sameDomain(); err != nil {
		return usagef("%s", err)
	}
	if j.Alerts.IsZero() && !j.there {
		return j.ask.line(ctx, "Address elsewhere that hears of trouble", "none", func(text string) error {
			if text == "none" {
				return nil
			}
			return j.Alerts.UnmarshalText([]byte(text))
		})
	}
	return nil
}

func (j *setupJob) sameDomain() error {
	if !j.Address.IsZero() && j.Address.Domain != j.Domain.Domain {
		return fmt.Errorf("%s is not an address of %s", j.Address, j.Domain.Unicode())
	}
	return nil
}

// proposedName is the name of the person at the keyboard, where that is one.
func proposedName() string {
	name := os.Getenv("SUDO_USER")
	if u, err := user.Current(); name == "" && err == nil {
		name = u.Username
	}
	if _, err := addr.Parse(name + "@example.org"); err != nil || name == "root" || name == "" {
		return "postmaster"
	}
	return name
}

// hasAccounts tells whether the domain is there and has accounts.
func (j *setupJob) hasAccounts(ctx context.Context) (bool, error) {
	if !j.hasDatabase() {
		return false, nil
	}
	d, found, err := j.domain(ctx)
	return found && d.Accounts > 0, err
}

// hasDatabase tells whether there is anything to ask the database for.
func (j *setupJob) hasDatabase() bool {
	_, err := os.Stat(filepath.Join(j.config.DataDir, "postroom.db"))
	return j.there && err == nil
}

// domain looks the domain up.
func (j *setupJob) domain(ctx context.Context) (d shownDomain, found bool, err error) {
	var all []shownDomain
	if err := j.read(ctx, &all, "domain", "list"); err != nil {
		return d, false, err
	}
	for _, d := range all {
		if d.ASCII == j.Domain.ASCII() {
			return d, true, nil
		}
	}
	return d, false, nil
}

// postroom runs another command on the configuration.
func (j *setupJob) postroom(ctx context.Context, args ...string) (string, error) {
	return j.m.Postroom(ctx, append(args, "--config", j.file)...)
}

// read decodes what a command prints with --json.
func (j *setupJob) read(ctx context.Context, into any, args ...string) error {
	text, err := j.postroom(ctx, append(args, "--json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), into)
}

// serverRuns tells whether a server uses the data directory.
func (j *setupJob) serverRuns() (bool, error) { return database.ServerRuns(j.config.DataDir) }
