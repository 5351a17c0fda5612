package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postroom/postroom/internal/config"
	"github.com/postroom/postroom/internal/setup"
)

// make makes what is missing, in an order in which each step needs only those before it, and notes each at once.
func (j *setupJob) make(ctx context.Context) error {
	j.p.say("Setting up %s for %s …", j.file, j.Domain.Unicode())
	for _, step := range []func(context.Context) error{
		j.makeDirs, j.makeUser, j.giveData, j.makeConfig, j.makeDomain, j.makeAccount, j.makeService,
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := j.printRecords(ctx); err != nil {
		return err
	}
	j.next()
	return nil
}

func (j *setupJob) made(format string, args ...any) {
	j.p.say("  made   %s", fmt.Sprintf(format, args...))
}
func (j *setupJob) kept(format string, args ...any) {
	j.p.say("  there  %s", fmt.Sprintf(format, args...))
}

// makeUser makes the user that serves, for root only: anybody else serves as themselves.
func (j *setupJob) makeUser(ctx context.Context) error {
	if !j.m.IsRoot() {
		return nil
	}
	if _, found := j.m.User(j.User); found {
		j.kept("user %s", j.User)
		return nil
	}
	err := j.m.Tool(ctx, "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", j.config.DataDir, "--shell", "/usr/sbin/nologin", j.User)
	if err != nil {
		return err
	}
	j.made("user %s, without a login", j.User)
	return j.manifest.Add(setup.Made{Kind: setup.MadeUser, Name: j.User})
}

// makeDirs makes the folders of the configuration and the data.
func (j *setupJob) makeDirs(context.Context) error {
	for _, dir := range []struct {
		path string
		mode fs.FileMode
	}{{j.config.DataDir, 0o700}, {filepath.Dir(j.file), 0o755}} {
		missing, err := missingDirs(dir.path)
		if err != nil {
			return err
		}
		if len(missing) == 0 && !j.manifest.Has(setup.MadeDir, dir.path) {
			j.kept("%s", dir.path)
		}
		for i, path := range missing {
			mode := fs.FileMode(0o755)
			if i == len(missing)-1 {
				mode = dir.mode
			}
			if err := errors.Join(os.Mkdir(path, mode), os.Chmod(path, mode)); err != nil { // whatever the umask is
				return err
			}
			if err := j.manifest.Add(setup.Made{Kind: setup.MadeDir, Name: path}); err != nil {
				return err
			}
			j.made("%s", path)
		}
	}
	return nil
}

// giveData gives the data directory that setup made to the user that serves. One that has an owner keeps it.
func (j *setupJob) giveData(context.Context) error {
	if !j.m.IsRoot() || !j.manifest.Has(setup.MadeDir, j.config.DataDir) {
		return nil
	}
	if has, err := ownerOf(j.config.DataDir); err != nil || has.uid != 0 {
		return err
	}
	who, found := j.m.User(j.User)
	if !found {
		return unsuref("there is no user %s to give %s to", j.User, j.config.DataDir)
	}
	return j.m.GiveTo(j.config.DataDir, who)
}

// missingDirs lists the folders that are to be made for path, the outermost first.
func missingDirs(path string) (missing []string, err error) {
	for {
		switch _, err := os.Stat(path); {
		case err == nil:
			return missing, nil
		case !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path):
			return nil, err
		}
		missing = append([]string{path}, missing...)
		path = filepath.Dir(path)
	}
}

// makeConfig writes the configuration where there is none.
func (j *setupJob) makeConfig(context.Context) error {
	if j.there {
		j.kept("%s", j.file)
		if !j.Hostname.IsZero() && j.Hostname.ASCII() != j.config.Hostname || !j.Alerts.IsZero() && j.Alerts.String() != j.config.Alerts.To {
			j.p.say("         it says something else than the flags, and stays as it is: change it by hand")
		}
		return nil
	}
	j.config.Hostname = j.hostname()
	for _, ip := range j.Public {
		j.config.Public = append(j.config.Public, ip.String())
	}
	if !j.Alerts.IsZero() {
		j.config.Alerts.To = j.Alerts.String()
	}
	j.chooseCertificates()
	text := configText(j.config)
	c, err := config.Parse(j.file, text)
	if err != nil {
		return &failure{statusConfig, strings.TrimSpace(err.Error())}
	}
	made, err := setup.WriteNew(j.file, text, 0o644)
	if err != nil {
		return err
	}
	j.config = c
	j.made("%s", j.file)
	return j.manifest.Add(made)
}

// configText is the file: the keys that differ from machine to machine, and the ports that are not the usual ones. All others have
// good defaults.
func configText(c *config.Config) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# The configuration of Postroom. `postroom config print` shows all keys with their values.\n\n")
	fmt.Fprintf(&b, "hostname = %s # the full name of this host; its address is to have the same (PTR)\n", config.Quote(c.Hostname))
	fmt.Fprintf(&b, "data_dir = %s # all that must last: keep copies of it (postroom backup)\n", config.Quote(c.DataDir))
	if len(c.Public) > 0 {
		var quoted []string
		for _, ip := range c.Public {
			quoted = append(quoted, config.Quote(ip))
		}
		fmt.Fprintf(&b, "public_addresses = [%s] # that lead here, where this machine does not have them itself\n", strings.Join(quoted, ", "))
	}
	usual := config.Default().Listen.Services()
	head := "\n[listen] # the others are the usual ports\n"
	for i, s := range c.Listen.Services() {
		if slices.Equal(s.Addrs, usual[i].Addrs) {
			continue
		}
		var quoted []string
		for _, a := range s.Addrs {
			quoted = append(quoted, config.Quote(a))
		}
		fmt.Fprintf(&b, "%s%s = [%s]\n", head, s.Name, strings.Join(quoted, ", "))
		head = ""
	}
	if c.TLS.Source == "acme" {
		fmt.Fprintf(&b, "\n[tls]\nsource = \"acme\" # a public authority, Let's Encrypt; or \"files\", with cert and key\nemail = %s # that it may write to\n", config.Quote(c.TLS.Email))
	} else {
		fmt.Fprintf(&b, "\n[tls]\nsource = %s # an authority of its own; or \"acme\", a public one, or \"files\", with cert and key\n", config.Quote(c.TLS.Source))
	}
	fmt.Fprintf(&b, "\n[alerts]\nto = %s # an address elsewhere that hears of trouble\n", config.Quote(c.Alerts.To))
	return b.Bytes()
}

// makeDomain makes the database with its keys, and the domain with its signing keys.
func (j *setupJob) makeDomain(ctx context.Context) error {
	database := filepath.Join(j.config.DataDir, "postroom.db")
	_, err := os.Stat(database)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return err
	}
	_, found, err := j.domain(ctx) // makes the database where there is none
	if err != nil {
		return err
	}
	if fresh {
		j.made("%s and secret.key", database)
		if err := j.manifest.Add(setup.Made{Kind: setup.MadeDatabase, Name: database}); err != nil {
			return err
		}
	}
	if found {
		j.kept("domain %s", j.Domain.Unicode())
		return nil
	}
	if _, err := j.postroom(ctx, "domain", "add", j.Domain.ASCII()); err != nil {
		return err
	}
	j.made("domain %s, and the keys that sign its mail", j.Domain.Unicode())
	return j.manifest.Add(setup.Made{Kind: setup.MadeDomain, Name: j.Domain.ASCII()})
}

// makeAccount makes the first account. Its password is shown now and never again.
func (j *setupJob) makeAccount(ctx context.Context) error {
	if j.Address.IsZero() {
		j.kept("accounts of %s", j.Domain.Unicode())
		return nil
	}
	var all []shownAccount
	if err := j.read(ctx, &all, "account", "list"); err != nil {
		return err
	}
	for _, a := range all {
		if strings.EqualFold(a.Address, j.Address.String()) {
			j.kept("account %s", a.Address)
			return nil
		}
	}
	password, err := j.postroom(ctx, "account", "add", j.Address.String(), "--generate")
	if err != nil {
		return err
	}
	if err := j.manifest.Add(setup.Made{Kind: setup.MadeAccount, Name: j.Address.String()}); err != nil {
		return err
	}
	j.made("account %s, with this password, shown once:", j.Address.Unicode())
	_, err = io.WriteString(j.p.stdout, password)
	return err
}

// makeService installs the unit, where that was asked for, and starts it.
func (j *setupJob) makeService(ctx context.Context) error {
	if !j.Service {
		return nil
	}
	binary, err := j.makeBinary()
	if err != nil {
		return err
	}
	text, err := setup.Unit{Binary: binary, Config: j.file, DataDir: j.config.DataDir, User: j.User}.Text()
	if err != nil {
		return nof("no service was installed: %s", err)
	}
	switch _, err := setup.WriteNew(setup.UnitFile, []byte(text), 0o644); {
	case errors.Is(err, fs.ErrExist):
		j.kept("%s", setup.UnitFile)
	case err != nil:
		return err
	default:
		j.made("%s", setup.UnitFile)
		if err := j.manifest.Add(setup.Made{Kind: setup.MadeUnit, Name: setup.UnitFile}); err != nil {
			return err
		}
	}
	if !j.m.HasSystemd() {
		j.p.say("         systemd does not run here: the service starts with the machine that has it")
		return nil
	}
	if err := j.m.Tool(ctx, "systemctl", "daemon-reload"); err != nil {
		return err
	}
	if err := j.m.Tool(ctx, "systemctl", "enable", "--now", "postroom.service"); err != nil {
		return unsuref("the service is installed, but does not start: %s; `journalctl -u postroom` says why", reason(err))
	}
	j.made("the service postroom serves")
	return nil
}

// programDirs are where a service may find its program; elsewhere it may be hidden from it.
var programDirs = []string{"/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/opt"}

// makeBinary sees to it that the service can find this program, and returns where.
func (j *setupJob) makeBinary() (string, error) {
	self, err := j.m.Executable()
	if err != nil {
		return "", err
	}
	for _, dir := range programDirs {
		if strings.HasPrefix(self, dir+"/") {
			return self, nil
		}
	}
	content, err := os.ReadFile(self)
	if err != nil {
		return "", err
	}
	made, err := setup.WriteNew(setup.Binary, content, 0o755)
	switch {
	case errors.Is(err, fs.ErrExist):
		j.kept("%s, which the service runs", setup.Binary)
		return setup.Binary, nil
	case err != nil:
		return "", err
	}
	j.made("%s, a copy of this program", setup.Binary)
	return setup.Binary, j.manifest.Add(made)
}

// next says what to do now.
func (j *setupJob) next() {
	config := ""
	if j.file != defaultConfig {
		config = " --config " + j.file
	}
	j.p.say("Next: publish the records above at whoever runs your DNS.")
	if runs, err := j.serverRuns(); err == nil && !runs {
		j.p.say("Then `postroom serve%s`.", config)
	}
	j.p.say("`postroom dns check %s%s --watch` says when all of it is there, and how to mend what is not.", j.Domain.ASCII(), config)
	switch j.config.TLS.Source {
	case "acme":
		j.p.say("`postroom cert list%s` says how far the certificate is: it is asked for once the records lead here.", config)
	case "local":
		j.p.say("Mail programs trust the certificate once [tls] names a real one; until then, they need %s.", filepath.Join(j.config.DataDir, "tls", "ca.pem"))
	}
}
