package demo

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postroom/postroom/internal/wire"
)

// smtpClient is a stranger's mail server.
type smtpClient struct {
	*conn
	hello string
}

// dialSMTP connects, reads the greeting and says EHLO.
func dialSMTP(ctx context.Context, address, hello string, note Note) (*smtpClient, error) {
	c, err := dial(ctx, address, nil, note)
	if err != nil {
		return nil, err
	}
	s := &smtpClient{conn: c, hello: hello}
	if err := s.expect(220); err != nil { // RFC 5321 section 3.1
		return nil, c.giveUp(fmt.Errorf("greeting: %w", err))
	}
	return s, nil
}

// ehlo introduces the client and returns the extensions offered (RFC 5321 section 4.1.1.1).
func (s *smtpClient) ehlo() ([]string, error) {
	if err := s.send("EHLO " + s.hello); err != nil {
		return nil, err
	}
	reply, err := s.reply()
	if err != nil {
		return nil, err
	}
	if reply.Code != 250 || len(reply.Lines) == 0 {
		return nil, fmt.Errorf("EHLO was answered with %s", reply)
	}
	return reply.Lines[1:], nil
}

// startTLS encrypts the connection (RFC 3207) and introduces the client again, as section 4.2 asks.
func (s *smtpClient) startTLS(ctx context.Context, config *tls.Config) error {
	extensions, err := s.ehlo()
	if err != nil {
		return err
	}
	s.note("C: EHLO %s", s.hello)
	s.note("S: 250 %s", strings.Join(extensions, ", "))
	if !slices.Contains(extensions, "STARTTLS") {
		return fmt.Errorf("STARTTLS is not offered")
	}
	if err := s.command(220, "STARTTLS"); err != nil {
		return err
	}
	if err := s.encrypt(ctx, config); err != nil {
		return err
	}
	if _, err = s.ehlo(); err == nil {
		s.note("C: EHLO %s, again and encrypted", s.hello)
	}
	return err
}

// sendLetter hands over one letter, which must be taken.
func (s *smtpClient) sendLetter(from, to string, letter []byte) error {
	reply, err := s.offerLetter(from, to, letter)
	if err == nil && reply.Code != 250 {
		err = fmt.Errorf("the letter was answered with %s", reply)
	}
	return err
}

// offerLetter hands over one letter (RFC 5321 section 3.3) and returns the reply to it.
func (s *smtpClient) offerLetter(from, to string, letter []byte) (wire.Reply, error) {
	if err := s.command(250, fmt.Sprintf("MAIL FROM:<%s> SIZE=%d BODY=8BITMIME", from, len(letter))); err != nil {
		return wire.Reply{}, err
	}
	if err := s.command(250, fmt.Sprintf("RCPT TO:<%s>", to)); err != nil {
		return wire.Reply{}, err
	}
	if err := s.command(354, "DATA"); err != nil {
		return wire.Reply{}, err
	}
	w := bufio.NewWriter(s.Conn)
	dots := wire.NewDotWriter(w)
	if _, err := dots.Write(letter); err != nil {
		return wire.Reply{}, err
	}
	if err := dots.Close(); err != nil {
		return wire.Reply{}, err
	}
	if err := w.Flush(); err != nil {
		return wire.Reply{}, err
	}
	s.note("C: %d octets, then a line with a dot", len(letter))
	reply, err := s.reply()
	if err == nil {
		s.note("S: %s", reply)
	}
	return reply, err
}

// quit ends the session.
func (s *smtpClient) quit() error {
	if err := s.command(221, "QUIT"); err != nil {
		return s.giveUp(err)
	}
	return s.Close()
}

// command sends a command and wants the given code.
func (s *smtpClient) command(want int, command string) error {
	s.note("C: %s", command)
	if err := s.send(command); err != nil {
		return err
	}
	return s.expect(want)
}

// reply reads one reply, of one or several lines.
func (s *smtpClient) reply() (wire.Reply, error) {
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		return wire.Reply{}, err
	}
	return wire.ReadReply(s.br)
}

// expect reads a reply, shows it, and wants the given code.
func (s *smtpClient) expect(want int) error {
	reply, err := s.reply()
	if err != nil {
		return err
	}
	s.note("S: %s", reply)
	if reply.Code != want {
		return fmt.Errorf("the server says %q where %d was expected", reply, want)
	}
	return nil
}
