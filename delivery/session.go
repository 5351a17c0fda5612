package delivery

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"net/netip"
	"strings"
	"time"

	"github.com/postroom/postroom/queue"
)

// target is a host to try, with all that a connection to it must have.
type target struct {
	host   string // its name; "" for an address literal
	ips    []netip.Addr
	port   uint16
	policy policy
	relay  *Relay // whose login is used; nil: it is an exchanger of the recipients' domain

	records []tlsaRecord // where the policy is to be pinned to them
	names   []string     // that the certificate may have, when a TLSA record names who made it
	base    string       // the name that the TLSA records belong to
}

// serverName is what the certificate is asked for.
func (t *target) serverName() string {
	if t.base != "" {
		return t.base
	}
	return t.host
}

// session is a connection to a server that is ready for a transaction.
//
//	dial -> greeting -> EHLO -> [STARTTLS -> EHLO] -> [AUTH] -> ready -> (MAIL RCPT DATA)* -> idle -> ready ... -> QUIT
type session struct {
	*conn
	ext     extensions
	stamp   queue.Outcome // Host, Address, TLS, Policy, DSN: what all outcomes of the session say
	ip      netip.Addr
	key     poolKey
	since   time.Time
	used    int  // transactions begun
	reused  bool // it was idle before
	dirty   bool // a transaction was left in the middle
	broken  bool // it must not be used again
	expires *time.Timer
}

// opener opens one session.
type opener struct {
	d    *Deliverer
	t    *target
	ip   netip.Addr
	mode tlsMode
	s    *session
}

// connect opens a session with the best protection that the host is capable of, and at least what the policy asks for.
func (d *Deliverer) connect(ctx context.Context, t *target, ip, source netip.Addr) (*session, *failure) {
	mode := d.memory.mode(t)
	for {
		o := &opener{d: d, t: t, ip: ip, mode: mode}
		f := o.open(ctx, source)
		if f == nil {
			d.memory.learn(t, mode)
			return o.s, nil
		}
		switch t.policy.after(mode, f.tls) {
		case retryOld:
			mode = oldTLS
		case retryClear:
			mode = inClear
		default:
			return nil, f.at(o.stamp())
		}
	}
}

// at fills in what the outcome of a failure says about the session.
func (f *failure) at(stamp queue.Outcome) *failure {
	f.Host, f.Address, f.TLS, f.Policy, f.DSN = stamp.Host, stamp.Address, stamp.TLS, stamp.Policy, stamp.DSN
	return f
}

func (o *opener) stamp() queue.Outcome {
	if o.s != nil {
		return o.s.stamp
	}
	return o.t.stamp(o.ip)
}

func (t *target) stamp(ip netip.Addr) queue.Outcome {
	return queue.Outcome{Host: t.host, Address: ip.String(), Policy: t.policy.label()}
}

func (o *opener) open(ctx context.Context, source netip.Addr) *failure {
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := o.d.Dial(dialing, source, netip.AddrPortFrom(o.ip, o.t.port))
	if err != nil {
		return unreachable(err)
	}
	o.s = &session{conn: newConn(c), stamp: o.t.stamp(o.ip), ip: o.ip, since: time.Now()}
	stop := context.AfterFunc(ctx, o.s.abort)
	f := o.introduce(ctx)
	if !stop() {
		f = lost(context.Canceled, "before a letter was sent")
	}
	if f != nil {
		o.leave(f)
	}
	return f
}

// leave ends a session that comes to nothing, politely where the server still talks.
func (o *opener) leave(f *failure) {
	if f.Remote || f.tls != noFailure && f.tls != handshake {
		o.d.pool.leave(o.s)
		return
	}
	o.s.abort()
}

// introduce goes from the greeting to a session that is ready.
func (o *opener) introduce(ctx context.Context) *failure {
	implicit := o.t.relay != nil && o.t.relay.TLS == RelayTLS
	if implicit {
		if f := o.secure(ctx); f != nil {
			return f
		}
	}
	r, err := o.s.reply(greetingTimeout)
	switch {
	case err != nil:
		return lost(err, "before it greeted")
	case r.Code/100 != 2:
		return refused(r, thisHost)
	}
	if f := o.hello(); f != nil {
		return f
	}
	switch {
	case implicit:
	case o.mode == inClear:
		o.report(handshake)
	default:
		if f := o.protect(ctx); f != nil {
			return f
		}
	}
	if o.t.policy.requireTLS && !o.s.ext.has("REQUIRETLS") {
		return o.forbid(noRequireTLS)
	}
	return o.login()
}

// hello says who we are. RFC 5321 section 3.2: a server that does not know EHLO is greeted with HELO.
func (o *opener) hello() *failure {
	r, err := o.s.command("EHLO "+o.d.Hostname, greetingTimeout)
	if err == nil && (r.Code == 500 || r.Code == 502) {
		r, err = o.s.command("HELO "+o.d.Hostname, greetingTimeout)
		r.Lines = nil // it offers nothing
	}
	switch {
	case err != nil:
		return lost(err, "after EHLO")
	case r.Code/100 != 2:
		return refused(r, thisHost)
	}
	o.s.ext = parseExtensions(r)
	o.s.stamp.DSN = o.s.ext.has("DSN")
	return nil
}

// protect starts TLS, or finds that the policy lets us do without.
func (o *opener) protect(ctx context.Context) *failure {
	if !o.s.ext.has("STARTTLS") {
		return o.judge(notOffered)
	}
	r, err := o.s.command("STARTTLS", commandTimeout)
	switch {
	case err != nil:
		return lost(err, "after STARTTLS")
	case r.Code == closing:
		return refused(r, thisHost)
	case r.Code != 220:
		return o.judge(notStarted)
	}
	if f := o.secure(ctx); f != nil {
		return f
	}
	return o.hello() // RFC 3207 section 4.2: what was said in clear is forgotten
}

// secure makes the connection a TLS one, and looks at the certificate.
func (o *opener) secure(ctx context.Context) *failure {
	state, err := o.s.startTLS(ctx, o.config())
	if err != nil {
		if ctx.Err() != nil {
			return lost(ctx.Err(), "in the TLS handshake")
		}
		f := o.forbid(handshake)
		_, f.Silent = describe(err)
		return f
	}
	o.s.stamp.TLS = tls.VersionName(state.Version) + " " + tls.CipherSuiteName(state.CipherSuite)
	return o.judge(o.check(state))
}

func (o *opener) config() *tls.Config {
	c := &tls.Config{
		ServerName:         o.t.serverName(),
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // check looks at the certificate as the policy asks for
	}
	if o.mode == oldTLS {
		c.MaxVersion = tls.VersionTLS12
	}
	return c
}

// report says what an MTA-STS policy that is only tested would have refused. RFC 8461 section 5.
func (o *opener) report(f tlsFailure) {
	if p := o.t.policy; p.testing && p.stsMatch && f != noFailure {
		o.s.stamp.Policy = p.label() + ": " + f.String()
	}
}

// judge gives the host up where the policy says so.
func (o *opener) judge(f tlsFailure) *failure {
	o.report(f)
	if o.t.policy.after(o.mode, f) == goOn {
		return nil
	}
	return o.forbid(f)
}

func (o *opener) forbid(f tlsFailure) *failure {
	return &failure{Outcome: o.t.policy.outcome(f), reach: thisHost, tls: f}
}

// login logs in at a smarthost. Its policy has seen to TLS with a certificate that was verified.
func (o *opener) login() *failure {
	relay := o.t.relay
	if relay == nil || relay.Login == "" {
		return nil
	}
	var steps []string
	switch {
	case o.s.ext.plain:
		steps = []string{"AUTH PLAIN " + encode("\x00"+relay.Login+"\x00"+string(relay.Password))}
	case o.s.ext.login:
		steps = []string{"AUTH LOGIN", encode(relay.Login), encode(string(relay.Password))}
	default:
		return local("4.7.8", "the smarthost offers no login that we know: neither AUTH PLAIN nor AUTH LOGIN")
	}
	secrets := append([]string{encode("\x00" + relay.Login + "\x00" + string(relay.Password)), string(relay.Password)}, steps[1:]...)
	for i, line := range steps {
		r, err := o.s.command(line, commandTimeout)
		r.Lines = withoutSecrets(r.Lines, secrets)
		last := i == len(steps)-1
		switch {
		case err != nil:
			return lost(err, "after AUTH")
		case r.Code == 235 && last:
			return nil
		case r.Code == 334 && !last:
			continue
		case r.Temporary():
			return refused(r, thisHost)
		case r.Permanent():
			f := refused(r, allHosts) // the operator must act, and another try may lock the login
			f.Enhanced = "4.7.8"
			return f
		}
		return lost(errReply, "after AUTH")
	}
	return nil
}

// withoutSecrets strikes out what a server repeats of a login, or of its beginning: replies are shown to senders.
func withoutSecrets(lines, secrets []string) []string {
	clean := make([]string, len(lines))
	for i, line := range lines {
		words := strings.Fields(line)
		for j, word := range words {
			bare := strings.Trim(word, `"'<>()[].,:;`)
			for _, s := range secrets {
				if s != "" && (strings.Contains(word, s) || len(bare) >= 6 && strings.HasPrefix(s, bare)) {
					words[j] = "***"
				}
			}
		}
		clean[i] = strings.Join(words, " ")
	}
	return clean
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
