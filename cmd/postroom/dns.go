package main

import (
	"log/slog"
	"net/netip"

	"github.com/postroom/postroom/internal/config"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/internal/resolve"
)

// openResolver returns who answers questions to the DNS: the configured resolvers, else the system's, else one on this
// machine, as the C library does.
func openResolver(c *config.Config, log *slog.Logger) (*resolve.Resolver, error) {
	servers := c.DNS.Servers()
	if len(servers) == 0 {
		var err error
		if servers, err = resolve.System(); err != nil || len(servers) == 0 {
			log.Warn("the system names no resolver, asking 127.0.0.1: set dns.resolvers", maillog.Err, err)
			servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
		}
	}
	return resolve.New(resolve.Options{Servers: servers, TrustAD: c.DNS.Trusts(servers), Log: log})
}
