package web

import (
	"bytes"
	_ "embed" // the page and its style
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"rsc.io/qr"
)

//go:embed settings.html
var pageText string

//go:embed settings.css
var styleText []byte

var pageTemplate = template.Must(template.New("settings").Parse(pageText))

// shown is what the settings page shows.
type shown struct {
	Host               string
	Address            string // "" for anybody
	Domain             string
	Incoming, Outgoing endpoint
	Profile            string
	QR                 *square
}

// Security is the encryption in the words that most mail programs have for it.
func (e endpoint) Security() string {
	if e.StartTLS {
		return "STARTTLS"
	}
	return "SSL/TLS"
}

// Other is the encryption in the words of the other mail programs.
func (e endpoint) Other() string {
	if e.StartTLS {
		return "TLS"
	}
	return "SSL"
}

// servePage shows the settings, with those of one address where it is given.
func (s *Site) servePage(w http.ResponseWriter, r *http.Request, at place) {
	v := shown{Host: s.Hostname, Incoming: s.Ports.incoming(s.Hostname), Outgoing: s.Ports.outgoing(s.Hostname)}
	q, refused := s.asked(r, at)
	switch {
	case refused == refuseNoAddress: // the page asks for it
	case refused != nil:
		s.refuse(w, r, refused)
		return
	case !q.address.IsZero():
		v.Address = q.address.Unicode()
		v.Profile = "/profile.mobileconfig?" + url.Values{addressParameter: {q.address.String()}}.Encode()
		fallthrough
	default:
		v.Domain = q.domain.Unicode()
	}
	v.QR = draw(s.pageURL(q.address))
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, v); err != nil {
		s.refuse(w, r, s.failed(err))
		return
	}
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	write(w, "text/html; charset=utf-8", b.Bytes())
}

func (s *Site) serveStyle(w http.ResponseWriter, _ *http.Request, _ place) {
	write(w, "text/css; charset=utf-8", styleText)
}

// square is a QR code: a path of an SVG image with so many units a side.
type square struct {
	Side int
	Path string
}

// quiet is the margin that readers need, in units.
const quiet = 4

// draw makes the QR code of a text, or nil where the text is too long for one.
func draw(text string) *square {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return nil
	}
	var b strings.Builder
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			run := 0
			for code.Black(x+run, y) {
				run++
			}
			if run > 0 {
				n := strconv.Itoa(run)
				b.WriteString("M" + strconv.Itoa(x+quiet) + " " + strconv.Itoa(y+quiet) + "h" + n + "v1h-" + n + "z")
				x += run
			}
		}
	}
	return &square{code.Size + 2*quiet, b.String()}
}
