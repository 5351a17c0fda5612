package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"text/template"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/config"
	"github.com/postroom/postroom/internal/demo"
	"github.com/postroom/postroom/internal/maillog"
)

const (
	demoHost    = "mail.postroom.example" // RFC 2606: nobody's
	demoDomain  = "postroom.example"
	demoAddress = "anna@postroom.example"
	demoSender  = "ben@elsewhere.example"
)

type demoCommand struct {
	Once bool `help:"End after the round trip of the letter. Exit status 0, or 1 naming the step that failed."`
}

// Run shows the server at work: the one that serve starts, on loopback ports and a directory that is removed at the end.
func (c *demoCommand) Run(ctx context.Context, p *program) (err error) {
	dir, err := os.MkdirTemp("", "postroom-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	level := new(slog.LevelVar)
	level.Set(slog.LevelWarn) // the steps tell what happens; the log takes over when the user tries it
	log, err := maillog.New(p.stderr, level, "text")
	if err != nil {
		return err
	}
	s := &showing{program: p, dir: dir, log: log}
	s.world = demo.World{Hostname: demoHost, From: demoSender, Address: demoAddress, Password: generatePassword()}
	defer func() { err = errors.Join(err, s.stop()) }()

	fmt.Fprintf(p.stdout, "A whole mail server on this machine, with a throwaway data directory.\n\n")
	steps := append([]demo.Step{
		{Name: "start the server", Run: s.start},
		{Name: "add the domain " + demoDomain + " and the account " + demoAddress, Run: s.addAccount},
	}, demo.RoundTrip(&s.world)...)
	steps = append(steps, demo.Verdicts(&s.world)...)
	if err := demo.Run(ctx, steps, s.print); err != nil {
		return s.failed(err)
	}
	fmt.Fprintf(p.stdout, "\nThe letter went the whole way, and every octet of it came back. A forged one was refused.\n")
	if c.Once {
		return nil
	}
	if err := s.invite(); err != nil {
		return err
	}
	level.Set(slog.LevelInfo)
	<-ctx.Done()
	fmt.Fprintf(p.stdout, "\nStopping; the data directory is removed.\n")
	return nil
}

// showing is a demonstration under way.
type showing struct {
	*program
	dir    string
	log    *slog.Logger
	world  demo.World
	server *server
}

// config is what the server runs with: everything as it is by default, but for the ports and the place.
func (s *showing) config() *config.Config {
	c := config.Default()
	c.Hostname, c.DataDir = demoHost, s.dir
	c.Listen = config.Listen{SMTP: []string{"127.0.0.1:0"}, POP3: []string{"127.0.0.1:0"}, POP3S: []string{"127.0.0.1:0"}}
	c.Limits.DiskReserve = 0 // a laptop may be nearly full
	c.DNS.Resolvers = []string{s.world.Outside.DNS.String()}
	return c
}

func (s *showing) start(ctx context.Context, note demo.Note) (err error) {
	if s.world.Outside, err = demo.OpenOutside(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	c := s.config()
	open, err := openListeners(nil, c)
	if err != nil {
		return err
	}
	running := context.WithoutCancel(ctx) // stop ends it
	if s.server, err = newServer(running, c, open, s.passwords, s.log); err != nil {
		return err
	}
	s.server.Start(running)
	s.world.SMTP, s.world.POP3S = s.server.address(serviceSMTP), s.server.address(servicePOP3S)
	pem, err := os.ReadFile(s.server.certificates.CAFile())
	if err != nil {
		return err
	}
	s.world.Roots = x509.NewCertPool()
	if !s.world.Roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate", s.server.certificates.CAFile())
	}
	note("SMTP on %s, POP3 on %s, POP3S on %s", s.world.SMTP, s.server.address(servicePOP3), s.world.POP3S)
	note("certificates come from an authority of its own, made just now")
	note("it asks a DNS server on %s, which knows %s and a few others", s.world.Outside.DNS, demoSender)
	return nil
}

func (s *showing) addAccount(ctx context.Context, note demo.Note) error {
	domain, err := addr.ParseDomain(demoDomain)
	if err != nil {
		return err
	}
	address, err := addr.Parse(demoAddress)
	if err != nil {
		return err
	}
	if err := s.server.stores.accounts.AddDomain(ctx, domain); err != nil {
		return err
	}
	if _, err := s.server.stores.accounts.AddAccount(ctx, accounts.NewAccount{Address: address, Password: s.world.Password, Name: "Anna"}); err != nil {
		return err
	}
	note("password %s", s.world.Password)
	return nil
}

// print shows a step when it is done.
func (s *showing) print(r demo.Result) {
	verdict := "ok"
	if r.Err != nil {
		verdict = "FAILED"
	}
	fmt.Fprintf(s.stdout, "%d. %s: %s (%d ms)\n", r.Number, r.Name, verdict, r.Took.Milliseconds())
	for _, note := range r.Notes {
		fmt.Fprintf(s.stdout, "     %s\n", note)
	}
}

// failed names the step.
func (s *showing) failed(err error) error {
	step, ok := errors.AsType[*demo.StepError](err)
	if !ok {
		return err
	}
	return nof("the demonstration failed at step %d, %s: %s", step.Number, step.Step, reason(step.Err))
}

// stop ends the server, if it was started.
func (s *showing) stop() error {
	if s.world.Outside != nil {
		defer s.world.Outside.Close()
	}
	if s.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second) // nobody waits for a demonstration
	defer cancel()
	return s.server.Shutdown(ctx)
}

// invitation is what the user can try, on a server with these addresses.
var invitation = template.Must(template.New("invitation").Parse(`
The server goes on until Ctrl-C. It is yours to try, from this machine:

  host       {{.Host}}
  ports      {{.SMTPPort}} SMTP with STARTTLS, {{.POP3Port}} POP3 with STLS, {{.POP3SPort}} POP3S
  login      {{.Address}}
  password   {{.Password}}
  authority  {{.CAFile}}

Send a letter:
  printf 'From: <{{.From}}>\r\nTo: <{{.Address}}>\r\nSubject: hello\r\n\r\nIt works.\r\n' | curl -sS --url smtp://{{.SMTP}} --ssl-reqd --cacert {{.CAFile}} --mail-from {{.From}} --mail-rcpt {{.Address}} --upload-file -

List the letters, and fetch one:
  curl -sS --cacert {{.CAFile}} --user '{{.Address}}:{{.Password}}' pop3s://{{.POP3S}}/
  curl -sS --cacert {{.CAFile}} --user '{{.Address}}:{{.Password}}' pop3s://{{.POP3S}}/1

Talk to it yourself (EHLO and QUIT; USER, PASS, STAT, RETR 1 and QUIT):
  openssl s_client -quiet -crlf -starttls smtp -CAfile {{.CAFile}} -connect {{.SMTP}}
  openssl s_client -quiet -crlf -CAfile {{.CAFile}} -connect {{.POP3S}}

In a mail program: import the authority above, then add an account for incoming mail only: POP3, server {{.Host}},
port {{.POP3SPort}}, SSL/TLS, user name {{.Address}}, normal password.

`))

// invite prints it.
func (s *showing) invite() error {
	smtp, err := netip.ParseAddrPort(s.world.SMTP)
	if err != nil {
		return err
	}
	pop3, err := netip.ParseAddrPort(s.server.address(servicePOP3))
	if err != nil {
		return err
	}
	pop3s, err := netip.ParseAddrPort(s.world.POP3S)
	if err != nil {
		return err
	}
	return invitation.Execute(s.stdout, struct {
		demo.World
		Host                          netip.Addr
		SMTPPort, POP3Port, POP3SPort uint16
		CAFile                        string
	}{s.world, smtp.Addr(), smtp.Port(), pop3.Port(), pop3s.Port(), s.server.certificates.CAFile()})
}
