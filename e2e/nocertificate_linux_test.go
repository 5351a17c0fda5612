package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/internal/dane"
)

// setTLS replaces the [tls] table of the configuration.
func (s *server) setTLS(t *testing.T, lines ...string) {
	t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	before, after, found := bytes.Cut(text, []byte("[tls]\n"))
	_, rest, found2 := bytes.Cut(after, []byte("[log]\n"))
	if !found || !found2 {
		t.Fatalf("no [tls] before [log] in %s", text)
	}
	changed := string(before) + "[tls]\n" + strings.Join(lines, "\n") + "\n[log]\n" + string(rest)
	if err := os.WriteFile(s.config, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestWithoutCertificate runs the server while it cannot get one: mail comes in, encrypted with a key that DANE can know already; login
// ports say that there is no TLS yet; the commands say why, and a letter tells the operator.
func TestWithoutCertificate(t *testing.T) {
	s := newServer(t)
	secret := filepath.Join(t.TempDir(), "tsig")
	if err := os.WriteFile(secret, []byte("c2VjcmV0c2VjcmV0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.setTLS(t, `source = "acme"`, `email = "op@example.net"`, `challenge = "dns-01"`, `dns_provider = "rfc2136"`, `dns_server = "127.0.0.1:1"`,
		`dns_key_name = "postroom"`, fmt.Sprintf("dns_key_file = %q", secret))
	if out, code := s.try(t, "", "cert", "renew", hostname); code != 1 || !strings.Contains(out, "no certificate is managed for mail.example.org") {
		t.Errorf("before the first start: exit %d, %s", code, out)
	}
	s.serve(t)

	const why = "mail.example.org has no address in the DNS: publish an A or AAAA record that leads here"
	out, code := s.try(t, "", "cert", "renew", hostname)
	if code != 1 || !strings.Contains(out, "no new certificate of mail.example.org: "+why) {
		t.Errorf("renew: exit %d, %s", code, out)
	}
	var listed []struct {
		Name, State, Key, Reason string
		TLSA                     []string
		Expires                  *string
		NextTry                  *string `json:"next_try"`
	}
	if err := json.Unmarshal([]byte(s.run(t, "", "cert", "list", "--json")), &listed); err != nil {
		t.Fatal(err)
	}
	states := map[string]string{}
	for _, c := range listed {
		states[c.Name] = c.State
	}
	if fmt.Sprint(states) != "map[autoconfig.example.org:skipped autodiscover.example.org:skipped mail.example.org:failed mta-sts.example.org:skipped]" {
		t.Errorf("states %v", states)
	}
	host := listed[2]
	if host.Reason != why || host.Expires != nil || host.NextTry == nil || len(host.TLSA) != 1 {
		t.Errorf("listed %+v", host)
	}
	if table := s.run(t, "", "cert", "list"); !strings.Contains(table, why+"; failed at ") || !strings.Contains(table, ", next try at ") {
		t.Errorf("table:\n%s", table)
	}

	c, err := greet(s.ports["smtp"], &tls.Config{InsecureSkipVerify: true}) // as an opportunistic sender, who then looks at DANE
	if err != nil {
		t.Fatal(err)
	}
	reply, err := c.deliver(anna, letter)
	if err != nil || !strings.HasPrefix(reply, "250") {
		t.Errorf("delivered: %q, %v", reply, err)
	}
	c.close()
	chain := door{"smtp", s.ports["smtp"], "EHLO c.example\r\nSTARTTLS\r\n"}
	state, err := chain.greet(&tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	var digest []byte
	if _, err := fmt.Sscanf(host.TLSA[0], "3 1 1 %x", &digest); err != nil {
		t.Fatal(err)
	}
	record := []dane.TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: digest}}
	if got := dane.Verify(state.PeerCertificates, record, nil, state.PeerCertificates[0].NotBefore); got != dane.Verified {
		t.Errorf("DANE %s", got)
	}
	for _, d := range []struct {
		door
		want string
	}{
		{door{"submission", s.ports["submission"], "EHLO c.example\r\nSTARTTLS\r\n"}, "454 4.7.0 TLS is not available yet"},
		{door{"pop3", s.ports["pop3"], "STLS\r\n"}, "-ERR [SYS/TEMP] TLS is not available yet"},
		{door{"submissions", s.ports["submissions"], ""}, "tls: internal error"},
		{door{"pop3s", s.ports["pop3s"], ""}, "tls: internal error"},
	} {
		if _, err := d.greet(&tls.Config{InsecureSkipVerify: true}); err == nil || !strings.Contains(err.Error(), d.want) {
			t.Errorf("%s: %v, want %q", d.name, err, d.want)
		}
	}

	s.run(t, "", "cert", "add", "Mail.Customer.example")
	if table := s.run(t, "", "cert", "list"); !strings.Contains(table, "mail.customer.example") {
		t.Errorf("table:\n%s", table)
	}
	s.run(t, "", "cert", "remove", "mail.customer.example")
	if out, code := s.try(t, "", "cert", "remove", hostname); code != 1 || !strings.Contains(out, "mail.example.org was not added") {
		t.Errorf("remove: exit %d, %s", code, out)
	}
	rolled := strings.TrimSpace(s.run(t, "", "cert", "roll"))
	if strings.Count(rolled, "_25._tcp.mail.example.org. 3600 IN TLSA 3 1 1 ") != 2 || !strings.Contains(rolled, host.TLSA[0]) {
		t.Errorf("roll: %s", rolled)
	}
	if code := s.stop(t); code != 0 {
		t.Errorf("stopped with %d", code)
	}

	s.setTLS(t, `source = "local"`)
	s.serve(t)
	box, err := fetchAll(s.ports["pop3s"], s.tls(t), anna, password)
	if err != nil {
		t.Fatal(err)
	}
	if len(box) != 2 || !bytes.Contains(box[0], []byte("Subject: [postroom] No certificate for mail.example.org\r\n")) || !bytes.Contains(box[0], []byte(why)) {
		t.Errorf("%d letters in the mailbox:\n%s", len(box), bytes.Join(box, []byte("\n---\n")))
	}
	if out, code := s.try(t, "", "cert", "renew", hostname); code != 1 || !strings.Contains(out, `tls.source = "local", where nothing is ordered`) {
		t.Errorf("exit %d, %s", code, out)
	}
	if table := s.run(t, "", "cert", "list"); !strings.Contains(table, "Postroom local authority of mail.example.org") {
		t.Errorf("table:\n%s", table)
	}
}
