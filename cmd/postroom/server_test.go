package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/demo"
)

// soon is how fast a command must take effect in a server that runs.
const soon = time.Second

// journal is the log of a server under test.
type journal struct {
	mu    sync.Mutex // guards what follows
	text  bytes.Buffer
	ports map[string]string
	grown chan struct{} // closed, and replaced, with each line
}

// Write takes whole lines: slog writes each at once.
func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text.Write(line)
	var entry struct{ Event, Svc, Addr string }
	if json.Unmarshal(line, &entry) == nil && entry.Event == "listening" {
		j.ports[entry.Svc] = entry.Addr
	}
	close(j.grown)
	j.grown = make(chan struct{})
	return len(line), nil
}

// port is where a service listens.
func (j *journal) port(service string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ports[service]
}

// await waits until the log has the text.
func (j *journal) await(t *testing.T, text string, ended <-chan int) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		j.mu.Lock()
		found, grown, all := strings.Contains(j.text.String(), text), j.grown, j.text.String()
		j.mu.Unlock()
		if found {
			return
		}
		select {
		case <-grown:
		case <-ended:
			t.Fatalf("the server ended before it said %s:\n%s", text, all)
		case <-late:
			t.Fatalf("the server never said %s:\n%s", text, all)
		}
	}
}

// running is a server that runs in this process.
type running struct {
	*installation
	*journal
	stop  context.CancelFunc
	ended chan int // its exit status
}

// serve runs `postroom serve` until the test ends or stop is called.
func (in *installation) serve() *running {
	in.t.Helper()
	text, err := os.ReadFile(in.config)
	if err != nil {
		in.t.Fatal(err)
	}
	in.configure(string(text) + "[log]\nformat = \"json\"\n")
	defer in.configure(string(text))

	ctx, cancel := context.WithCancel(in.t.Context())
	r := &running{in, &journal{ports: map[string]string{}, grown: make(chan struct{})}, cancel, make(chan int, 1)}
	p := &program{stdin: strings.NewReader(""), stdout: io.Discard, stderr: r.journal, passwords: quickPasswords}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.ended <- p.run(ctx, []string{"serve", "--config", in.config})
	}()
	in.t.Cleanup(func() { cancel(); <-done })
	r.await(in.t, `"event":"ready"`, r.ended)
	return r
}

// client trusts the server's own authority.
func (r *running) client() *tls.Config {
	r.t.Helper()
	pem, err := os.ReadFile(filepath.Join(r.data, "tls", "ca.pem"))
	if err != nil {
		r.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		r.t.Fatal("ca.pem holds no certificate")
	}
	return &tls.Config{RootCAs: roots, ServerName: "mail.example.org"}
}

// dialogue is a connection on which the test speaks a protocol line by line.
type dialogue struct {
	t *testing.T
	*textproto.Conn
}

func talk(t *testing.T, c net.Conn, err error) *dialogue {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &dialogue{t, textproto.NewConn(c)}
}

// smtp connects, and says EHLO.
func (r *running) smtp() *dialogue {
	r.t.Helper()
	c, err := net.Dial("tcp", r.port("smtp"))
	d := talk(r.t, c, err)
	d.reply("")
	d.reply("EHLO elsewhere.example")
	return d
}

// reply sends a line, unless it is empty, and returns the reply as wire.Reply prints it.
func (d *dialogue) reply(line string) string {
	d.t.Helper()
	if line != "" {
		if err := d.PrintfLine("%s", line); err != nil {
			d.t.Fatal(err)
		}
	}
	code, text, err := d.ReadResponse(0)
	if err != nil && code == 0 {
		d.t.Fatalf("%s: %v", line, err)
	}
	return fmt.Sprintf("%d %s", code, text)
}

// rcpt asks for one recipient, in a transaction of its own.
func (d *dialogue) rcpt(path string) string {
	d.t.Helper()
	d.reply("MAIL FROM:<ben@elsewhere.example> SMTPUTF8")
	reply := d.reply("RCPT TO:" + path)
	d.reply("RSET")
	return reply
}

// rcpt asks for one recipient on a connection of its own.
func (r *running) rcpt(path string) string {
	r.t.Helper()
	d := r.smtp()
	defer d.Close()
	return d.rcpt(path)
}

// logIn opens a POP3 session and returns the answer to PASS.
func (r *running) logIn(name, password string) (*dialogue, string) {
	r.t.Helper()
	c, err := tls.Dial("tcp", r.port("pop3s"), r.client())
	d := talk(r.t, c, err)
	for _, line := range []string{"", "USER " + name, "PASS " + password} {
		if line != "" {
			if err := d.PrintfLine("%s", line); err != nil {
				r.t.Fatal(err)
			}
		}
		if line, err = d.ReadLine(); err != nil {
			r.t.Fatal(err)
		}
		if strings.HasPrefix(line, "-ERR") {
			return d, line
		}
	}
	return d, "+OK"
}

func TestServe(t *testing.T) {
	r := settled(t).serve()
	world := &demo.World{
		SMTP: r.port("smtp"), POP3S: r.port("pop3s"), Hostname: "mail.example.org", Roots: r.client().RootCAs,
		From: "ben@elsewhere.example", Address: "anna@example.org", Password: "correct horse", Outside: r.outside,
	}
	if err := demo.Run(t.Context(), demo.RoundTrip(world), func(demo.Result) {}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.await(t, `"event":"certificate read again"`, r.ended)

	idle := r.smtp()
	r.stop()
	if reply := idle.reply(""); !strings.HasPrefix(reply, "421 ") {
		t.Errorf("an idle client read %q, want 421", reply)
	}
	if status := <-r.ended; status != statusDone {
		t.Errorf("status %d, want %d\n%s", status, statusDone, r.text.String())
	}
	for _, event := range []string{"listening", "ready", "stored", "stopping", "stopped"} {
		if !strings.Contains(r.text.String(), `"event":"`+event+`"`) {
			t.Errorf("the log has no %q:\n%s", event, r.text.String())
		}
	}
	if strings.Contains(r.text.String(), "correct horse") {
		t.Error("the log has a password")
	}
	// It left nothing behind that keeps the next one from serving.
	again := r.installation.serve()
	if _, answer := again.logIn("anna@example.org", "correct horse"); answer != "+OK" {
		t.Errorf("after a restart: %s", answer)
	}
}

func TestSecondServer(t *testing.T) {
	r := settled(t).serve()
	t.Run("other ports", func(t *testing.T) {
		oneSentence(t, postroom(t, "", "serve", "--config", r.config), statusNo, "another postroom serve is using the data directory "+r.data)
	})
	text, err := os.ReadFile(r.config)
	if err != nil {
		t.Fatal(err)
	}
	r.configure(strings.Replace(string(text), `smtp = ["127.0.0.1:0"]`, `smtp = ["`+r.port("smtp")+`"]`, 1))
	t.Run("same ports", func(t *testing.T) {
		oneSentence(t, postroom(t, "", "serve", "--config", r.config), statusNo, "another postroom serve is using the data directory "+r.data)
	})
	t.Run("same ports, other data", func(t *testing.T) {
		other := install(t)
		other.configure(strings.ReplaceAll(strings.Replace(string(text), `smtp = ["127.0.0.1:0"]`, `smtp = ["`+r.port("smtp")+`"]`, 1), r.data, other.data))
		oneSentence(t, other.try("", "serve"), statusUnsure, r.port("smtp")+" (smtp): another program listens there already")
	})
	if _, answer := r.logIn("anna@example.org", "correct horse"); answer != "+OK" {
		t.Errorf("the first server says %s", answer)
	}
}

func TestServeWithoutCertificate(t *testing.T) {
	in := install(t)
	text, err := os.ReadFile(in.config)
	if err != nil {
		t.Fatal(err)
	}
	files := fmt.Sprintf("source = \"files\"\ncert = \"%[1]s/cert.pem\"\nkey = \"%[1]s/key.pem\"", in.data)
	in.configure(strings.Replace(string(text), `source = "local"`, files, 1))
	in.must("", "domain", "list") // makes the database, which serve would tell of
	oneSentence(t, in.try("", "serve"), statusUnsure, "there is no file "+in.data+"/cert.pem")
}

// TestCommandsTakeEffect changes what a running server works with.
func TestCommandsTakeEffect(t *testing.T) {
	r := settled(t).serve()
	mail := r.smtp()
	expect := func(what, address, want string) {
		t.Helper()
		if reply := mail.rcpt("<" + address + ">"); !strings.HasPrefix(reply, want) {
			t.Errorf("%s: RCPT %s answers %q, want %q", what, address, reply, want)
		}
	}
	r.must("", "account", "add", "carl@example.org", "--generate")
	expect("account added", "carl@example.org", "250 ")
	r.must("", "account", "remove", "carl@example.org")
	expect("account removed", "carl@example.org", "550 5.1.1")
	r.must("", "domain", "add", "example.net")
	expect("domain added", "anna@example.net", "550 5.1.1")
	r.must("", "domain", "set", "example.net", "--catch-all", "anna@example.org")
	expect("catch-all set", "anna@example.net", "250 ")
	r.must("", "domain", "remove", "example.net")
	expect("domain removed", "anna@example.net", "550 5.7.1")
	r.must("", "alias", "add", "info@example.org", "anna@example.org")
	expect("alias added", "info@example.org", "250 ")
	r.must("", "alias", "remove", "info@example.org")
	expect("alias removed", "info@example.org", "550 5.1.1")
}

// TestPurge makes the server erase an account that was removed long ago.
func TestPurge(t *testing.T) {
	in := settled(t)
	in.must("", "account", "remove", "anna@example.org")
	in.must("", "account", "remove", "ben@example.org")
	db, err := sql.Open("sqlite", filepath.Join(in.data, "postroom.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("UPDATE accounts SET removed = ? WHERE id = 1", time.Now().AddDate(0, 0, -31).UnixMilli()); err != nil {
		t.Fatal(err)
	}
	r := in.serve()
	r.await(t, `"event":"removed account erased"`, r.ended)
	var left string
	if err := db.QueryRow("SELECT group_concat(id) FROM accounts").Scan(&left); err != nil || left != "2" {
		t.Errorf("accounts %q are left, %v; want only 2", left, err)
	}
}

// TestLoginsTakeEffect ends sessions, and makes passwords worthless, from outside of the server.
func TestLoginsTakeEffect(t *testing.T) {
	r := settled(t).serve()
	phone := strings.TrimSpace(r.must("", "account", "device", "add", "anna@example.org", "phone", "--receive-only"))
	outbox := strings.TrimSpace(r.must("", "account", "device", "add", "anna@example.org", "outbox", "--send-only"))
	if _, answer := r.logIn("anna@example.org", outbox); !strings.HasPrefix(answer, "-ERR [AUTH]") {
		t.Errorf("a send-only password: %s", answer)
	}
	for _, tc := range []struct{ name, login, password, command string }{
		{"device revoked", "anna@example.org", phone, "account device revoke anna@example.org phone"},
		{"password changed", "anna@example.org", "correct horse", "account password anna@example.org --generate"},
		{"account disabled", "ben@example.org", "battery staple", "account disable ben@example.org"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			session, answer := r.logIn(tc.login, tc.password)
			if answer != "+OK" {
				t.Fatalf("before: %s", answer)
			}
			r.must("", strings.Fields(tc.command)...)
			changed := time.Now()
			for err := error(nil); err == nil; { // -ERR, perhaps, and then the end
				_, err = session.ReadLine()
				if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
					t.Fatal("the open session went on")
				}
			}
			for answer == "+OK" && time.Since(changed) < soon { // a remembered login is good until the server has noticed
				session, answer = r.logIn(tc.login, tc.password)
				session.Close()
			}
			if took := time.Since(changed); took > soon || !strings.HasPrefix(answer, "-ERR [AUTH]") {
				t.Errorf("%v after the change: %s", took, answer)
			}
		})
	}
}
