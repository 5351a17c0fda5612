package web

import (
	"net/netip"
	"strconv"
)

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

// SRV is a record that tells mail programs where a service is.
type SRV struct {
	Service          string // such as "_pop3s._tcp"
	Priority, Weight uint16
	Port             uint16
	Target           string // "." says that there is no such service
}

// String is what stands behind the type in a zone.
func (r SRV) String() string {
	target := r.Target
	if target != "." {
		target += "."
	}
	return strconv.Itoa(int(r.Priority)) + " " + strconv.Itoa(int(r.Weight)) + " " + strconv.Itoa(int(r.Port)) + " " + target
}

// Records are the SRV records of a domain: RFC 6186 section 3, RFC 8314 section 5.1. What is not served is said to be
// missing, so that no mail program tries it.
func (p Ports) Records(host string) []SRV {
	var all []SRV
	for _, s := range []struct {
		service string
		port    uint16
		rank    uint16
	}{
		{"_submissions._tcp", p.Submissions, 0}, {"_submission._tcp", p.Submission, 10},
		{"_pop3s._tcp", p.POP3S, 0}, {"_pop3._tcp", p.POP3, 10},
		{"_imaps._tcp", 0, 0}, {"_imap._tcp", 0, 0},
	} {
		if s.port == 0 {
			all = append(all, SRV{s.service, 0, 0, 0, "."})
			continue
		}
		all = append(all, SRV{s.service, s.rank, 1, s.port, host})
	}
	return all
}
