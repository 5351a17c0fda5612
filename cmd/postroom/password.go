package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// maxPasswordLine bounds what --password-stdin reads; bcrypt takes 72 octets.
const maxPasswordLine = 1024

// passwordFlags say where a password comes from.
type passwordFlags struct {
	FromStdin bool `name:"password-stdin" xor:"password" help:"Read the password from the first line of standard input."`
	Generate  bool `xor:"password" help:"Make a password and print it."`
}

// read gets the new password for subject. generated is true when nobody has seen it yet.
func (f passwordFlags) read(ctx context.Context, p *program, subject string) (password string, generated bool, err error) {
	switch {
	case f.Generate:
		return generatePassword(), true, nil
	case f.FromStdin:
		password, err = firstLine(p.stdin)
	default:
		password, err = askTwice(ctx, p, subject)
	}
	if err == nil && password == "" {
		err = usagef("the password is empty: nothing was changed")
	}
	return password, false, err
}

// generatePassword makes a password of 130 random bits in characters that can be typed anywhere.
func generatePassword() string { return strings.ToLower(rand.Text()) }

// firstLine reads a password that a program hands over.
func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxPasswordLine)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", unsuref("the password could not be read from standard input: %s", reason(err))
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}

// askTwice asks the person at the terminal, without showing what is typed.
func askTwice(ctx context.Context, p *program, subject string) (string, error) {
	file, ok := p.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return "", usagef("there is no terminal to ask for the password: use --password-stdin or --generate")
	}
	first, err := ask(ctx, p, file, fmt.Sprintf("New password for %s: ", subject))
	if err != nil {
		return "", err
	}
	second, err := ask(ctx, p, file, "The same again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", nof("the two passwords are not the same: nothing was changed, try again")
	}
	return first, nil
}

// ask reads one line that is not shown. Where ctx ends first, the terminal shows again what is typed.
func ask(ctx context.Context, p *program, terminal *os.File, prompt string) (string, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", unsuref("the password could not be read from the terminal: %s", reason(err))
	}
	fmt.Fprint(p.stderr, prompt)
	type line struct {
		text []byte
		err  error
	}
	typed := make(chan line, 1)
	go func() { // a read from a terminal cannot be ended; after ctx the process is about to end
		text, err := term.ReadPassword(fd)
		typed <- line{text, err}
	}()
	select {
	case l := <-typed:
		fmt.Fprintln(p.stderr)
		if l.err != nil {
			return "", unsuref("the password could not be read from the terminal: %s", reason(l.err))
		}
		return string(l.text), nil
	case <-ctx.Done():
		fmt.Fprintln(p.stderr)
		if err := term.Restore(fd, before); err != nil {
			return "", unsuref("interrupted; `stty sane` mends the terminal: %s", reason(err))
		}
		return "", ctx.Err()
	}
}
