package listen

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/postroom/postroom/internal/wire"
)

// unnamed ends the name that systemd gives to the sockets of a unit without FileDescriptorName: that of the unit.
const unnamed = ".socket"

// take hands out the sockets without a name of their own that are bound to the address. One unit can so hold all ports,
// and the configuration says which is which.
func (s Sockets) take(address string) (taken []net.Listener) {
	for name, given := range s {
		if !strings.HasSuffix(name, unnamed) {
			continue
		}
		s[name] = slices.DeleteFunc(slices.Clone(given), func(l net.Listener) bool {
			if l == nil || !bound(l.Addr(), address) {
				return false
			}
			taken = append(taken, l)
			return true
		})
	}
	return taken
}

// bound tells whether a socket's address is what host:port of the configuration stands for.
func bound(a net.Addr, address string) bool {
	is := wire.AddrPort(a)
	host, port, err := net.SplitHostPort(address)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || uint16(n) != is.Port() {
		return false
	}
	if host == "" {
		return is.Addr().IsUnspecified()
	}
	want, err := netip.ParseAddr(host)
	return err == nil && want.Unmap() == is.Addr()
}

// Left closes the sockets that nobody took, and says where they were.
func (s Sockets) Left() (left []string) {
	for name, given := range s {
		for _, l := range given {
			if l != nil {
				left = append(left, name+" "+l.Addr().String())
				_ = l.Close() // nothing was accepted
			}
		}
		delete(s, name)
	}
	slices.Sort(left)
	return left
}
