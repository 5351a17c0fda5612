package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"text/template"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/dnscheck"
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
	Once bool `help:"End after the steps. Exit status 0, or 1 naming the step that failed."`
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
	steps = append(append(steps, demo.Verdicts(&s.world)...), demo.Sending(&s.world)...)
	if err := demo.Run(ctx, steps, s.print); err != nil {
		return s.failed(err)
	}
	fmt.Fprintf(p.stdout, "\nThe letter went the whole way, and every octet of it came back. A forged one was refused.\nThe answer left signed and encrypted, and what could not be delivered came back.\n")
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
	free := []string{"127.0.0.1:0"}
	c.Listen = config.Listen{SMTP: free, Submission: free, Submissions: free, POP3: free, POP3S: free}
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
	if s.server, err = newServer(running, c, open, surroundings{s.passwords, s.world.Outside.Port()}, s.log); err != nil {
		return err
	}
	s.server.Start(running)
	s.world.SMTP, s.world.Submissions, s.world.POP3S = s.server.address(serviceSMTP), s.server.address(serviceSubmissions), s.server.address(servicePOP3S)
	s.world.Policy = s.policy
	pem, err := os.ReadFile(s.server.certificates.CAFile())
	if err != nil {
		return err
	}
	s.world.Roots = x509.NewCertPool()
	if !s.world.Roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate", s.server.certificates.CAFile())
	}
	note("SMTP on %s, submission on %s and %s, POP3 on %s, POP3S on %s", s.world.SMTP, s.server.address(serviceSubmission), s.world.Submissions,
		s.server.address(servicePOP3), s.world.POP3S)
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
	return s.publishKeys(ctx, domain, note)
}

// publishKeys puts the keys of the domain into the DNS, as its owner would.
func (s *showing) publishKeys(ctx context.Context, domain addr.Domain, note demo.Note) error {
	keys, err := s.server.stores.accounts.DKIMKeys(ctx, domain)
	if err != nil {
		return err
	}
	for _, k := range keys {
		s.world.Outside.Publish(k.Selector+"._domainkey."+domain.ASCII(), dnscheck.KeyRecord(k))
		note("published %s._domainkey.%s, a key for %s", k.Selector, domain, k.Algorithm)
	}
	return nil
}

// policy reads from the ledger what the connection had to meet over which the last letter to an address left.
func (s *showing) policy(ctx context.Context, to string) (string, error) {
	address, err := addr.Parse(demoAddress)
	if err != nil {
		return "", err
	}
	account, err := s.server.stores.accounts.Account(ctx, address)
	if err != nil {
		return "", err
	}
	entries, err := maillog.OfAccount(ctx, s.server.stores.db, account.ID, 10)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if e.Kind == maillog.KindSent && e.Recipient == "<"+to+">" {
			_, rest, _ := strings.Cut(e.Detail, ", ")
			policy, _, _ := strings.Cut(rest, ")")
			return policy, nil
		}
	}
	return "", fmt.Errorf("the ledger knows of no letter to %s", to)
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
  ports      {{.SMTPPort}} SMTP with STARTTLS, {{.POP3Port}} POP3 with STLS, {{.POP3SPort}} POP3S, {{.SubmissionsPort}} submission over TLS
  login      {{.Address}}
  password   {{.Password}}
  authority  {{.CAFile}}

Send a letter:
  printf 'From: <{{.From}}>\r\nTo: <{{.Address}}>\r\nSubject: hello\r\n\r\nIt works.\r\n' | curl -sS --url smtp://{{.SMTP}} --ssl-reqd --cacert {{.CAFile}} --mail-from {{.From}} --mail-rcpt {{.Address}} --upload-file -

Answer it; the server of {{.From}} is part of the demonstration, and any other address comes back:
  printf 'From: <{{.Address}}>\r\nTo: <{{.From}}>\r\nSubject: hello\r\n\r\nIt works.\r\n' | curl -sS --url smtps://{{.Submissions}} --cacert {{.CAFile}} --user '{{.Address}}:{{.Password}}' --mail-from {{.Address}} --mail-rcpt {{.From}} --upload-file -

List the letters, and fetch one:
  curl -sS --cacert {{.CAFile}} --user '{{.Address}}:{{.Password}}' pop3s://{{.POP3S}}/
  curl -sS --cacert {{.CAFile}} --user '{{.Address}}:{{.Password}}' pop3s://{{.POP3S}}/1

Talk to it yourself (EHLO and QUIT; USER, PASS, STAT, RETR 1 and QUIT):
  openssl s_client -quiet -crlf -starttls smtp -CAfile {{.CAFile}} -connect {{.SMTP}}
  openssl s_client -quiet -crlf -CAfile {{.CAFile}} -connect {{.POP3S}}

In a mail program: import the authority above, then add an account: POP3, server {{.Host}}, port {{.POP3SPort}}, SSL/TLS, user name
{{.Address}}, normal password; outgoing SMTP, the same with port {{.SubmissionsPort}}.

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
	submissions, err := netip.ParseAddrPort(s.world.Submissions)
	if err != nil {
		return err
	}
	return invitation.Execute(s.stdout, struct {
		demo.World
		Host                                           netip.Addr
		SMTPPort, POP3Port, POP3SPort, SubmissionsPort uint16
		CAFile                                         string
	}{s.world, smtp.Addr(), smtp.Port(), pop3.Port(), pop3s.Port(), submissions.Port(), s.server.certificates.CAFile()})
}
