package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/postroom/postroom/accounts"
)

// defaultConfig is read when --config names no other file.
const defaultConfig = "/etc/postroom/postroom.toml"

// commandLine is the whole command line, as a table.
type commandLine struct {
	File string `name:"config" short:"c" placeholder:"FILE" default:"${config}" env:"POSTROOM_CONFIG" help:"Read the configuration from FILE (default: $POSTROOM_CONFIG, else ${config})."`

	Serve    serveCommand    `cmd:"" help:"Receive mail, hand it out and send it, until told to stop."`
	Setup    setupCommand    `cmd:"" help:"Make a mail server of this machine: look at it, then make configuration, keys, domain and first account. Safe to run again."`
	Config   configCommand   `cmd:"" help:"Check or print the configuration."`
	Domain   domainCommand   `cmd:"" help:"The domains that mail is received for."`
	Account  accountCommand  `cmd:"" help:"The accounts that mail is kept for."`
	Alias    aliasCommand    `cmd:"" help:"Addresses that lead to other addresses."`
	Queue    queueCommand    `cmd:"" help:"Letters on their way to other servers."`
	Dkim     dkimCommand     `cmd:"" name:"dkim" help:"The keys that mail is signed with."`
	DNS      dnsCommand      `cmd:"" name:"dns" help:"The DNS records that a domain needs, and whether they are published."`
	Cert     certCommand     `cmd:"" help:"The certificates of the server."`
	Relay    relayCommand    `cmd:"" help:"Smarthosts: servers that take mail to others for this one."`
	Sendmail sendmailCommand `cmd:"" help:"Hand in a letter from standard input, for programs on this machine that call sendmail."`
	Resolve  resolveCommand  `cmd:"" help:"Show where mail for an address goes. Exit status 0: it is accepted, 1: refused."`
	Backup   backupCommand   `cmd:"" help:"Copy the whole database into one file, while the server runs."`
	Health   healthCommand   `cmd:"" help:"Ask the server that runs whether it is well. Exit status 0: it is."`
	Demo     demoCommand     `cmd:"" help:"Show the whole server at work on this machine: no root, no DNS, no certificate."`
	Version  versionCommand  `cmd:"" help:"Print the version."`
}

// program is what every command gets: the world outside of it.
type program struct {
	stdin  io.Reader
	stdout io.Writer // what was asked for
	stderr io.Writer // everything else: what was done, what went wrong, the log

	passwords  accounts.Options // how passwords are hashed; tests hash cheaply
	configFile string
	machine    machine // what setup does to the machine; nil: to this one
}

// say tells people what was done. It does not go to standard output, which holds only what a program may want to read.
func (p *program) say(format string, args ...any) {
	fmt.Fprintf(p.stderr, format+"\n", args...)
}

// run runs one command line and returns its exit status.
func (p *program) run(ctx context.Context, args []string) int {
	var line commandLine
	helped := false // kong prints the help, then calls Exit and, where that returns, goes on
	parser, err := kong.New(&line,
		kong.Name("postroom"),
		kong.Description("The mail server for your own domain."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Vars{"config": defaultConfig},
		kong.Writers(p.stdout, p.stderr),
		kong.Exit(func(int) { helped = true }),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		panic(err) // the table above is wrong: our own bug
	}
	parsed, err := parser.Parse(args)
	switch {
	case helped:
		return statusDone
	case err != nil:
		p.say("postroom: %s", wrongUsage(err))
		return statusUsage
	}
	p.configFile = line.File
	if err := parsed.Run(p); err != nil {
		status, sentence := explain(err)
		switch {
		case sentence == "": // what was printed says it all
		case status == statusConfig:
			p.say("%s", sentence) // each line begins with file:line
		default:
			p.say("postroom: %s", sentence)
		}
		return status
	}
	return statusDone
}

// wrongUsage says what is wrong with a command line, and what is right.
func wrongUsage(err error) string {
	words := "postroom"
	usage := ""
	if wrong, ok := errors.AsType[*kong.ParseError](err); ok && wrong.Context != nil {
		if node := wrong.Context.Selected(); node != nil {
			words = "postroom " + node.Path()
			usage = "usage: " + strings.TrimSpace("postroom "+node.Summary()) + "; "
		}
	}
	return fmt.Sprintf("%s; %s`%s --help` tells more", err, usage, words)
}
