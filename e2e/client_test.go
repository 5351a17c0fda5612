package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"
)

// client speaks line by line to a port of the server: SMTP, or POP3.
type client struct {
	conn net.Conn
	r    *bufio.Reader
}

// timeout bounds one exchange with the server.
const timeout = 60 * time.Second

func dial(address string) (*client, error) {
	conn, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return nil, err
	}
	return &client{conn, bufio.NewReader(conn)}, nil
}

// upgrade turns the connection into a TLS one.
func (c *client) upgrade(config *tls.Config) error {
	conn := tls.Client(c.conn, config)
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if err := conn.Handshake(); err != nil {
		return err
	}
	c.conn, c.r = conn, bufio.NewReader(conn)
	return nil
}

func (c *client) close() { _ = c.conn.Close() } // a connection that the server closed first is as good

// send writes the octets as they are.
func (c *client) send(b []byte) error {
	if err := c.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err := c.conn.Write(b)
	return err
}

func (c *client) line() (string, error) {
	line, err := c.r.ReadString('\n')
	return strings.TrimSuffix(line, "\r\n"), err
}

// ask sends one command, unless it is empty, and returns the last line of an SMTP reply that begins with want.
func (c *client) ask(want, format string, args ...any) (string, error) {
	if format != "" {
		if err := c.send(fmt.Appendf(nil, format+"\r\n", args...)); err != nil {
			return "", err
		}
	}
	for {
		line, err := c.line()
		if err != nil {
			return "", err
		}
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		if !strings.HasPrefix(line, want) {
			return line, fmt.Errorf("%.40q was answered %q, want %s", format, line, want)
		}
		return line, nil
	}
}

// greet opens an SMTP session, over STARTTLS where config is given.
func greet(address string, config *tls.Config) (*client, error) {
	c, err := dial(address)
	if err != nil {
		return nil, err
	}
	if _, err = c.ask("220", ""); err == nil {
		_, err = c.ask("250", "EHLO client.example")
	}
	if err == nil && config != nil {
		if _, err = c.ask("220", "STARTTLS"); err == nil {
			err = c.upgrade(config)
		}
		if err == nil {
			_, err = c.ask("250", "EHLO client.example")
		}
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// deliver hands over one letter with DATA and returns the final reply.
func (c *client) deliver(to string, letter []byte) (string, error) {
	if _, err := c.ask("250", "MAIL FROM:<ben@client.example>"); err != nil {
		return "", err
	}
	if _, err := c.ask("250", "RCPT TO:<%s>", to); err != nil {
		return "", err
	}
	if _, err := c.ask("354", "DATA"); err != nil {
		return "", err
	}
	stuffed := bytes.ReplaceAll(append([]byte("\r\n"), letter...), []byte("\r\n."), []byte("\r\n.."))[2:]
	if err := c.send(append(stuffed, ".\r\n"...)); err != nil {
		return "", err
	}
	return c.ask("250", "")
}

// deliverChunks hands over one letter with BDAT, in chunks of the given size (RFC 3030).
func (c *client) deliverChunks(to string, letter []byte, size int) (string, error) {
	if _, err := c.ask("250", "MAIL FROM:<ben@client.example> BODY=8BITMIME"); err != nil {
		return "", err
	}
	if _, err := c.ask("250", "RCPT TO:<%s>", to); err != nil {
		return "", err
	}
	for {
		n := min(size, len(letter))
		last := ""
		if n == len(letter) {
			last = " LAST"
		}
		chunk := append(fmt.Appendf(nil, "BDAT %d%s\r\n", n, last), letter[:n]...)
		if err := c.send(chunk); err != nil {
			return "", err
		}
		reply, err := c.ask("250", "")
		if err != nil || last != "" {
			return reply, err
		}
		letter = letter[n:]
	}
}

// openBox logs in over implicit TLS.
func openBox(address string, config *tls.Config, login, password string) (*client, error) {
	c, err := dial(address)
	if err != nil {
		return nil, err
	}
	if err = c.upgrade(config); err == nil {
		_, err = c.command("")
	}
	if err == nil {
		_, err = c.command("USER " + login)
	}
	if err == nil {
		_, err = c.command("PASS " + password)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// command sends one POP3 command, unless it is empty, and returns its +OK line.
func (c *client) command(line string) (string, error) {
	if line != "" {
		if err := c.send([]byte(line + "\r\n")); err != nil {
			return "", err
		}
	} else if err := c.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	reply, err := c.line()
	if err == nil && !strings.HasPrefix(reply, "+OK") {
		err = fmt.Errorf("%.20q was answered %q", line, reply)
	}
	return reply, err
}

// multi sends one POP3 command with a multi-line answer and returns it, unstuffed.
func (c *client) multi(line string) ([]byte, error) {
	if _, err := c.command(line); err != nil {
		return nil, err
	}
	var all []byte
	for {
		line, err := c.r.ReadBytes('\n')
		switch {
		case err != nil:
			return all, err
		case string(line) == ".\r\n":
			return all, nil
		case line[0] == '.':
			line = line[1:]
		}
		all = append(all, line...)
	}
}

// fetchAll returns every letter of a maildrop.
func fetchAll(address string, config *tls.Config, login, password string) ([][]byte, error) {
	c, err := openBox(address, config, login, password)
	if err != nil {
		return nil, err
	}
	defer c.close()
	stat, err := c.command("STAT")
	if err != nil {
		return nil, err
	}
	var count, size int
	if _, err := fmt.Sscanf(stat, "+OK %d %d", &count, &size); err != nil {
		return nil, err
	}
	letters := make([][]byte, count)
	for n := range letters {
		if letters[n], err = c.multi(fmt.Sprintf("RETR %d", n+1)); err != nil {
			return nil, fmt.Errorf("letter %d: %w", n+1, err)
		}
	}
	_, err = c.command("QUIT")
	return letters, err
}
