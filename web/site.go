package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/mtasts"
)

// Domains tells which domains are served here, and with which MTA-STS policy.
type Domains interface {
	Served(ctx context.Context, name addr.Domain) (policy mtasts.Mode, served bool, err error)
}

// Options are what a site works with. Hostname, Domains and DNS are required.
type Options struct {
	Hostname string
	Ports    Ports
	Domains  Domains
	DNS      Exchangers
	// Challenges answers, before all else on the plain port, what a certificate authority asks there (RFC 8555 section 8.3); nil:
	// nothing is asked.
	Challenges func(next http.Handler) http.Handler
	Log        *slog.Logger
}

// Site is what the public ports answer.
type Site struct {
	Options
	host addr.Domain

	mu   sync.Mutex // guards told
	told map[string]string
}

// NewSite returns a site.
func NewSite(o Options) (*Site, error) {
	host, err := addr.ParseDomain(o.Hostname)
	if err != nil || o.Domains == nil || o.DNS == nil {
		return nil, errors.New("web: hostname, domains and DNS are required")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Hostname = host.ASCII()
	return &Site{Options: o, host: host, told: map[string]string{}}, nil
}

// role is what a name in a request stands for.
type role uint8

const (
	roleHost         role = 1 << iota // this server
	roleDomain                        // a domain that is served here
	roleAutoconfig                    // autoconfig.DOMAIN
	roleAutodiscover                  // autodiscover.DOMAIN
	rolePolicy                        // mta-sts.DOMAIN

	roleSetup = roleHost | roleDomain | roleAutoconfig | roleAutodiscover
)

var prefixes = []struct {
	label string
	role  role
}{
	{"autoconfig.", roleAutoconfig}, {"autodiscover.", roleAutodiscover}, {"mta-sts.", rolePolicy},
}

// place is a name that this server answers for.
type place struct {
	role   role
	domain addr.Domain // zero for the host itself, unless it is a domain, too
	policy mtasts.Mode
}

// errNobody says that the name in a request is nobody's here.
var errNobody = errors.New("web: not served here")

// find returns what the Host field of a request names. A port in it does not matter.
func (s *Site) find(ctx context.Context, host string) (place, error) {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	name, err := addr.ParseDomain(host)
	if err != nil {
		return place{}, errNobody
	}
	for _, p := range prefixes {
		rest, ok := strings.CutPrefix(name.ASCII(), p.label)
		if !ok {
			continue
		}
		if domain, err := addr.ParseDomain(rest); err == nil {
			if policy, served, err := s.Domains.Served(ctx, domain); served || err != nil {
				return place{p.role, domain, policy}, err
			}
		}
	}
	policy, served, err := s.Domains.Served(ctx, name)
	switch {
	case err != nil:
		return place{}, err
	case name == s.host && served:
		return place{roleHost, name, policy}, nil
	case name == s.host:
		return place{role: roleHost}, nil
	case served:
		return place{roleDomain, name, policy}, nil
	}
	return place{}, errNobody
}

// nameOf is the name under which a place is reached.
func (s *Site) nameOf(at place) string {
	if at.role == roleHost {
		return s.Hostname
	}
	name := at.domain.ASCII()
	for _, p := range prefixes {
		if p.role == at.role {
			name = p.label + name
		}
	}
	return name
}

// question is whom a request is about.
type question struct {
	domain  addr.Domain
	address addr.Address // zero: anybody of the domain
}

// about finds out whom a request is about: the address in it, else the domain that its host names. Whether there is such
// an address is asked of nobody.
func (s *Site) about(ctx context.Context, at place, address string) (question, *refusal) {
	if address == "" || address == anyAddress {
		if at.domain.IsZero() {
			return question{}, refuseNoAddress
		}
		return question{domain: at.domain}, nil
	}
	a, err := addr.Parse(address)
	if err != nil || a.Domain.IsZero() || a.Local == "" {
		return question{}, refuseAddress
	}
	_, served, err := s.Domains.Served(ctx, a.Domain)
	switch {
	case err != nil:
		return question{}, s.failed(err)
	case !served:
		return question{}, refuseDomain
	}
	return question{a.Domain, a}, nil
}

// refusal is what a client reads instead of an answer.
type refusal struct {
	status int
	text   string
}

var (
	refuseUnknown   = &refusal{http.StatusNotFound, "Nothing is served under this name."}
	refusePath      = &refusal{http.StatusNotFound, "There is no such page."}
	refuseMethod    = &refusal{http.StatusMethodNotAllowed, "This page cannot be used in this way."}
	refuseAddress   = &refusal{http.StatusBadRequest, "This is not a mail address."}
	refuseNoAddress = &refusal{http.StatusBadRequest, "Say for which mail address: add ?emailaddress=NAME@DOMAIN."}
	refuseDomain    = &refusal{http.StatusNotFound, "This server has no mail for this domain."}
	refuseNoMail    = &refusal{http.StatusNotFound, "This server takes no mail programs."}
	refusePolicy    = &refusal{http.StatusNotFound, "There is no policy."}
	refuseLarge     = &refusal{http.StatusRequestEntityTooLarge, "The request is too large."}
	refuseNotNow    = &refusal{http.StatusServiceUnavailable, "This cannot be told now. Try again later."}
)

// failed logs what went wrong here, and returns what the client may know of it.
func (s *Site) failed(err error) *refusal {
	s.Log.Error("request failed", "err", err)
	return refuseNotNow
}

// page is a path and how it is answered.
type page struct {
	roles role
	plain bool // over http, too: mail programs ask there, and what they learn is no secret
	post  bool // a body is taken
	run   func(*Site, http.ResponseWriter, *http.Request, place)
}

// pages are all there are, by path in lower case: Outlook writes it in several ways.
var pages = map[string]page{
	"/":                     {roles: roleSetup, run: (*Site).serveFront},
	"/settings":             {roles: roleSetup, run: (*Site).servePage},
	"/settings.css":         {roles: roleSetup, run: (*Site).serveStyle},
	"/profile.mobileconfig": {roles: roleSetup, run: (*Site).serveProfile},
	"/mail/config-v1.1.xml": {roles: roleSetup, plain: true, run: (*Site).serveAutoconfig},
	"/.well-known/autoconfig/mail/config-v1.1.xml": {roles: roleSetup, plain: true, run: (*Site).serveAutoconfig},
	"/autodiscover/autodiscover.xml":               {roles: roleSetup, post: true, run: (*Site).serveAutodiscover},
	"/autodiscover/autodiscover.json":              {roles: roleSetup, run: (*Site).serveDiscover},
	"/.well-known/mta-sts.txt":                     {roles: rolePolicy, run: (*Site).servePolicy},
}

// discoverFolder begins the paths that end with an address.
const discoverFolder = "/autodiscover/autodiscover.json/"

func pageOf(path string) (page, bool) {
	path = strings.ToLower(path)
	if strings.HasPrefix(path, discoverFolder) {
		path = strings.TrimSuffix(discoverFolder, "/")
	}
	p, ok := pages[path]
	return p, ok
}

// requestTime is how long an answer may take to be found.
const requestTime = 15 * time.Second

// HTTPS answers on the port with TLS.
func (s *Site) HTTPS() http.Handler {
	return s.guard(func(w http.ResponseWriter, r *http.Request, at place, p page) {
		// RFC 6797 section 7.2: over TLS only. Names below this one are not ours to speak for.
		w.Header().Set("Strict-Transport-Security", "max-age=15552000")
		p.run(s, w, r, at)
	})
}

// HTTP answers on the port without: what a certificate authority asks, what mail programs ask there, and else where to go.
func (s *Site) HTTP() http.Handler {
	h := s.guard(func(w http.ResponseWriter, r *http.Request, at place, p page) {
		if p.plain {
			p.run(s, w, r, at)
			return
		}
		s.redirect(w, r, at)
	})
	if s.Challenges != nil {
		return s.Challenges(h)
	}
	return h
}

// redirect sends a client to the port with TLS. Outlook knows 302: MS-OXDSCLI section 3.2.5.
func (s *Site) redirect(w http.ResponseWriter, r *http.Request, at place) {
	status := http.StatusFound
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		status = http.StatusPermanentRedirect
	}
	to := url.URL{Scheme: "https", Host: s.nameOf(at), Path: r.URL.Path}
	if !strings.ContainsFunc(r.URL.RawQuery, func(c rune) bool { return c <= ' ' || c >= 0x7f }) { // what is no query is not passed on
		to.RawQuery = r.URL.RawQuery
	}
	w.Header().Set("Location", to.String())
	w.WriteHeader(status)
}

// guard is what stands before every page: known names, known paths and methods, bounded bodies and times.
func (s *Site) guard(run func(http.ResponseWriter, *http.Request, place, page)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTime)
		defer cancel()
		r = r.WithContext(ctx)
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer") // the address is in the URL
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		at, err := s.find(ctx, r.Host)
		p, ok := pageOf(r.URL.Path)
		switch {
		case errors.Is(err, errNobody):
			s.refuse(w, r, refuseUnknown)
		case err != nil:
			s.refuse(w, r, s.failed(err))
		case !ok || p.roles&at.role == 0:
			s.refuse(w, r, refusePath)
		case r.Method != http.MethodGet && r.Method != http.MethodHead && !(p.post && r.Method == http.MethodPost):
			allow := "GET, HEAD"
			if p.post {
				allow += ", POST"
			}
			h.Set("Allow", allow)
			s.refuse(w, r, refuseMethod)
		default:
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			run(w, r, at, p)
		}
	})
}

// refuse answers with a sentence. It never repeats what was asked.
func (s *Site) refuse(w http.ResponseWriter, r *http.Request, why *refusal) {
	s.Log.Debug("request refused", "method", r.Method, "host", r.Host, "path", r.URL.Path, "status", why.status, "remote", remote(r))
	if why.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "60")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(why.status)
	_, _ = w.Write([]byte(why.text + "\n")) // a client that is gone reads nothing
}

// remote is where a request came from.
func remote(r *http.Request) string {
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return a.Addr().Unmap().String()
	}
	return ""
}
