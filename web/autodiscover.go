package web

import (
	"encoding/xml"
	"errors"
	"hash/fnv"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/internal/addr"
)

// The schemas of Autodiscover that a mail program which is not Exchange's uses: MS-OXDSCLI section 2.2.1.
const (
	requestSchema  = "http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006"
	responseSchema = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"
	outlookSchema  = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"
)

// maxBody is far more than any request has.
const maxBody = 64 << 10

// autodiscoverRequest is what Outlook posts.
type autodiscoverRequest struct {
	XMLName xml.Name `xml:"Autodiscover"`
	Request struct {
		Address string `xml:"EMailAddress"`
		Schema  string `xml:"AcceptableResponseSchema"`
	} `xml:"Request"`
}

// outlookSettings is the answer: MS-OXDSCLI section 2.2.4.
type outlookSettings struct {
	XMLName  xml.Name        `xml:"http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006 Autodiscover"`
	Response outlookResponse `xml:"http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a Response"`
}

type outlookResponse struct {
	DisplayName string            `xml:"User>DisplayName"`
	AccountType string            `xml:"Account>AccountType"`
	Action      string            `xml:"Account>Action"`
	Protocols   []outlookProtocol `xml:"Account>Protocol"`
}

type outlookProtocol struct {
	Type           string `xml:"Type"`
	Server         string `xml:"Server"`
	Port           uint16 `xml:"Port"`
	LoginName      string `xml:"LoginName"`
	DomainRequired string `xml:"DomainRequired"`
	SPA            string `xml:"SPA"`
	SSL            string `xml:"SSL"`
	Encryption     string `xml:"Encryption"`
	AuthRequired   string `xml:"AuthRequired"`
	UsePOPAuth     string `xml:"UsePOPAuth,omitempty"`
	SMTPLast       string `xml:"SMTPLast,omitempty"`
}

// outlookRefusal is the answer to what is no question: MS-OXDSCLI section 2.2.4.1.1.3.
type outlookRefusal struct {
	XMLName xml.Name     `xml:"http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006 Autodiscover"`
	Error   outlookError `xml:"Response>Error"`
}

type outlookError struct {
	Time      string `xml:"Time,attr"`
	ID        string `xml:"Id,attr"`
	Code      int    `xml:"ErrorCode"`
	Message   string `xml:"Message"`
	DebugData string `xml:"DebugData"`
}

// The error codes of MS-OXDSCLI section 2.2.4.1.1.3.2.
const (
	codeInvalid = 600
	codeSchema  = 601
)

// readRequest returns the address that Outlook asks for. problem is the code of the answer where it asks for nothing that can
// be answered; err is for a body that is too large or does not arrive.
func readRequest(body io.Reader) (address string, problem int, err error) {
	var r autodiscoverRequest
	switch err := xml.NewDecoder(body).Decode(&r); {
	case isTooLarge(err):
		return "", 0, err
	case err != nil:
		return "", codeInvalid, nil
	case r.XMLName.Space != requestSchema:
		return "", codeSchema, nil
	}
	if schema := strings.TrimSpace(r.Request.Schema); schema != outlookSchema && schema != "" {
		return "", codeSchema, nil
	}
	return strings.TrimSpace(r.Request.Address), 0, nil
}

func isTooLarge(err error) bool {
	var large *http.MaxBytesError
	return errors.As(err, &large)
}

// outlook is the document for an address.
func (s *Site) outlook(a addr.Address) outlookSettings {
	fetch := microsoft("POP3", s.Ports.incoming(s.Hostname), a.String())
	send := microsoft("SMTP", s.Ports.outgoing(s.Hostname), a.String())
	send.UsePOPAuth, send.SMTPLast = "on", "off"
	return outlookSettings{Response: outlookResponse{
		DisplayName: a.Unicode(), AccountType: "email", Action: "settings", Protocols: []outlookProtocol{fetch, send},
	}}
}

// microsoft writes an endpoint in Microsoft's words. Encryption, where it is understood, says more than SSL.
func microsoft(protocol string, e endpoint, user string) outlookProtocol {
	encryption := "SSL"
	if e.StartTLS {
		encryption = "TLS"
	}
	return outlookProtocol{
		Type: protocol, Server: e.Host, Port: e.Port, LoginName: user,
		DomainRequired: "off", SPA: "off", SSL: "on", Encryption: encryption, AuthRequired: "on",
	}
}

func (s *Site) outlookRefusal(code int) outlookRefusal {
	message := "Invalid Request"
	if code == codeSchema {
		message = "Schema Version is not supported"
	}
	id := fnv.New32a()
	_, _ = id.Write([]byte(s.Hostname)) // never fails
	return outlookRefusal{Error: outlookError{
		Time: time.Now().UTC().Format("15:04:05.0000000"), ID: strconv.FormatUint(uint64(id.Sum32()), 10), Code: code, Message: message,
	}}
}

// The answers to Autodiscover's second version, which only says where a protocol is served.
type (
	discovered struct {
		Protocol string `json:"Protocol"`
		URL      string `json:"Url"`
	}
	notDiscovered struct {
		Code    string `json:"ErrorCode"`
		Message string `json:"ErrorMessage"`
	}
)

// firstVersion is the only protocol that is served, and the name that Outlook knows it by.
const firstVersion = "AutodiscoverV1"

// discover answers for a protocol. Exchange's own protocols are not here, and a mail program that is told so asks no further.
func discover(protocol, host string) (status int, answer any) {
	if strings.EqualFold(protocol, firstVersion) {
		return http.StatusOK, discovered{firstVersion, "https://" + host + "/autodiscover/autodiscover.xml"}
	}
	return http.StatusBadRequest, notDiscovered{"InvalidProtocol", "This server has no such protocol. It supports " + firstVersion + "."}
}
