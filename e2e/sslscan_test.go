package e2e

import (
	"encoding/xml"
	"net"
	"strings"
	"testing"
)

// sslscanReport is what sslscan says of one port.
type sslscanReport struct {
	Test struct {
		Protocols []struct {
			Type    string `xml:"type,attr"`
			Version string `xml:"version,attr"`
			Enabled string `xml:"enabled,attr"`
		} `xml:"protocol"`
		Ciphers []struct {
			Version  string `xml:"sslversion,attr"`
			Name     string `xml:"cipher,attr"`
			Bits     int    `xml:"bits,attr"`
			Strength string `xml:"strength,attr"`
		} `xml:"cipher"`
		Heartbleed []struct {
			Vulnerable string `xml:"vulnerable,attr"`
		} `xml:"heartbleed"`
		Compression struct {
			Supported string `xml:"supported,attr"`
		} `xml:"compression"`
	} `xml:"ssltest"`
}

// TestSSLScan holds every port with TLS against sslscan: nothing below TLS 1.2, and no weak cipher.
func TestSSLScan(t *testing.T) {
	sslscan := program(t, "sslscan")
	s := newServer(t)
	s.configure(t, map[string]string{`(?m)^https = \[\]$`: `https = ["127.0.0.1:0"]`})
	s.serve(t)
	for service, starttls := range map[string]string{"smtp": "--starttls-smtp", "submission": "--starttls-smtp", "submissions": "", "pop3": "--starttls-pop3", "pop3s": "", "https": ""} {
		t.Run(service, func(t *testing.T) {
			_, port, err := net.SplitHostPort(s.ports[service])
			if err != nil {
				t.Fatal(err)
			}
			args := []string{"--xml=-", "--sni-name=" + hostname, "--no-colour"}
			if starttls != "" {
				args = append(args, starttls)
			}
			var r sslscanReport
			text := finish(t, "", sslscan, append(args, "127.0.0.1:"+port)...)
			if err := xml.Unmarshal([]byte(text), &r); err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			checkScan(t, r)
		})
	}
}

func checkScan(t *testing.T, r sslscanReport) {
	t.Helper()
	enabled := map[string]bool{}
	for _, p := range r.Test.Protocols {
		if p.Enabled == "1" {
			enabled[p.Type+" "+p.Version] = true
		}
	}
	if len(enabled) != 2 || !enabled["tls 1.2"] || !enabled["tls 1.3"] {
		t.Errorf("versions: %v", enabled)
	}
	if len(r.Test.Ciphers) < 5 {
		t.Errorf("%d ciphers: the port was not looked at", len(r.Test.Ciphers))
	}
	for _, c := range r.Test.Ciphers {
		if c.Bits < 128 || c.Strength == "weak" || c.Strength == "null" || c.Strength == "anonymous" ||
			c.Version == "TLSv1.2" && !strings.HasPrefix(c.Name, "ECDHE-") {
			t.Errorf("%s takes %s, %d bits, %s", c.Version, c.Name, c.Bits, c.Strength)
		}
	}
	for _, h := range r.Test.Heartbleed {
		if h.Vulnerable != "0" {
			t.Error("vulnerable to Heartbleed")
		}
	}
	if r.Test.Compression.Supported == "1" {
		t.Error("compresses")
	}
}
