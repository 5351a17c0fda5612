package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Size is a number of octets, written as a number or with a unit: 50 MiB, 1GB.
type Size int64

var units = []struct {
	name   string
	octets int64
}{
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3},
	{"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"B", 1}, {"", 1},
}

// ParseSize reads a size.
func ParseSize(s string) (Size, error) {
	s = strings.TrimSpace(s)
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/u.octets {
			break
		}
		return Size(n * u.octets), nil
	}
	return 0, fmt.Errorf("%q is not a size: write octets, or a number with KiB, MiB or GiB", s)
}

// UnmarshalTOML reads a number or a text.
func (s *Size) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case int64:
		if v < 0 {
			return fmt.Errorf("%d is not a size", v)
		}
		*s = Size(v)
		return nil
	case string:
		n, err := ParseSize(v)
		*s = n
		return err
	}
	return fmt.Errorf("%v is not a size", v)
}

// String writes the size with the largest unit that loses nothing.
func (s Size) String() string {
	for _, u := range units[:3] {
		if s != 0 && int64(s)%u.octets == 0 {
			return strconv.FormatInt(int64(s)/u.octets, 10) + " " + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + " B"
}

// Network is an address or a prefix.
type Network struct{ netip.Prefix }

// UnmarshalText reads 192.0.2.1 or 192.0.2.0/24.
func (n *Network) UnmarshalText(text []byte) error {
	if ip, err := netip.ParseAddr(string(text)); err == nil {
		n.Prefix = netip.PrefixFrom(ip.Unmap().WithZone(""), ip.Unmap().BitLen())
		return nil
	}
	p, err := netip.ParsePrefix(string(text))
	if err != nil {
		return fmt.Errorf("%q is neither an address nor a network such as 192.0.2.0/24", text)
	}
	n.Prefix = p.Masked()
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (n Network) MarshalText() ([]byte, error) {
	if n.IsSingleIP() {
		return []byte(n.Addr().String()), nil
	}
	return []byte(n.String()), nil
}
