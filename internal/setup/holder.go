package setup

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Holder is the process that listens on a port.
type Holder struct {
	PID     int    // 0: not known, which it is to root only
	Program string // its name
	Unit    string // of systemd, such as exim4.service; "" for none
}

// ours tells whether the process is a Postroom.
func (h Holder) ours() bool { return h.Program == "postroom" }

// String names the process.
func (h Holder) String() string {
	if h.PID == 0 {
		return "another program"
	}
	return fmt.Sprintf("%s (process %d)", h.Program, h.PID)
}

// stop says how to end it.
func (h Holder) stop() string {
	switch {
	case h.PID == 0:
		return "run this as root to see which one"
	case h.PID == 1 && h.Program == "systemd":
		return "a socket unit of systemd: `systemctl list-sockets` names it, `systemctl disable --now NAME` ends it"
	case publishes[h.Program]:
		return "a container publishes it: `docker ps` or `podman ps` names it"
	case h.Unit != "":
		return "`systemctl disable --now " + h.Unit + "` stops it for good"
	}
	return fmt.Sprintf("`kill %d` stops it; see to it that it does not come back", h.PID)
}

// publishes are the programs that hold ports for containers.
var publishes = map[string]bool{"docker-proxy": true, "rootlessport": true, "conmon": true, "slirp4netns": true, "pasta": true}

// proc is the proc file system of Linux, or what a test puts in its place.
type proc string

// listening is the sockets that listen in this process's network, by inode.
type socket struct {
	at    netip.AddrPort
	inode string
}

// listening reads what listens. It fails where there is no such file: on other systems, and where /proc is hidden.
func (p proc) listening() (all []socket, err error) {
	for _, name := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(filepath.Join(string(p), "self", "net", name))
		if err != nil && name == "tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if s, ok := readSocket(line); ok {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// stateListen is TCP_LISTEN in the kernel's table.
const stateListen = "0A"

// readSocket reads one line of the table: a number, both addresses, the state, …, and the inode as the tenth word.
func readSocket(line string) (socket, bool) {
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != stateListen {
		return socket{}, false
	}
	host, port, _ := strings.Cut(f[1], ":")
	octets, err := hex.DecodeString(host)
	n, bad := strconv.ParseUint(port, 16, 16)
	if err != nil || bad != nil || len(octets)%4 != 0 {
		return socket{}, false
	}
	for i := 0; i < len(octets); i += 4 { // words of 32 bits in the machine's order, which is little-endian on all that we build for
		octets[i], octets[i+1], octets[i+2], octets[i+3] = octets[i+3], octets[i+2], octets[i+1], octets[i]
	}
	ip, ok := netip.AddrFromSlice(octets)
	return socket{netip.AddrPortFrom(ip.Unmap(), uint16(n)), f[9]}, ok
}

// holder finds the process that has the socket open. Other users' processes show it to root only.
func (p proc) holder(inode string) Holder {
	want := "socket:[" + inode + "]"
	processes, _ := filepath.Glob(filepath.Join(string(p), "[0-9]*"))
	for _, dir := range processes {
		entries, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			continue // it has ended, or is not ours to look at
		}
		for _, e := range entries {
			if to, err := os.Readlink(filepath.Join(dir, "fd", e.Name())); err == nil && to == want {
				return p.describe(filepath.Base(dir))
			}
		}
	}
	return Holder{}
}

func (p proc) describe(pid string) Holder {
	n, _ := strconv.Atoi(pid)
	name, _ := os.ReadFile(filepath.Join(string(p), pid, "comm")) // what is not known is left out
	groups, _ := os.ReadFile(filepath.Join(string(p), pid, "cgroup"))
	return Holder{PID: n, Program: string(bytes.TrimSpace(name)), Unit: unitOf(string(groups))}
}

// unitOf finds the system's unit in a list of control groups, such as 0::/system.slice/exim4.service.
func unitOf(groups string) string {
	for line := range strings.Lines(groups) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/system.slice/") {
			continue
		}
		for part := range strings.SplitSeq(f[2], "/") {
			if strings.HasSuffix(part, ".service") {
				return part
			}
		}
	}
	return ""
}

// conflicts tells whether a socket is in the way of listening on host:port.
func (s socket) conflicts(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "0" || port != strconv.Itoa(int(s.at.Port())) {
		return false
	}
	want, err := netip.ParseAddr(host)
	return err != nil || want.IsUnspecified() || s.at.Addr().IsUnspecified() || want.Unmap() == s.at.Addr()
}
