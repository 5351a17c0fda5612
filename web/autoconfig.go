package web

import "encoding/xml"

// clientConfig is Mozilla's document, version 1.1. The order of the fields is that of its description.
type clientConfig struct {
	XMLName  xml.Name      `xml:"clientConfig"`
	Version  string        `xml:"version,attr"`
	Provider emailProvider `xml:"emailProvider"`
}

type emailProvider struct {
	ID            string         `xml:"id,attr"`
	Domain        string         `xml:"domain"`
	Name          string         `xml:"displayName"`
	ShortName     string         `xml:"displayShortName"`
	Incoming      incomingServer `xml:"incomingServer"`
	Outgoing      outgoingServer `xml:"outgoingServer"`
	Documentation documentation  `xml:"documentation"`
}

type mailServer struct {
	Hostname       string `xml:"hostname"`
	Port           uint16 `xml:"port"`
	SocketType     string `xml:"socketType"`
	Username       string `xml:"username"`
	Authentication string `xml:"authentication"`
}

type incomingServer struct {
	Type string `xml:"type,attr"`
	mailServer
	POP3 pop3Options `xml:"pop3"`
}

type pop3Options struct {
	LeaveOnServer bool `xml:"leaveMessagesOnServer"`
}

type outgoingServer struct {
	Type string `xml:"type,attr"`
	mailServer
}

type documentation struct {
	URL         string      `xml:"url,attr"`
	Description description `xml:"descr"`
}

type description struct {
	Language string `xml:"lang,attr"`
	Text     string `xml:",chardata"`
}

// anyAddress is what mail programs put the address in for.
const anyAddress = "%EMAILADDRESS%"

// autoconfig is the document for an address, or for any of the domain.
func (s *Site) autoconfig(q question) clientConfig {
	user := anyAddress
	if !q.address.IsZero() {
		user = q.address.String()
	}
	name := q.domain
	return clientConfig{Version: "1.1", Provider: emailProvider{
		ID: name.ASCII(), Domain: name.ASCII(), Name: name.Unicode(), ShortName: name.Unicode(),
		// A second device still finds what the first one has fetched.
		Incoming:      incomingServer{"pop3", mozilla(s.Ports.incoming(s.Hostname), user), pop3Options{LeaveOnServer: true}},
		Outgoing:      outgoingServer{"smtp", mozilla(s.Ports.outgoing(s.Hostname), user)},
		Documentation: documentation{s.pageURL(q.address), description{"en", "All settings on one page"}},
	}}
}

// mozilla writes an endpoint in Mozilla's words. "password-cleartext" is the password as it is, inside TLS.
func mozilla(e endpoint, user string) mailServer {
	socket := "SSL"
	if e.StartTLS {
		socket = "STARTTLS"
	}
	return mailServer{e.Host, e.Port, socket, user, "password-cleartext"}
}
