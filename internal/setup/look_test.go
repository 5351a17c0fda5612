package setup

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/dnsbl"
	"github.com/postroom/postroom/internal/resolve"
	"github.com/postroom/postroom/internal/resolve/zone"
)

// callers answers calls per address.
type callers map[netip.Addr]error

func (c callers) Call(ctx context.Context, server netip.AddrPort) error {
	err, known := c[server.Addr()]
	if !known || server.Port() != 25 {
		<-ctx.Done() // dropped on the way
		return ctx.Err()
	}
	return err
}

// world is the DNS that the tests ask.
func world(t *testing.T, records string) *resolve.Resolver {
	t.Helper()
	r, err := resolve.New(resolve.Options{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}, Exchange: zone.MustParse(records)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

const records = `
	gmail.com. 60 IN MX 10 mx.gmail.com.
	mx.gmail.com. 60 IN A 198.51.100.1
	mx.gmail.com. 60 IN AAAA 2001:db8:1::1
	outlook.com. 60 IN MX 10 mx.outlook.com.
	mx.outlook.com. 60 IN A 198.51.100.2
	5.2.0.192.in-addr.arpa. 60 IN PTR mail.example.org.
	mail.example.org. 60 IN A 192.0.2.5
	5.2.0.192.zen.spamhaus.org. 60 IN A 127.255.255.254
	5.2.0.192.bl.spamcop.net. 60 IN A 127.0.0.2
	5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 60 IN PTR vps7.example.net.
`

// TestLook joins the DNS, the calls and the interfaces: what is found on a machine with one address of each kind.
func TestLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Looker{
			DNS:    world(t, records),
			Caller: callers{netip.MustParseAddr("198.51.100.1"): nil, netip.MustParseAddr("198.51.100.2"): ErrRefused},
			Interfaces: func() ([]netip.Addr, error) {
				var all []netip.Addr
				for _, a := range []string{"127.0.0.1", "::1", "fe80::1", "10.0.0.7", "100.64.0.9", "fd00::7", "192.0.2.5", "2001:db8::5"} {
					all = append(all, netip.MustParseAddr(a))
				}
				return all, nil
			},
			Proc: t.TempDir(),
		}
		begun := time.Now()
		f := l.Look(t.Context(), Wanted{Hostname: "mail.example.org"})
		if took := time.Since(begun); took > lookTimeout {
			t.Errorf("it took %s", took)
		}
		if want := []Reach{{"IPv4", true, 2, 1, true}, {"IPv6", true, 1, 0, false}}; !slices.Equal(f.Out, want) {
			t.Errorf("out: %+v, want %+v", f.Out, want)
		}
		if got := join(f.Private); got != "10.0.0.7, 100.64.0.9, fd00::7" {
			t.Errorf("private: %s", got)
		}
		if f.PortsErr == nil {
			t.Error("an empty proc file system is not noticed")
		}
		if len(f.Addresses) != 2 {
			t.Fatalf("addresses: %+v", f.Addresses)
		}
		four, six := f.Addresses[0], f.Addresses[1]
		if !slices.Equal(four.LeadsTo, []string{"mail.example.org"}) || four.Lists["zen.spamhaus.org"] != dnsbl.NotTold ||
			four.Lists["bl.spamcop.net"] != dnsbl.Listed || four.Lists["psbl.surriel.com"] != dnsbl.NotListed {
			t.Errorf("%+v", four)
		}
		if !slices.Equal(six.Names, []string{"vps7.example.net"}) || six.LeadsTo != nil || len(six.Lists) != 1 {
			t.Errorf("%+v", six)
		}
	})
}

func TestLookOffline(t *testing.T) {
	l := &Looker{Interfaces: func() ([]netip.Addr, error) { return nil, errors.New("none") }, Proc: "/proc"} // no DNS, no Caller: asking would panic
	f := l.Look(t.Context(), Wanted{Offline: true, Public: []netip.Addr{v4}})
	if len(f.Addresses) != 1 || f.Addresses[0].IP != v4 || !f.Out[0].Have || f.Out[1].Have {
		t.Errorf("%+v", f)
	}
}

// TestHolder finds this process as the one that holds a port that it listens on.
func TestHolder(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := proc("/proc").listening(); err != nil {
		t.Skipf("no proc file system: %v", err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	looker := &Looker{Proc: "/proc"}
	for _, address := range []string{at.String(), ":" + strconv.Itoa(int(at.Port()))} {
		all, err := looker.ports([]Service{{"smtp", []string{address}}})
		if err != nil || len(all) != 1 || all[0].Holder == nil || all[0].Holder.PID != os.Getpid() || all[0].Holder.Program == "" {
			t.Errorf("%s: %+v, %v", address, all, err)
		}
	}
	l.Close()
	if all, err := looker.ports([]Service{{"smtp", []string{at.String()}}}); err != nil || all[0].Holder != nil {
		t.Errorf("after it is closed: %+v, %v", all[0].Holder, err)
	}
}

func TestReadSocket(t *testing.T) {
	const tail = " 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0"
	for _, tc := range []struct{ line, at string }{
		{"   0: 0100007F:0019 00000000:0000 0A" + tail, "127.0.0.1:25"},
		{"   1: 00000000000000000000000000000000:03E3 00000000000000000000000000000000:0000 0A" + tail, "[::]:995"},
		{"   2: B80D0120000000000000000005000000:0019 00000000000000000000000000000000:0000 0A" + tail, "[2001:db8::5]:25"},
		{"   3: 0100007F:0019 0100007F:C001 01" + tail, ""}, // a connection
		{"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode", ""},
		{"   4: 0100007:0019 00000000:0000 0A" + tail, ""},
		{"", ""},
	} {
		s, ok := readSocket(tc.line)
		if ok != (tc.at != "") || ok && (s.at.String() != tc.at || s.inode != "4711") {
			t.Errorf("%q: %+v, %t; want %q", tc.line, s, ok, tc.at)
		}
	}
}

func TestConflicts(t *testing.T) {
	for _, tc := range []struct {
		at, address string
		want        bool
	}{
		{"0.0.0.0:25", ":25", true},
		{"[::]:25", "192.0.2.5:25", true},
		{"192.0.2.5:25", ":25", true},
		{"192.0.2.5:25", "192.0.2.5:25", true},
		{"192.0.2.5:25", "192.0.2.6:25", false},
		{"192.0.2.5:25", ":2525", false},
		{"0.0.0.0:25", ":0", false},
	} {
		if got := (socket{at: netip.MustParseAddrPort(tc.at)}).conflicts(tc.address); got != tc.want {
			t.Errorf("%s and %s: %t", tc.at, tc.address, got)
		}
	}
}

func TestUnitOf(t *testing.T) {
	for _, tc := range []struct{ groups, want string }{
		{"0::/system.slice/exim4.service\n", "exim4.service"},
		{"12:pids:/system.slice/postfix.service\n1:name=systemd:/system.slice/postfix.service\n", "postfix.service"},
		{"0::/system.slice/system-postfix.slice/postfix@-.service\n", "postfix@-.service"},
		{"0::/user.slice/user-1000.slice/user@1000.service/app.slice/mailpit.service\n", ""}, // not the system's
		{"0::/\n", ""},
		{"", ""},
	} {
		if got := unitOf(tc.groups); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.groups, got, tc.want)
		}
	}
}

func TestLowPorts(t *testing.T) {
	dir := t.TempDir()
	if got := LowPorts(dir); got != 1024 {
		t.Errorf("where nothing says so: %d", got)
	}
	if err := os.MkdirAll(filepath.Join(dir, "sys/net/ipv4"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sys/net/ipv4/ip_unprivileged_port_start"), []byte("0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := LowPorts(dir); got != 0 {
		t.Errorf("where all are free: %d", got)
	}
}

// TestCall has a row for each kind of other side.
func TestCall(t *testing.T) {
	for _, tc := range []struct {
		name    string
		greets  string
		works   bool
		refused bool
	}{
		{"a mail server", "220 mx.example.net ESMTP\r\n", true, false},
		{"one that does not like us", "554 5.7.1 listed\r\n", true, false},
		{"one that is busy", "421 4.3.2 later\r\n", true, false},
		{"something else", "SSH-2.0-OpenSSH_9.2\r\n", false, false},
		{"one that hangs up", "", false, false},
		{"nobody", "-", false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if tc.greets == "-" {
				l.Close()
			}
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				_, _ = io.WriteString(c, tc.greets) // the client looks
				if tc.greets != "" {
					_, _ = io.Copy(io.Discard, c)
				}
			}()
			err = Network{}.Call(t.Context(), netip.MustParseAddrPort(l.Addr().String()))
			if (err == nil) != tc.works || errors.Is(err, ErrRefused) != tc.refused {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestCallEnds shows that a server that says nothing holds nobody up.
func TestCallEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := l.Accept(); err == nil {
			defer c.Close()
			cancel()
			_, _ = io.Copy(io.Discard, c)
		}
	}()
	if err := (Network{}).Call(ctx, netip.MustParseAddrPort(l.Addr().String())); err == nil {
		t.Error("silence is taken for a greeting")
	}
}
