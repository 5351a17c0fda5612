package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/listen"
)

// TestWatchdog shows that a server is pinged for twice in each period, and not at all while it fails or hangs.
func TestWatchdog(t *testing.T) {
	hangs := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for _, tc := range []struct {
		name  string
		alive func(context.Context) error
		pings int // in 65 seconds, with a period of 20
	}{
		{"answers", func(context.Context) error { return nil }, 7},
		{"fails", func(context.Context) error { return errors.New("no") }, 0},
		{"hangs", hangs, 0},
		{"comes back", func() func(context.Context) error {
			n := 0
			return func(ctx context.Context) error {
				if n++; n <= 3 {
					return hangs(ctx)
				}
				return nil
			}
		}(), 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithTimeout(t.Context(), 65*time.Second)
				defer stop()
				pings := 0
				watchdog(ctx, slog.New(slog.DiscardHandler), 20*time.Second, tc.alive, func() { pings++ })
				if pings != tc.pings {
					t.Errorf("%d pings, want %d", pings, tc.pings)
				}
			})
		})
	}
}

// manager stands for systemd: it says what it was told.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	seen []string
}

func newManager(t *testing.T, watchdog string) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", watchdog)
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &manager{t: t, conn: conn}
}

// await reads until it is told the state, and returns the whole message.
func (m *manager) await(state string) string {
	m.t.Helper()
	octets := make([]byte, 4096)
	for {
		n, err := m.conn.Read(octets)
		if err != nil {
			m.t.Fatalf("never told %s, but %q: %v", state, m.seen, err)
		}
		m.seen = append(m.seen, string(octets[:n]))
		if strings.Contains(string(octets[:n]), state) {
			return string(octets[:n])
		}
	}
}

func TestNotify(t *testing.T) {
	m := newManager(t, "200000") // 0.2 s
	r := settled(t).serve()
	if got := m.await("READY=1"); !strings.Contains(got, "STATUS=serving pop3, pop3s, smtp; certificate until 20") {
		t.Errorf("told %q", got)
	}
	for range 3 {
		m.await("WATCHDOG=1")
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if got := m.await("RELOADING=1"); !strings.Contains(got, "MONOTONIC_USEC=") {
		t.Errorf("told %q, which Type=notify-reload does not take", got)
	}
	m.await("READY=1")
	r.stop()
	m.await("STOPPING=1")
	if status := <-r.ended; status != statusDone {
		t.Errorf("exit status %d", status)
	}
}

// TestAlive shows what the watchdog looks at.
func TestAlive(t *testing.T) {
	in := settled(t)
	p := &program{stderr: new(strings.Builder), passwords: quickPasswords, configFile: in.config}
	err := p.withStores(t.Context(), func(stores *stores) error {
		s := &server{stores: stores, listeners: listeners{serviceSMTP: nil}}
		if err := s.alive(t.Context()); err != nil {
			t.Errorf("without ports: %v", err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.alive(ended); err == nil {
			t.Error("a database that does not answer in time is taken for one that does")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		left := listen.Watch(nowhere{})
		s := &server{listeners: listeners{serviceSMTP: {left}}}
		time.Sleep(maxAway + time.Second)
		if err := s.alive(t.Context()); err == nil || !strings.Contains(err.Error(), "nobody has accepted on 192.0.2.1:25 (smtp) for 6s") {
			t.Errorf("a port that nobody serves: %v", err)
		}
	})
}

// nowhere is a listener that is never used.
type nowhere struct{}

func (nowhere) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (nowhere) Close() error              { return nil }
func (nowhere) Addr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 25} }

func TestCommit(t *testing.T) {
	built := func(settings ...debug.BuildSetting) *debug.BuildInfo { return &debug.BuildInfo{Settings: settings} }
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}
	for _, tc := range []struct {
		name, written string
		info          *debug.BuildInfo
		says          string
	}{
		{"written", "fedcba9876543210", built(revision), "commit fedcba987654"},
		{"a clean tree", "", built(revision, debug.BuildSetting{Key: "vcs.modified", Value: "false"}), "commit 0123456789ab"},
		{"a changed tree", "", built(revision, debug.BuildSetting{Key: "vcs.modified", Value: "true"}), "commit 0123456789ab and changes"},
		{"without a repository", "", built(), "commit unknown"},
		{"without anything", "", nil, "commit unknown"},
	} {
		if got := commit(tc.written, tc.info); got != tc.says {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.says)
		}
	}
}
