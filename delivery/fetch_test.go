package delivery

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/mailtest"
)

const goodPolicy = "version: STSv1\r\nmode: enforce\r\nmx: mx.remote.example\r\nmax_age: 604800\r\n"

// policyHost answers one HTTPS request in its own way.
func policyHost(cert *tls.Certificate, answer func(c io.Writer)) server {
	return func(t *testing.T, c net.Conn) {
		secure := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}})
		r, err := http.ReadRequest(bufio.NewReader(secure))
		if err != nil {
			return // the client did not like the certificate
		}
		if r.Host != "mta-sts.remote.example" || r.URL.Path != "/.well-known/mta-sts.txt" || r.Method != http.MethodGet {
			t.Errorf("asked for %s %s of %s", r.Method, r.URL, r.Host)
		}
		answer(secure)
		_ = secure.Close()
	}
}

func says(text string) func(io.Writer) {
	return func(w io.Writer) { _, _ = io.WriteString(w, text) } // the client may have had enough
}

// fillTheWire writes until the client has had enough.
func fillTheWire(head string) func(io.Writer) {
	return func(w io.Writer) {
		_, err := io.WriteString(w, head)
		for block := strings.Repeat("x", 4096); err == nil; {
			_, err = io.WriteString(w, block)
		}
	}
}

func trickle(head string) func(io.Writer) {
	return func(w io.Writer) {
		_, err := io.WriteString(w, head)
		for err == nil {
			time.Sleep(time.Second)
			_, err = io.WriteString(w, "x")
		}
	}
}

func TestFetch(t *testing.T) {
	good, roots := mailtest.Certificate(t, "mta-sts.remote.example")
	apex, _ := mailtest.Certificate(t, "remote.example")
	stranger, _ := mailtest.Certificate(t, "mta-sts.remote.example")
	old := expiredCertificate(t, "mta-sts.remote.example")
	roots.AddCert(apex.Leaf)
	roots.AddCert(old.Leaf)
	const ok, plain = "HTTP/1.1 200 OK\r\n", "Content-Type: text/plain\r\n"
	for _, tc := range []struct {
		name   string
		cert   *tls.Certificate
		answer func(io.Writer)
		want   string // "" for an error
	}{
		{"good", &good, says(ok + plain + "\r\n" + goodPolicy), goodPolicy},
		{"with a charset", &good, says(ok + "Content-Type: text/plain; charset=utf-8\r\n\r\n" + goodPolicy), goodPolicy},
		{"64 KiB", &good, says(ok + plain + "\r\n" + strings.Repeat("x", 64<<10)), strings.Repeat("x", 64<<10)},
		{"one octet more", &good, says(ok + plain + "\r\n" + strings.Repeat("x", 64<<10+1)), ""},
		{"one gigabyte", &good, fillTheWire(ok + plain + "Content-Length: 1073741824\r\n\r\n"), ""},
		{"without an end", &good, fillTheWire(ok + plain + "\r\n"), ""},
		{"a header without an end", &good, fillTheWire(ok + "X: "), ""},
		{"cut", &good, says(ok + plain + "Content-Length: 500\r\n\r\n" + goodPolicy), ""},
		{"redirect", &good, says("HTTP/1.1 301 Moved\r\nLocation: https://mta-sts.remote.example/other\r\nContent-Length: 0\r\n\r\n"), ""},
		{"404", &good, says("HTTP/1.1 404 No\r\n" + plain + "\r\n" + goodPolicy), ""},
		{"206", &good, says("HTTP/1.1 206 Part\r\n" + plain + "\r\n" + goodPolicy), ""},
		{"a web page", &good, says(ok + "Content-Type: text/html\r\n\r\n" + goodPolicy), ""},
		{"no media type", &good, says(ok + "\r\n" + goodPolicy), ""},
		{"compressed", &good, says(ok + "Content-Type: text/plain\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b"), "\x1f\x8b"},
		{"no HTTP", &good, says("220 mx\r\n"), ""},
		{"silence", &good, func(io.Writer) { time.Sleep(2 * fetchTimeout) }, ""},
		{"a header that trickles in", &good, trickle(ok + "X: "), ""},
		{"a policy that trickles in", &good, trickle(ok + plain + "\r\n"), ""},
		{"certificate of the domain only", &apex, says(ok + plain + "\r\n" + goodPolicy), ""},
		{"certificate from nobody", &stranger, says(ok + plain + "\r\n" + goodPolicy), ""},
		{"expired certificate", &old, says(ok + plain + "\r\n" + goodPolicy), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.options.Roots = roots
				if err := w.zone.Add("mta-sts.remote.example. 300 IN A 192.0.2.80"); err != nil {
					t.Fatal(err)
				}
				w.serve("192.0.2.80", policyHost(tc.cert, tc.answer))
				d, end := w.deliverer()
				start := time.Now()
				got, err := newFetcher(d.Options).fetch(t.Context(), "remote.example")
				if string(got) != tc.want || (err == nil) != (tc.want != "") {
					t.Errorf("got %.100q, %v", got, err)
				}
				if took := time.Since(start); took > fetchTimeout+5*time.Second { // closing TLS may take five seconds
					t.Errorf("it took %v", took)
				}
				if n := w.count(); n != 1 {
					t.Errorf("%d calls", n)
				}
				end()
			})
		})
	}
}

// TestFetchNoHost shows a policy host that does not exist, or does not answer.
func TestFetchNoHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d, end := w.deliverer()
		f := newFetcher(d.Options)
		if _, err := f.fetch(t.Context(), "remote.example"); err == nil {
			t.Error("no host, and no error")
		}
		if err := w.zone.Add("mta-sts.other.example. 300 IN A 192.0.2.81"); err != nil {
			t.Fatal(err)
		}
		w.serve("192.0.2.81", hole)
		if _, err := f.fetch(t.Context(), "other.example"); err == nil {
			t.Error("no answer, and no error")
		}
		end()
	})
}
