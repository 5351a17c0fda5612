package main

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// postfix is Debian's Postfix that hands everything to Debian's Dovecot over LMTP, both with configurations, queues and
// mailboxes of their own. It does no checks of the sender: that is in its favour.
type postfix struct {
	dir         string
	cert, key   string
	smtpPort    int
	lmtpPort    int
	pop3sPort   int
	dovecot     *exec.Cmd
	postfixMain int
}

func (p *postfix) name() string  { return "Postfix + Dovecot" }
func (p *postfix) smtp() string  { return fmt.Sprintf("127.0.0.1:%d", p.smtpPort) }
func (p *postfix) pop3s() string { return fmt.Sprintf("127.0.0.1:%d", p.pop3sPort) }
func (p *postfix) trees() []int  { return []int{p.postfixMain, p.dovecot.Process.Pid} }

func (p *postfix) version() string {
	post, _ := exec.Command("postconf", "-h", "mail_version").Output() // an empty version says as much
	dove, _ := exec.Command("dovecot", "--version").Output()
	return "Postfix " + strings.TrimSpace(string(post)) + " + Dovecot " + strings.TrimSpace(string(dove))
}

const postfixMain = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/lib
mail_owner = postfix
setgid_group = postdrop
myhostname = mail.example.org
mydestination =
mynetworks = 127.0.0.1/32
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
disable_dns_lookups = yes
smtputf8_enable = no
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = example.org
virtual_mailbox_maps = hash:%[1]s/users
virtual_transport = lmtp:inet:127.0.0.1:%[2]d
default_process_limit = 2500
lmtp_destination_concurrency_limit = 20
smtpd_client_connection_count_limit = 0
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
message_size_limit = 60000000
smtpd_tls_cert_file = %[3]s
smtpd_tls_key_file = %[4]s
smtpd_tls_security_level = may
smtp_tls_security_level = none
lmtp_tls_security_level = none
`

const postfixMaster = `127.0.0.1:%d inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
tlsmgr unix - - n 1000? 1 tlsmgr
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
smtp unix - - n - - smtp
tlsproxy unix - - n - 0 tlsproxy
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
`

const dovecotConfig = `base_dir = %[1]s/run
state_dir = %[1]s/state
instance_name = postroom-bench
log_path = %[1]s/dovecot.log
protocols = pop3 lmtp
listen = 127.0.0.1
ssl = yes
ssl_cert = <%[2]s
ssl_key = <%[3]s
mail_location = mdbox:%[1]s/mail/%%u
mail_uid = dovenull
mail_gid = dovenull
first_valid_uid = 1
first_valid_gid = 1
disable_plaintext_auth = yes
auth_mechanisms = plain
auth_cache_size = 10M
auth_cache_ttl = 1 hour
passdb {
  driver = passwd-file
  args = scheme=SHA512-CRYPT %[1]s/passwd
}
userdb {
  driver = static
  args = uid=dovenull gid=dovenull home=%[1]s/home/%%u
}
mail_max_userip_connections = 0
service pop3-login {
  inet_listener pop3 {
    port = 0
  }
  inet_listener pop3s {
    port = %[4]d
    ssl = yes
  }
  process_limit = 3000
}
service pop3 {
  process_limit = 3000
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = %[5]d
  }
  unix_listener lmtp {
    mode = 0
  }
}
default_client_limit = 4000
default_process_limit = 3000
`

func (p *postfix) start(ctx context.Context) error {
	for _, program := range []string{"postfix", "dovecot", "doveadm"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: apt-get install postfix dovecot-pop3d dovecot-lmtpd", err)
		}
	}
	for _, port := range []*int{&p.smtpPort, &p.lmtpPort, &p.pop3sPort} {
		var err error
		if *port, err = freePort(); err != nil {
			return err
		}
	}
	if err := p.configure(ctx); err != nil {
		return err
	}
	return p.run(ctx)
}

// freePort is one that was free a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func (p *postfix) configure(ctx context.Context) error {
	hash, err := exec.CommandContext(ctx, "doveadm", "pw", "-s", "SHA512-CRYPT", "-p", password).Output()
	if err != nil {
		return fmt.Errorf("doveadm pw: %w", err)
	}
	var users, passwd strings.Builder
	for _, name := range everybody() {
		fmt.Fprintf(&users, "%s x\n", name)
		fmt.Fprintf(&passwd, "%s:%s\n", name, strings.TrimSpace(string(hash)))
	}
	for name, text := range map[string]string{
		"conf/main.cf":   fmt.Sprintf(postfixMain, p.dir, p.lmtpPort, p.cert, p.key),
		"conf/master.cf": fmt.Sprintf(postfixMaster, p.smtpPort),
		"users":          users.String(), "passwd": passwd.String(),
		"dovecot.conf": fmt.Sprintf(dovecotConfig, p.dir, p.cert, p.key, p.pop3sPort, p.lmtpPort),
	} {
		if err := write(p.dir, name, text); err != nil {
			return err
		}
	}
	script := fmt.Sprintf(`set -e
cd %[1]s
chmod 755 .
mkdir -p queue lib mail home run state
chown postfix lib
chown dovenull:dovenull mail home
postmap -c conf hash:%[1]s/users
postfix -c %[1]s/conf set-permissions create-missing 2>/dev/null || postfix -c %[1]s/conf check`, p.dir)
	if out, err := exec.CommandContext(ctx, "sh", "-c", script).CombinedOutput(); err != nil {
		return fmt.Errorf("prepare Postfix: %w\n%s", err, out)
	}
	return nil
}

func (p *postfix) run(ctx context.Context) error {
	p.dovecot = exec.Command("dovecot", "-F", "-c", filepath.Join(p.dir, "dovecot.conf"))
	p.dovecot.Stderr = os.Stderr
	if err := p.dovecot.Start(); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "postfix", "-c", filepath.Join(p.dir, "conf"), "start").CombinedOutput(); err != nil {
		return fmt.Errorf("postfix start: %w\n%s", err, out)
	}
	pid, err := os.ReadFile(filepath.Join(p.dir, "queue/pid/master.pid"))
	if err != nil {
		return err
	}
	if p.postfixMain, err = strconv.Atoi(strings.TrimSpace(string(pid))); err != nil {
		return err
	}
	for _, addr := range []string{p.smtp(), p.pop3s(), fmt.Sprintf("127.0.0.1:%d", p.lmtpPort)} {
		err := await(ctx, addr, func() error {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				err = c.Close()
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *postfix) stop() {
	if p.postfixMain != 0 {
		_ = exec.Command("postfix", "-c", filepath.Join(p.dir, "conf"), "stop").Run() // it may have ended
		p.postfixMain = 0
	}
	if p.dovecot != nil && p.dovecot.Process != nil {
		_ = p.dovecot.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = p.dovecot.Wait()
	}
}

func (p *postfix) restart(ctx context.Context) (time.Duration, error) {
	p.stop()
	began := time.Now()
	err := p.run(ctx)
	return time.Since(began), err
}

// stored waits until the queue is empty.
func (p *postfix) stored(ctx context.Context) error {
	return p.emptied(ctx, "maildrop", "incoming", "active", "deferred")
}

// emptied waits until nothing is in these parts of the queue.
func (p *postfix) emptied(ctx context.Context, parts ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		empty := true
		for _, part := range parts {
			err := filepath.WalkDir(filepath.Join(p.dir, "queue", part), func(_ string, d fs.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					empty = false
					return fs.SkipAll
				}
				return nil // a file that is gone is what is waited for
			})
			if err != nil {
				return err
			}
		}
		if empty {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("postfix did not empty %s in ten minutes", strings.Join(parts, ", "))
		case <-ticker.C:
		}
	}
}

// set changes the configuration and starts it anew: after a reload, processes that run would still do a letter in the old way.
func (p *postfix) set(ctx context.Context, settings ...string) error {
	out, err := exec.CommandContext(ctx, "postconf", append([]string{"-c", filepath.Join(p.dir, "conf"), "-e"}, settings...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("postconf: %w\n%s", err, out)
	}
	_, err = p.restart(ctx)
	return err
}
