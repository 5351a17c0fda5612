package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/smtp"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// author is an alias of anna's: the login of who hands a letter in stands nowhere in it.
const author = "author@" + domain

// TestPostfix sends letters to Debian's Postfix: in its maildirs, its log and its header fields stands how they came, in our log and
// queue how they left.
func TestPostfix(t *testing.T) {
	for _, name := range []string{"ip", "nsenter", "postfix", "postmap", "opendkim", "dovecot"} {
		program(t, name)
	}
	if !enterWorld(t) {
		return
	}
	w := newWorld(t)
	p := startPostfix(t, w, append(w.settle(t), relayed))
	s := newServerAsking(t, w.resolver, "dns.trust_ad = true")
	s.run(t, "", "alias", "add", author, anna)
	s.relay(t, "not "+relayPassword)
	keys := s.keys(t)
	for name, record := range keys {
		w.zone.AddTXT(name, record)
	}
	s.serve(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("postroom:\n%s", s.log)
		}
	})
	for _, n := range neighbours {
		t.Run(n.name, func(t *testing.T) { n.check(t, s, p) })
	}
	t.Run("put off", func(t *testing.T) { checkPutOff(t, s, p) })
	t.Run("refused", func(t *testing.T) { checkRefused(t, s, p) })
	t.Run("smarthost", func(t *testing.T) { checkSmarthost(t, s, p) })
	t.Run("only what may arrive", func(t *testing.T) { checkArrivals(t, p) })
	t.Run("signatures", func(t *testing.T) { checkSignatures(t, s, p, keys) })
	t.Run("nothing of the submitter", func(t *testing.T) { checkPrivacy(t, p) })
	t.Run("rotation", func(t *testing.T) { checkRotation(t, w, s, p, keys) })
}

// submit hands a letter in, as a mail program at home does.
func (s *server) submit(t *testing.T, to string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	home := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(homeIP)}, Timeout: timeout}
	conn, err := home.Dial("tcp", s.ports["submission"])
	must(err)
	must(conn.SetDeadline(time.Now().Add(timeout)))
	c, err := smtp.NewClient(conn, "localhost")
	must(err)
	defer c.Close()
	must(c.Hello("laptop.home.example"))
	must(c.StartTLS(s.tls(t)))
	must(c.Auth(smtp.PlainAuth("", anna, password, "localhost")))
	must(c.Mail(author))
	must(c.Rcpt(to))
	body, err := c.Data()
	must(err)
	_, err = fmt.Fprintf(body, "From: Author <%s>\r\nTo: %s\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n.dot\r\nGr\xc3\xbc\xc3\x9fe \t\r\n\r\n", author, to)
	must(err)
	must(body.Close())
	must(c.Quit())
}

// attempt is what the log and the queue tell of one.
type attempt struct {
	Event, Msg, From, To             string // in the log
	Reply, Status, Host, TLS, Policy string
	Remote                           bool
	Attempts                         int
}

// logged waits for the line that says how the nth attempt for a recipient ended, which must be the event.
func (s *server) logged(t *testing.T, to string, n int, event string) (a attempt) {
	t.Helper()
	await(t, fmt.Sprintf("attempt %d for %s", n, to), func() bool {
		for line := range strings.Lines(s.log.String()) {
			a = attempt{}
			if json.Unmarshal([]byte(line), &a) == nil && a.To == "<"+to+">" && a.Attempts == n {
				return true
			}
		}
		return false
	})
	if a.Event != event {
		t.Fatalf("attempt %d for %s: %s, %q, want %s", n, to, a.Event, a.Reply, event)
	}
	return a
}

// queued is what the queue says of the last attempt for a letter with one recipient.
func (s *server) queued(t *testing.T, id string) attempt {
	t.Helper()
	var shown []struct {
		State string
		Tries []attempt
	}
	text := s.run(t, "", "queue", "show", id, "--json")
	if err := json.Unmarshal([]byte(text), &shown); err != nil {
		t.Fatal(err)
	}
	if len(shown) != 1 || shown[0].State != "waiting" || len(shown[0].Tries) == 0 {
		t.Fatalf("the queue shows\n%s", text)
	}
	return shown[0].Tries[len(shown[0].Tries)-1]
}

func (n neighbour) check(t *testing.T, s *server, p *postfix) {
	to := "zoe@" + n.domain()
	s.submit(t, to)
	if n.reason != "" {
		n.checkKept(t, s, s.logged(t, to, 1, "deferred"))
		return
	}
	sent := s.logged(t, to, 1, "sent")
	if sent.Policy != n.policy || sent.Host != n.exchanger() || (sent.TLS == "") != n.clear {
		t.Errorf("sent to %s with %q under %q, want %s, clear text %t, %q", sent.Host, sent.TLS, sent.Policy, n.exchanger(), n.clear, n.policy)
	}
	checkReceived(t, p.arrived(t, n.domain()), sent)
}

// received is Postfix's field for a letter from us.
var received = regexp.MustCompile(`^Received: from mail\.example\.org \(mail\.example\.org \[198\.51\.100\.1\]\)` +
	`(?: \(using (TLSv\S+) with cipher (\S+) .*?\) \(No client certificate requested\))? by postfix\.example \(Postfix\) with (\S+) id (\w+) `)

// checkReceived compares what Postfix and we say about the same delivery.
func checkReceived(t *testing.T, letter []byte, sent attempt) {
	t.Helper()
	field := unfolded(t, letter, "Received")[0]
	m := received.FindStringSubmatch(field)
	if m == nil {
		t.Fatalf("Postfix says %q", field)
	}
	if theirs := strings.TrimSpace(strings.Replace(m[1], "TLSv", "TLS ", 1) + " " + m[2]); theirs != sent.TLS {
		t.Errorf("Postfix says %q, we say %q, in\n%s", theirs, sent.TLS, field)
	}
	if (m[3] == "ESMTP") != (sent.TLS == "") {
		t.Errorf("the letter came with %s, we say %q", m[3], sent.TLS)
	}
	if !strings.HasPrefix(sent.Reply, "250 2.0.0 Ok: ") || !strings.HasSuffix(sent.Reply, " queued as "+m[4]) {
		t.Errorf("Postfix's reply is %q, and its id %s", sent.Reply, m[4])
	}
	if from := unfolded(t, letter, "Return-Path"); sent.From != "<"+author+">" || !slices.Equal(from, []string{"Return-Path: <" + author + ">"}) {
		t.Errorf("the envelope's sender is %s here, %q there", sent.From, from)
	}
}

// unfolded are the fields of a name, each on one line.
func unfolded(t *testing.T, letter []byte, name string) (all []string) {
	t.Helper()
	header, _, found := bytes.Cut(letter, []byte("\r\n\r\n"))
	if !found {
		t.Fatalf("no body in\n%s", letter)
	}
	header = regexp.MustCompile(`\r\n[ \t]+`).ReplaceAll(header, []byte(" "))
	for line := range strings.SplitSeq(string(header), "\r\n") {
		if strings.HasPrefix(line, name+":") {
			all = append(all, line)
		}
	}
	if len(all) == 0 {
		t.Fatalf("no %s in\n%s", name, letter)
	}
	return all
}

// checkKept checks that a letter waits, and that the reason names what the policy asks for.
func (n neighbour) checkKept(t *testing.T, s *server, deferred attempt) {
	t.Helper()
	for where, a := range map[string]attempt{"log": deferred, "queue": s.queued(t, deferred.Msg)} {
		if a.Policy != n.policy || a.Reply != n.reason || a.Host != n.exchanger() || a.Remote {
			t.Errorf("the %s tells %q of %s under %q, want %q of %s under %q", where, a.Reply, a.Host, a.Policy, n.reason, n.exchanger(), n.policy)
		}
	}
}

// checkPutOff: Postfix puts a recipient off, and takes it once its table is changed. Starting Postfix anew ends the connection that
// is kept for the next letter.
func checkPutOff(t *testing.T, s *server, p *postfix) {
	const to = "later@opportunistic.example"
	s.submit(t, to)
	a := s.queued(t, s.logged(t, to, 1, "deferred").Msg)
	if want := "450 4.7.1 <" + to + ">: Recipient address rejected: come back later"; a.Reply != want || !a.Remote || a.Status != "4.7.1" {
		t.Errorf("the queue shows %q (%s), want %q", a.Reply, a.Status, want)
	}
	if theirs := p.awaitLog(t, `reject: RCPT from \S+ (450 [^;]*); from=<`+author+`> to=<`+to+`>`); theirs != a.Reply {
		t.Errorf("Postfix logs %q, the queue shows %q", theirs, a.Reply)
	}
	p.stop(t)
	p.access(t, "")
	p.startMaster(t)
	s.run(t, "", "queue", "retry", "--destination", "opportunistic.example")
	sent := s.logged(t, to, 2, "sent")
	var letter []byte
	await(t, "a letter to "+to, func() bool {
		for _, letter = range p.letters(t, "opportunistic.example") {
			if bytes.Contains(letter, []byte("Delivered-To: "+to+"\r\n")) {
				return true
			}
		}
		return false
	})
	checkReceived(t, letter, sent)
}

// checkRefused: Postfix does not know a recipient, and the author reads what it said.
func checkRefused(t *testing.T, s *server, p *postfix) {
	const to = "nobody@opportunistic.example"
	s.submit(t, to)
	bounced := s.logged(t, to, 1, "bounced")
	reply := p.awaitLog(t, `reject: RCPT from \S+ (550 [^;]*); from=<`+author+`> to=<`+to+`>`)
	if bounced.Reply != reply {
		t.Errorf("we log %q, Postfix %q", bounced.Reply, reply)
	}
	got, err := fetchAll(s.ports["pop3s"], s.tls(t), anna, password)
	if err != nil || len(got) != 1 {
		t.Fatalf("%d letters, %v; want the bounce", len(got), err)
	}
	for _, want := range []string{"Return-Path: <>\r\n", "Final-Recipient: rfc822; " + to + "\r\nAction: failed\r\nStatus: 5.1.1\r\n" +
		"Remote-MTA: dns; mx.opportunistic.example\r\nDiagnostic-Code: smtp; " + reply + "\r\n"} {
		if !bytes.Contains(got[0], []byte(want)) {
			t.Errorf("%q is not in\n%s", want, got[0])
		}
	}
}

// relay has postroom log in at the smarthost with a password.
func (s *server) relay(t *testing.T, password string) {
	t.Helper()
	s.run(t, password+"\n", "relay", "set", relayHost, "--port", "587", "--login", relayLogin, "--destination", relayed)
}

// checkSmarthost logs in at Postfix: first with a wrong password, then with the right one.
func checkSmarthost(t *testing.T, s *server, p *postfix) {
	const to = "zoe@" + relayed
	s.submit(t, to)
	a := s.queued(t, s.logged(t, to, 1, "deferred").Msg)
	if !strings.HasPrefix(a.Reply, "535 5.7.8 Error: authentication failed") || !a.Remote || a.Host != relayHost || a.Policy != "relay" ||
		!strings.HasPrefix(a.TLS, "TLS 1.3") {
		t.Errorf("with a wrong password, the queue shows %+v", a)
	}
	p.awaitLog(t, `warning: (mail\.example\.org\[198\.51\.100\.1\]): SASL PLAIN authentication failed`)

	s.relay(t, relayPassword)
	s.run(t, "", "queue", "retry", "--destination", relayed)
	sent := s.logged(t, to, 2, "sent")
	if sent.Host != relayHost || sent.Policy != "relay" {
		t.Errorf("sent to %s under %q", sent.Host, sent.Policy)
	}
	checkReceived(t, p.arrived(t, relayed), sent)
	id := p.awaitLog(t, `(\w+): client=\S+, sasl_method=PLAIN, sasl_username=`+relayLogin+`\n`)
	if !strings.HasSuffix(sent.Reply, " queued as "+id) {
		t.Errorf("Postfix's reply is %q, the login was for %s", sent.Reply, id)
	}
}

// checkArrivals: what a policy forbids has left no trace at Postfix, not even of its envelope.
func checkArrivals(t *testing.T, p *postfix) {
	log := p.logged(t)
	for _, n := range neighbours {
		if n.reason == "" {
			continue
		}
		if all := p.letters(t, n.domain()); len(all) > 0 || strings.Contains(log, "@"+n.domain()) {
			t.Errorf("%s: %d letters arrived; see Postfix's log", n.domain(), len(all))
		}
	}
}

// everywhere runs check for each letter that arrived at Postfix.
func (p *postfix) everywhere(t *testing.T, check func(letter []byte)) {
	t.Helper()
	n := 0
	for _, d := range p.domains {
		for _, letter := range p.letters(t, d) {
			check(letter)
			n++
		}
	}
	if want := 7; n != want { // five neighbours, what was put off, what went through the smarthost
		t.Errorf("%d letters arrived, want %d", n, want)
	}
}

// checkSignatures: opendkim, dkimpy and we find both signatures good.
func checkSignatures(t *testing.T, s *server, p *postfix, keys map[string]string) {
	p.everywhere(t, func(letter []byte) {
		results := unfolded(t, letter, "Authentication-Results")
		for _, algorithm := range []string{"rsa-sha256", "ed25519-sha256"} {
			pass := regexp.MustCompile(`^Authentication-Results: postfix\.example;.* dkim=pass (?:\([^)]*\) )?header\.d=` +
				regexp.QuoteMeta(domain) + ` [^;]*header\.a=` + algorithm)
			if len(results) != 1 || !pass.MatchString(results[0]) {
				t.Errorf("opendkim finds no good %s signature: %q in\n%s", algorithm, results, letter)
			}
		}
		if n := s.signed(t, letter); n != 2 {
			t.Errorf("we find %d good signatures, want 2, in\n%s", n, letter)
		}
	})
	t.Run("dkimpy", func(t *testing.T) {
		python := startPython(t)
		p.everywhere(t, func(letter []byte) {
			for name, record := range keys {
				a := python.ask(t, pythonRequest{Do: "verify", Letter: letter, Keys: map[string]string{name: record}})
				if !a.Passes {
					t.Errorf("dkimpy finds no good signature with the key %s: %s, in\n%s", name, a.Problem, letter)
				}
			}
		})
	})
}

// checkPrivacy: a letter tells neither where it was written nor who logged in, here or at the smarthost.
func checkPrivacy(t *testing.T, p *postfix) {
	p.everywhere(t, func(letter []byte) {
		for _, never := range []string{homeIP, "127.0.0.1", "laptop", "home.example", "localhost", anna, password, relayLogin} {
			if bytes.Contains(letter, []byte(never)) {
				t.Errorf("%q arrives in\n%s", never, letter)
			}
		}
		if n := len(unfolded(t, letter, "Received")); n != 2 {
			t.Errorf("%d Received fields, want Postfix's and ours, in\n%s", n, letter)
		}
	})
}

// checkRotation: new keys sign once the name servers show both, and letters verify before and after.
func checkRotation(t *testing.T, w *world, s *server, p *postfix, old map[string]string) {
	w.records(t, domain+". 60 IN NS ns."+domain+".", "ns."+domain+". 60 IN A "+ourIP)
	s.run(t, "", "dkim", "rotate", domain)
	if out, code := s.try(t, "", "dkim", "rotate", domain); code != 1 || !strings.Contains(out, "not published everywhere") {
		t.Fatalf("nothing is published: exit %d\n%s", code, out)
	}
	fresh := s.keys(t)
	published := 0
	for name, record := range fresh {
		if _, known := old[name]; known {
			continue
		}
		if published++; published == 2 {
			if out, code := s.try(t, "", "dkim", "rotate", domain); code != 1 {
				t.Errorf("one of two is published: exit %d\n%s", code, out)
			}
		}
		w.zone.AddTXT(name, record)
	}
	if out, code := s.try(t, "", "dkim", "rotate", domain); code != 0 || published != 2 {
		t.Fatalf("%d keys are published: exit %d\n%s", published, code, out)
	}
	await(t, "a letter that is signed with the new keys", func() bool { // the server hears of them within a second
		before := p.letters(t, "opportunistic.example")
		s.submit(t, "zoe@opportunistic.example")
		letter := p.next(t, "opportunistic.example", before)
		for name := range old {
			selector, _, _ := strings.Cut(name, ".")
			if bytes.Contains(letter, []byte("s="+selector+";")) {
				return false
			}
		}
		if n := s.signed(t, letter); n != 2 {
			t.Errorf("we find %d good signatures, want 2, in\n%s", n, letter)
		}
		for _, algorithm := range []string{"rsa-sha256", "ed25519-sha256"} {
			if results := strings.Join(unfolded(t, letter, "Authentication-Results"), "\n"); !strings.Contains(results, "header.a="+algorithm) || strings.Contains(results, "dkim=fail") {
				t.Errorf("opendkim says %s", results)
			}
		}
		return true
	})
}
