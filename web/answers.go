package web

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/postroom/postroom/internal/addr"
)

// parameter is the address in the query, by any of the names that mail programs use, in any case.
func parameter(r *http.Request, names ...string) string {
	query := r.URL.Query()
	for _, name := range names {
		for key, values := range query {
			if strings.EqualFold(key, name) && len(values) > 0 && values[0] != "" {
				return strings.TrimSpace(values[0])
			}
		}
	}
	return ""
}

// addressParameter is what Mozilla calls the address, and what the form of the settings page does, too.
const addressParameter = "emailaddress"

// asked is about, for the address in the query, where this server takes mail programs at all.
func (s *Site) asked(r *http.Request, at place) (question, *refusal) {
	if !s.Ports.complete() {
		return question{}, refuseNoMail
	}
	return s.about(r.Context(), at, parameter(r, addressParameter))
}

func (s *Site) serveAutoconfig(w http.ResponseWriter, r *http.Request, at place) {
	q, refused := s.asked(r, at)
	if refused != nil {
		s.refuse(w, r, refused)
		return
	}
	s.writeXML(w, s.autoconfig(q))
}

func (s *Site) serveProfile(w http.ResponseWriter, r *http.Request, at place) {
	q, refused := s.asked(r, at)
	switch {
	case refused == nil && q.address.IsZero():
		refused = refuseNoAddress
		fallthrough
	case refused != nil:
		s.refuse(w, r, refused)
		return
	}
	w.Header().Set("Content-Disposition", `attachment; filename="mail.mobileconfig"`)
	write(w, "application/x-apple-aspen-config; charset=utf-8", s.profile(q.address))
}

// serveAutodiscover answers Outlook. What is no question gets a document that says so, with status 200, as Exchange does it.
func (s *Site) serveAutodiscover(w http.ResponseWriter, r *http.Request, at place) {
	if r.Method != http.MethodPost {
		s.writeXML(w, s.outlookRefusal(codeInvalid))
		return
	}
	address, problem, err := readRequest(r.Body)
	switch {
	case err != nil:
		s.refuse(w, r, refuseLarge)
		return
	case problem != 0:
		s.writeXML(w, s.outlookRefusal(problem))
		return
	case !s.Ports.complete():
		s.refuse(w, r, refuseNoMail)
		return
	}
	q, refused := s.about(r.Context(), at, address)
	switch {
	case refused == refuseAddress, refused == refuseNoAddress, refused == nil && q.address.IsZero():
		s.writeXML(w, s.outlookRefusal(codeInvalid))
	case refused != nil:
		s.refuse(w, r, refused)
	default:
		s.writeXML(w, s.outlook(q.address))
	}
}

// serveDiscover answers Outlook on a phone. Where it is asked with an address, that must be of a domain here.
func (s *Site) serveDiscover(w http.ResponseWriter, r *http.Request, at place) {
	address := parameter(r, "Email")
	if len(r.URL.Path) > len(discoverFolder) {
		address = path.Base(r.URL.Path) // /autodiscover/autodiscover.json/v1.0/ADDRESS
	}
	if _, refused := s.about(r.Context(), at, address); refused != nil && refused != refuseNoAddress {
		s.refuse(w, r, refused)
		return
	}
	status, answer := discover(parameter(r, "Protocol"), s.nameOf(at))
	body, err := json.Marshal(answer)
	if err != nil {
		s.refuse(w, r, s.failed(err))
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone reads nothing
}

func (s *Site) servePolicy(w http.ResponseWriter, r *http.Request, at place) {
	p, err := Policy(r.Context(), s.DNS, at.domain, at.policy, s.Hostname)
	s.tell(at.domain, err)
	switch {
	case isMismatch(err):
		s.refuse(w, r, refusePolicy)
	case err != nil: // senders keep the policy that they have: RFC 8461 section 3.3
		s.refuse(w, r, refuseNotNow)
	default:
		write(w, "text/plain; charset=utf-8", []byte(p.String()))
	}
}

// tell logs why a policy is not served, once until that changes. There are no more entries than domains here.
func (s *Site) tell(domain addr.Domain, err error) {
	name, reason := domain.ASCII(), ""
	if err != nil {
		reason = err.Error()
	}
	s.mu.Lock()
	known := s.told[name]
	s.told[name] = reason
	s.mu.Unlock()
	switch {
	case reason == known:
	case reason == "":
		s.Log.Info("MTA-STS policy served again", "domain", name)
	default:
		s.Log.Warn("MTA-STS policy not served", "domain", name, "err", reason)
	}
}

// serveFront sends people to the settings.
func (s *Site) serveFront(w http.ResponseWriter, _ *http.Request, _ place) {
	w.Header().Set("Location", "/settings")
	w.WriteHeader(http.StatusFound)
}

// pageURL is the settings page. It is under the name of this server, which is the one that surely has a certificate.
func (s *Site) pageURL(a addr.Address) string {
	u := url.URL{Scheme: "https", Host: s.Hostname, Path: "/settings"}
	if !a.IsZero() {
		u.RawQuery = url.Values{addressParameter: {a.String()}}.Encode()
	}
	return u.String()
}

// writeXML writes a document of ours; one that cannot be written is a bug.
func (s *Site) writeXML(w http.ResponseWriter, document any) {
	var b bytes.Buffer
	b.WriteString(xml.Header)
	e := xml.NewEncoder(&b)
	e.Indent("", "  ")
	if err := errors.Join(e.Encode(document), e.Close()); err != nil {
		panic(err)
	}
	b.WriteByte('\n')
	write(w, "text/xml; charset=utf-8", b.Bytes())
}

func write(w http.ResponseWriter, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // a client that is gone reads nothing
}
