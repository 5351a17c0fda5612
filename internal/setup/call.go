package setup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

const (
	// callTimeout bounds one call: a firewall that drops packets says nothing.
	callTimeout = 8 * time.Second
	// maxGreeting is the longest reply line of RFC 5321 section 4.5.3.1.5.
	maxGreeting = 512
)

// Network calls mail servers over TCP.
type Network struct{}

// Call waits for the greeting: some networks answer port 25 themselves, and only a greeting shows a mail server.
func (Network) Call(ctx context.Context, server netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", server.String())
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: %w", ErrRefused, err)
	case err != nil:
		return err
	}
	defer c.Close()
	end, _ := ctx.Deadline()
	if err := c.SetDeadline(end); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	greeting, err := bufio.NewReader(io.LimitReader(c, maxGreeting)).ReadString('\n')
	if err != nil {
		return fmt.Errorf("no greeting: %w", err)
	}
	_, _ = io.WriteString(c, "QUIT\r\n") // politeness; what was asked is answered
	if !strings.HasPrefix(greeting, "220") && !strings.HasPrefix(greeting, "4") && !strings.HasPrefix(greeting, "554") {
		return fmt.Errorf("%q is not the greeting of a mail server", greeting)
	}
	return nil
}
