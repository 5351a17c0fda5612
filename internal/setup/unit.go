package setup

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

//go:embed postroom.service
var serviceTemplate string

// The places of a usual installation.
const (
	ConfigFile = "/etc/postroom/postroom.toml"
	DataDir    = "/var/lib/postroom"
	Binary     = "/usr/local/bin/postroom"
	User       = "postroom"
	UnitFile   = "/etc/systemd/system/postroom.service"
)

// Unit describes the service to systemd.
type Unit struct{ Binary, Config, DataDir, User string }

// plainPath has no character that means something to systemd.
var plainPath = regexp.MustCompile(`^/[A-Za-z0-9/._+@-]*$`)

// homes are the places that ProtectHome hides.
var homes = []string{"/home/", "/root/", "/run/user/"}

// Text is the unit file.
func (u Unit) Text() (string, error) {
	for _, path := range []string{u.Binary, u.Config, u.DataDir} {
		if !plainPath.MatchString(path) {
			return "", fmt.Errorf("%q cannot be in a unit file: use a path of letters, digits and /._+@-", path)
		}
	}
	state := "ReadWritePaths=" + u.DataDir
	if u.DataDir == DataDir {
		state = "StateDirectory=postroom\nStateDirectoryMode=0700"
	}
	home := "ProtectHome=yes"
	if slices.ContainsFunc([]string{u.Binary, u.Config, u.DataDir}, inHome) {
		home = "ProtectHome=read-only"
	}
	return strings.NewReplacer("@BINARY@", u.Binary, "@CONFIG@", u.Config, "@DATA@", u.DataDir, "@USER@", u.User, "@STATE@", state, "@HOME@", home).
		Replace(serviceTemplate), nil
}

func inHome(path string) bool {
	return slices.ContainsFunc(homes, func(home string) bool { return strings.HasPrefix(path, home) })
}

// SocketUnit is the unit file of the ports. One unit has them all: which is which is said by the configuration.
func SocketUnit(listen []Service) string {
	var b strings.Builder
	b.WriteString(`# The ports of Postroom, held by systemd: they stay open while the server is replaced, and the server needs no
# privilege at all. They are matched with the addresses in the configuration, so keep both alike.
[Unit]
Description=Ports of the Postroom mail server

[Socket]
`)
	for _, s := range listen {
		for _, a := range s.Addrs {
			fmt.Fprintf(&b, "# %s\nListenStream=%s\n", s.Name, strings.TrimPrefix(a, ":"))
		}
	}
	b.WriteString(`BindIPv6Only=both
Backlog=4096

[Install]
WantedBy=sockets.target
`)
	return b.String()
}
