package web

import "net/netip"

// Ports are where mail programs reach this server; 0: not at all.
type Ports struct {
	POP3S, POP3, Submissions, Submission uint16
}

// endpoint is where mail is fetched, or sent.
type endpoint struct {
	Host     string
	Port     uint16
	StartTLS bool // else TLS from the first octet
}

// incoming is where mail is fetched. TLS from the first octet comes first: RFC 8314 section 3.
func (p Ports) incoming(host string) endpoint { return better(host, p.POP3S, p.POP3) }

// outgoing is where mail is sent.
func (p Ports) outgoing(host string) endpoint { return better(host, p.Submissions, p.Submission) }

func better(host string, implicit, startTLS uint16) endpoint {
	if implicit != 0 {
		return endpoint{host, implicit, false}
	}
	return endpoint{host, startTLS, true}
}

// complete tells whether a mail program can work with this server at all.
func (p Ports) complete() bool { return p.incoming("").Port != 0 && p.outgoing("").Port != 0 }

// PublicPort is the port by which the world knows a service that listens on these addresses; 0: by none. What listens on
// loopback only, on a machine that has proxies in front, is known by its standard port.
func PublicPort(listening []netip.AddrPort, proxied bool, standard uint16) uint16 {
	for _, a := range listening {
		if !a.Addr().IsLoopback() {
			return a.Port()
		}
	}
	switch {
	case len(listening) == 0:
		return 0
	case proxied:
		return standard
	}
	return listening[0].Port()
}
