package limit

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// open opens n connections and fails the test when one is refused.
func open(t *testing.T, c *Connections, n int, group string, ip netip.Addr) []*Slot {
	t.Helper()
	var slots []*Slot
	for i := range n {
		s, err := c.Acquire(group, ip)
		if err != nil {
			t.Fatalf("connection %d from %s: %v", i+1, ip, err)
		}
		slots = append(slots, s)
	}
	return slots
}

// checkEmpty fails the test when anything is left of connections that are gone.
func checkEmpty(t *testing.T, c *Connections) {
	t.Helper()
	if c.Open() != 0 || len(c.groups) != 0 || len(c.addresses) != 0 || len(c.perAccount) != 0 {
		t.Errorf("left behind: %d in all, groups %v, addresses %v, accounts %v", c.total, c.groups, c.addresses, c.perAccount)
	}
}

func TestCaps(t *testing.T) {
	many := func(n int) []netip.Addr {
		ips := make([]netip.Addr, n)
		for i := range ips {
			ips[i] = ip(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
		}
		return ips
	}
	same := func(n int, s string) []netip.Addr {
		ips := make([]netip.Addr, n)
		for i := range ips {
			ips[i] = ip(s)
		}
		return ips
	}
	for _, tc := range []struct {
		name   string
		limits ConnectionLimits
		group  string
		from   []netip.Addr // all but the last are accepted
		want   error
	}{
		{"defaults, in all", ConnectionLimits{}, "pop3", many(2001), ErrTooManyInAll},
		{"defaults, port 25", ConnectionLimits{}, GroupSMTP, many(1501), ErrTooManyInGroup},
		{"defaults, address", ConnectionLimits{}, "pop3", same(21, "192.0.2.1"), ErrTooManyFromAddress},
		{"port 25 has its share of another total", ConnectionLimits{Total: 100}, GroupSMTP, many(76), ErrTooManyInGroup},
		{"own groups", ConnectionLimits{Group: map[string]int{"pop3": 3}}, "pop3", many(4), ErrTooManyInGroup},
		{"IPv4 in IPv6 is IPv4", ConnectionLimits{PerAddress: 2}, "", []netip.Addr{ip("192.0.2.1"), ip("::ffff:192.0.2.1"), ip("192.0.2.1")}, ErrTooManyFromAddress},
		{"one /64", ConnectionLimits{PerAddress: 2}, "", []netip.Addr{ip("2001:db8::1"), ip("2001:db8::2"), ip("2001:db8::ffff:0:0:3")}, ErrTooManyFromAddress},
		{"two /64", ConnectionLimits{PerAddress: 1}, "", []netip.Addr{ip("2001:db8::1"), ip("2001:db8:0:1::1"), ip("2001:db8::2")}, ErrTooManyFromAddress},
		{"zones are one", ConnectionLimits{PerAddress: 1}, "", []netip.Addr{ip("fe80::1%a"), ip("fe80::1%b")}, ErrTooManyFromAddress},
		{"neighbours in IPv4", ConnectionLimits{PerAddress: 1}, "", []netip.Addr{ip("192.0.2.1"), ip("192.0.2.2"), ip("192.0.2.1")}, ErrTooManyFromAddress},
		{"no limits", ConnectionLimits{Total: -1, PerAddress: -1}, GroupSMTP, same(5000, "192.0.2.1"), nil},
		{"no address", ConnectionLimits{PerAddress: 1}, "", make([]netip.Addr, 10), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := NewConnections(tc.limits)
			var slots []*Slot
			last := len(tc.from) - 1
			for _, from := range tc.from[:last] {
				slots = append(slots, open(t, c, 1, tc.group, from)...)
			}
			s, err := c.Acquire(tc.group, tc.from[last])
			if err != tc.want || err != nil && !errors.Is(err, ErrTooMany) {
				t.Errorf("connection %d: %v, want %v", last+1, err, tc.want)
			}
			if err == nil {
				slots = append(slots, s)
			}
			for _, s := range slots {
				s.Release()
				s.Release() // counts once
			}
			checkEmpty(t, c)
			open(t, c, 1, tc.group, tc.from[last])
		})
	}
}

// TestRoomForOwners fills port 25 and checks that other services still have room.
func TestRoomForOwners(t *testing.T) {
	c := NewConnections(ConnectionLimits{Total: 20, PerAddress: -1})
	open(t, c, 15, GroupSMTP, ip("192.0.2.1"))
	if _, err := c.Acquire(GroupSMTP, ip("192.0.2.2")); err != ErrTooManyInGroup {
		t.Errorf("got %v", err)
	}
	open(t, c, 5, "pop3", ip("192.0.2.3"))
}

func TestLogIn(t *testing.T) {
	c := NewConnections(ConnectionLimits{PerAddress: 2, PerAccount: 2})
	from := ip("192.0.2.1")
	slots := open(t, c, 2, "pop3", from)
	if _, err := c.Acquire("pop3", from); err != ErrTooManyFromAddress {
		t.Fatalf("third connection: %v", err)
	}
	for _, s := range slots {
		for range 2 { // the second does nothing
			if err := s.LogIn(7); err != nil {
				t.Fatal(err)
			}
		}
	}
	more := open(t, c, 2, "pop3", from) // the first two are no longer counted here
	if err := more[0].LogIn(7); err != ErrTooManyForAccount || !errors.Is(err, ErrTooMany) {
		t.Errorf("third login: %v", err)
	}
	if _, err := c.Acquire("pop3", from); err != ErrTooManyFromAddress {
		t.Errorf("the refused login left its address: %v", err)
	}
	if err := more[1].LogIn(8); err != nil {
		t.Errorf("another account: %v", err)
	}
	slots[0].Release()
	if err := more[0].LogIn(7); err != nil {
		t.Errorf("login in the place of one that left: %v", err)
	}
	if err := more[0].LogIn(9); err != nil {
		t.Errorf("login to another account: %v", err)
	}
	for _, s := range append(slots, more...) {
		s.Release()
	}
	if err := slots[0].LogIn(7); err != nil {
		t.Errorf("login after the end: %v", err)
	}
	checkEmpty(t, c)
}

func TestNilSlot(t *testing.T) {
	var c *Connections
	s, err := c.Acquire(GroupSMTP, ip("192.0.2.1"))
	if s != nil || err != nil || c.Open() != 0 {
		t.Errorf("nil Connections: %v, %v", s, err)
	}
	if err := s.LogIn(1); err != nil {
		t.Error(err)
	}
	s.Release()
}

func TestConnectionsConcurrently(t *testing.T) {
	c := NewConnections(ConnectionLimits{Total: 50, PerAddress: 5, PerAccount: 3})
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 200 {
				s, err := c.Acquire(GroupSMTP, ip(fmt.Sprintf("192.0.2.%d", (g+i)%4)))
				if err == nil && i%2 == 0 {
					err = s.LogIn(int64(i % 3))
				}
				if err != nil && !errors.Is(err, ErrTooMany) {
					t.Error(err)
				}
				s.Release()
			}
		})
	}
	wg.Wait()
	checkEmpty(t, c)
}

func BenchmarkConnections(b *testing.B) {
	c := NewConnections(ConnectionLimits{})
	from := ip("2001:db8::1")
	b.ReportAllocs()
	for b.Loop() {
		s, err := c.Acquire(GroupSMTP, from)
		if err != nil {
			b.Fatal(err)
		}
		s.Release()
	}
}

func TestByGroup(t *testing.T) {
	c := NewConnections(ConnectionLimits{Group: map[string]int{"smtp": 5}})
	one, err := c.Acquire("smtp", netip.MustParseAddr("192.0.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := c.Acquire("pop3", netip.MustParseAddr("192.0.2.2"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.ByGroup(); got["smtp"] != 1 || got["pop3"] != 1 {
		t.Errorf("got %v", got)
	}
	one.Release()
	two.Release()
	if got, there := c.ByGroup()["smtp"]; got != 0 || !there {
		t.Errorf("without connections: %d, %t", got, there)
	}
	if got := (*Connections)(nil).ByGroup(); len(got) != 0 {
		t.Errorf("without limits: %v", got)
	}
}
