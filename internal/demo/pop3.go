package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/postroom/postroom/internal/wire"
)

// pop3Client is the owner's mail program.
type pop3Client struct{ *conn }

// dialPOP3S connects with TLS from the first octet (RFC 8314) and reads the greeting.
func dialPOP3S(ctx context.Context, address string, config *tls.Config, note Note) (*pop3Client, error) {
	c, err := dial(ctx, address, config, note)
	if err != nil {
		return nil, err
	}
	p := &pop3Client{c}
	if _, err := p.status(); err != nil {
		return nil, c.giveUp(fmt.Errorf("greeting: %w", err))
	}
	return p, nil
}

// command sends a command and returns the text of its +OK. shown is what may be shown of it.
func (p *pop3Client) command(command, shown string) (string, error) {
	p.note("C: %s", shown)
	if err := p.send(command); err != nil {
		return "", err
	}
	return p.status()
}

// status reads a status line (RFC 1939 section 3); -ERR is an error.
func (p *pop3Client) status() (string, error) {
	line, err := p.line()
	if err != nil {
		return "", err
	}
	p.note("S: %s", line)
	text, ok := strings.CutPrefix(line, "+OK")
	if !ok {
		return "", fmt.Errorf("the server says %q", line)
	}
	return strings.TrimSpace(text), nil
}

// logIn gives name and password, which only TLS may carry.
func (p *pop3Client) logIn(name, password string) error {
	if _, err := p.command("USER "+name, "USER "+name); err != nil {
		return err
	}
	_, err := p.command("PASS "+password, "PASS ********")
	return err
}

// count asks how many letters there are (RFC 1939 section 5, STAT).
func (p *pop3Client) count() (n int, err error) {
	text, err := p.command("STAT", "STAT")
	if err != nil {
		return 0, err
	}
	var octets int64
	if _, err := fmt.Sscanf(text, "%d %d", &n, &octets); err != nil {
		return 0, fmt.Errorf("STAT was answered with %q", text)
	}
	return n, nil
}

// retrieve fetches letter n.
func (p *pop3Client) retrieve(n int) ([]byte, error) {
	command := fmt.Sprintf("RETR %d", n)
	if _, err := p.command(command, command); err != nil {
		return nil, err
	}
	letter, err := io.ReadAll(io.LimitReader(wire.NewDotReader(p.br), maxLetter+1))
	if err == nil && len(letter) > maxLetter {
		err = errors.New("the letter does not end")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the letter: %w", err)
	}
	return letter, nil
}

// quit ends the session; without it the maildrop stays locked for a while.
func (p *pop3Client) quit() error {
	if _, err := p.command("QUIT", "QUIT"); err != nil {
		return p.giveUp(err)
	}
	return p.Close()
}
