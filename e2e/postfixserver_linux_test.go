package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/postroom/postroom/internal/mailtest"
)

// postfix is Debian's Postfix on the other side of a world: it looks hard at who sends, has opendkim verify what comes, and keeps
// letters in maildirs, one for each domain. On port 587 it is a smarthost, for which Dovecot knows the logins.
type postfix struct {
	*world
	domains []string
	log     string
	pid     int // 0: it does not run
}

const (
	relayHost     = "relay.example"
	relayLogin    = "postroom-login"
	relayPassword = "horse correct staple"
	relayed       = "relayed.example" // a domain that only the smarthost leads to
)

const postfixMain = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/lib
mail_owner = postfix
setgid_group = postdrop
maillog_file = %[1]s/log/postfix.log
maillog_file_prefixes = %[1]s
myhostname = postfix.example
mynetworks = 127.0.0.0/8
inet_interfaces = all
inet_protocols = ipv4
mydestination =
alias_maps =
virtual_mailbox_domains = %[2]s
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = hash:%[1]s/boxes
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
smtpd_helo_required = yes
smtpd_client_restrictions = reject_unknown_client_hostname
smtpd_helo_restrictions = reject_non_fqdn_helo_hostname, reject_unknown_helo_hostname
smtpd_sender_restrictions = reject_unknown_sender_domain
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access hash:%[1]s/access
smtpd_tls_security_level = may
smtpd_tls_chain_files = %[1]s/self-signed.pem
smtpd_tls_received_header = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:` + selfSignedIP + `:2500
smtpd_milters = inet:` + selfSignedIP + `:8891
milter_default_action = tempfail
`

const postfixMaster = selfSignedIP + `:25 inet n - n - - smtpd
` + trustedIP + `:25 inet n - n - - smtpd
  -o smtpd_tls_chain_files=%[1]s/trusted.pem
` + clearIP + `:25 inet n - n - - smtpd
  -o smtpd_tls_security_level=none
` + selfSignedIP + `:587 inet n - n - - smtpd
  -o smtpd_tls_chain_files=%[1]s/trusted.pem
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
tlsmgr unix - - n 1000? 1 tlsmgr
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`

const dovecotConfig = `base_dir = %[1]s/run
state_dir = %[1]s/state
instance_name = postroom-e2e
log_path = /dev/stderr
protocols =
ssl = no
auth_mechanisms = plain login
auth_failure_delay = 0
passdb {
  driver = passwd-file
  args = scheme=PLAIN %[1]s/passwd
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}
service auth {
  inet_listener {
    address = ` + selfSignedIP + `
    port = 2500
  }
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
`

const opendkimConfig = `Mode v
Socket inet:8891@` + selfSignedIP + `
AuthservID postfix.example
AlwaysAddARHeader yes
Nameservers ` + ourIP + `
`

// startPostfix runs the other side for these domains, until the test ends. Each has one mailbox.
func startPostfix(t *testing.T, w *world, domains []string) *postfix {
	t.Helper()
	p := &postfix{world: w, domains: domains, log: filepath.Join(w.dir, "log/postfix.log")}
	boxes := ""
	for _, d := range domains {
		boxes += fmt.Sprintf("zoe@%[1]s %[1]s/\nlater@%[1]s %[1]s/\n", d)
	}
	for name, text := range map[string]string{
		"conf/main.cf":   fmt.Sprintf(postfixMain, w.dir, strings.Join(domains, " ")),
		"conf/master.cf": fmt.Sprintf(postfixMaster, w.dir),
		"boxes":          boxes,
		"passwd":         relayLogin + ":{PLAIN}" + relayPassword + "\n",
		"dovecot.conf":   fmt.Sprintf(dovecotConfig, w.dir),
		"opendkim.conf":  opendkimConfig,
	} {
		w.file(t, name, []byte(text))
	}
	finish(t, "", "install", "-d", w.dir+"/queue", w.dir+"/log", w.dir+"/run", w.dir+"/state")
	finish(t, "", "install", "-d", "-o", "postfix", w.dir+"/lib")
	finish(t, "", "install", "-d", "-o", "nobody", w.dir+"/mail")
	finish(t, "", program(t, "postmap"), "-c", w.dir+"/conf", "hash:"+w.dir+"/boxes")
	p.access(t, "later@opportunistic.example 450 4.7.1 come back later\n")
	w.start(t, "opendkim", "-f", "-x", w.dir+"/opendkim.conf")
	w.start(t, "dovecot", "-F", "-c", w.dir+"/dovecot.conf")
	awaitPort(t, selfSignedIP+":8891")
	awaitPort(t, selfSignedIP+":2500")
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("Postfix:\n%s", p.logged(t))
		}
	})
	p.startMaster(t)
	return p
}

// startMaster starts Postfix, which goes on in the background.
func (p *postfix) startMaster(t *testing.T) {
	t.Helper()
	finish(t, "", "nsenter", "--target", p.other, "--net", program(t, "postfix"), "-c", p.dir+"/conf", "start")
	text, err := os.ReadFile(filepath.Join(p.dir, "queue/pid/master.pid"))
	if err != nil {
		t.Fatal(err)
	}
	if p.pid, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{selfSignedIP + ":25", trustedIP + ":25", clearIP + ":25", selfSignedIP + ":587"} {
		awaitPort(t, address)
	}
}

// stop ends Postfix. It is a child of this process, which is the first of its namespace.
func (p *postfix) stop(t *testing.T) {
	t.Helper()
	if p.pid == 0 {
		return
	}
	_ = syscall.Kill(p.pid, syscall.SIGTERM) // it may have ended
	await(t, "Postfix ends", func() bool {
		ended, err := syscall.Wait4(p.pid, nil, syscall.WNOHANG, nil)
		return err != nil || ended == p.pid
	})
	p.pid = 0
}

// access says what is answered to recipients that are named in it.
func (p *postfix) access(t *testing.T, table string) {
	t.Helper()
	finish(t, "", program(t, "postmap"), "-c", p.dir+"/conf", "hash:"+p.file(t, "access", []byte(table)))
}

func (p *postfix) logged(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// awaitLog waits for a line of Postfix's log, and returns what the first group of the pattern matches.
func (p *postfix) awaitLog(t *testing.T, pattern string) (found string) {
	t.Helper()
	line := regexp.MustCompile(pattern)
	await(t, "Postfix logs "+pattern, func() bool {
		m := line.FindStringSubmatch(p.logged(t))
		if m != nil {
			found = m[1]
		}
		return m != nil
	})
	return found
}

// letters are those that arrived in a domain, as on the wire behind what Postfix put before them.
func (p *postfix) letters(t *testing.T, domain string) [][]byte {
	t.Helper()
	dir := filepath.Join(p.dir, "mail", domain, "new")
	if _, err := os.Stat(dir); os.IsNotExist(err) {
		return nil
	}
	return readFiles(t, dir, true)
}

// arrived waits for the one letter of a domain.
func (p *postfix) arrived(t *testing.T, domain string) (letter []byte) {
	t.Helper()
	await(t, "a letter in the maildir of "+domain, func() bool {
		all := p.letters(t, domain)
		if len(all) == 1 {
			letter = all[0]
		}
		return len(all) == 1
	})
	return letter
}

// next waits for a letter of a domain that was not there before.
func (p *postfix) next(t *testing.T, domain string, before [][]byte) (letter []byte) {
	t.Helper()
	await(t, "one more letter in the maildir of "+domain, func() bool {
		for _, l := range p.letters(t, domain) {
			if !slices.ContainsFunc(before, func(b []byte) bool { return bytes.Equal(b, l) }) {
				letter = l
			}
		}
		return letter != nil
	})
	return letter
}

// neighbour is a domain of the other side: what it asks of who sends to it, and what comes of that.
type neighbour struct {
	name     string
	ip       string // of its exchanger
	tlsa     string // "right" or "wrong": its exchanger has a TLSA record
	unsigned bool   // DNSSEC does not protect its zone
	sts      string // the exchanger that its MTA-STS policy, which is enforced, names

	policy string // that a letter leaves under
	clear  bool   // it leaves in clear text
	reason string // why it does not leave
}

func (n neighbour) domain() string    { return n.name + ".example" }
func (n neighbour) exchanger() string { return "mx." + n.domain() }

var neighbours = []neighbour{
	{name: "dane", ip: selfSignedIP, tlsa: "right", policy: "dane"},
	{name: "dane-unsigned", ip: selfSignedIP, tlsa: "wrong", unsigned: true, policy: "opportunistic"},
	{name: "dane-mismatch", ip: selfSignedIP, tlsa: "wrong", policy: "dane", reason: "the certificate is not the one that the TLSA records name"},
	{name: "dane-clear", ip: clearIP, tlsa: "right", policy: "dane", reason: "the host does not offer TLS"},
	{name: "sts", ip: trustedIP, sts: "mx.sts.example", policy: "mta-sts"},
	{name: "sts-untrusted", ip: selfSignedIP, sts: "mx.sts-untrusted.example", policy: "mta-sts",
		reason: "the certificate comes from nobody that is trusted"},
	{name: "sts-misnamed", ip: trustedIP, sts: "mx.sts-misnamed.example", policy: "mta-sts", reason: "the certificate does not name the host"},
	{name: "sts-elsewhere", ip: trustedIP, sts: "mx.sts.example", policy: "mta-sts",
		reason: "the MTA-STS policy of the domain does not name the host"},
	{name: "sts-clear", ip: clearIP, sts: "mx.sts-clear.example", policy: "mta-sts", reason: "the host does not offer TLS"},
	{name: "opportunistic", ip: selfSignedIP, policy: "opportunistic"},
	{name: "clear", ip: clearIP, policy: "opportunistic", clear: true},
}

// settle gives the neighbours their records, policies and certificates, and returns their domains.
func (w *world) settle(t *testing.T) (domains []string) {
	t.Helper()
	self, _ := mailtest.Certificate(t, "mx.sts-untrusted.example")
	other, _ := mailtest.Certificate(t, "mx.dane-mismatch.example")
	w.file(t, "self-signed.pem", keyed(t, self))
	w.file(t, "trusted.pem", keyed(t, w.issue(t, relayHost, "mx.sts.example", "mx.sts-elsewhere.example")))
	w.records(t, domain+". 60 IN MX 10 "+hostname+".", hostname+". 60 IN A "+ourIP, "1.100.51.198.in-addr.arpa. 60 IN PTR "+hostname+".",
		relayHost+". 60 IN A "+selfSignedIP)
	policies := map[string]string{}
	for _, n := range neighbours {
		domains = append(domains, n.domain())
		w.records(t, n.domain()+". 60 IN MX 10 "+n.exchanger()+".", n.exchanger()+". 60 IN A "+n.ip)
		switch n.tlsa {
		case "right":
			w.records(t, tlsa(n.exchanger(), self))
		case "wrong":
			w.records(t, tlsa(n.exchanger(), other))
		}
		if n.unsigned {
			w.zone.SetInsecure(n.domain())
			w.zone.SetInsecure(n.exchanger())
			w.zone.SetInsecure("_25._tcp." + n.exchanger())
		}
		if n.sts != "" {
			policies[n.domain()] = n.sts
		}
	}
	w.servePolicies(t, policies)
	return domains
}
