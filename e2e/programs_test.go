package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// letter has what breaks mail: dots at the start of lines, an empty line at the end, 8-bit text, long lines.
var letter = []byte("From: Ben <ben@client.example>\r\nTo: anna@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n" +
	"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" +
	".\r\n..\r\n.leading dot\r\nGr\xc3\xbc\xc3\x9fe\r\n" + strings.Repeat("x", 900) + "\r\n\r\n")

// expectAsSent checks that got is the letter as it was sent, behind the fields that Postroom puts before every letter
// and nothing else.
func expectAsSent(t *testing.T, got, sent []byte) {
	t.Helper()
	trace, found := bytes.CutSuffix(got, sent)
	if !found {
		t.Errorf("octets out differ from octets in\n got %.1000q\nwant %.1000q", got, sent)
		return
	}
	var names []string
	for line := range bytes.Lines(trace) {
		if line[0] != ' ' && line[0] != '\t' {
			name, _, _ := bytes.Cut(line, []byte(":"))
			names = append(names, string(name))
		}
	}
	if got, want := strings.Join(names, " "), "Return-Path Delivered-To Authentication-Results Received"; got != want {
		t.Errorf("fields before the letter: %s, want %s", got, want)
	}
}

// expectLetters compares what is in anna's maildrop with what was sent.
func (s *server) expectLetters(t *testing.T, sent ...[]byte) {
	t.Helper()
	got, err := fetchAll(s.ports["pop3s"], s.tls(t), anna, password)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(sent) {
		t.Fatalf("%d letters in the maildrop, want %d", len(got), len(sent))
	}
	for i := range sent {
		expectAsSent(t, got[i], sent[i])
	}
}

func hostPort(t *testing.T, address string) (host, port string) {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return "localhost", port
}

// finish runs a program to its end within a minute.
func finish(t *testing.T, stdin string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = time.Second
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDeliverSwaks(t *testing.T) {
	swaks := program(t, "swaks")
	s := newServer(t)
	s.serve(t)
	host, port := hostPort(t, s.ports["smtp"])
	path := file(t, "letter", letter)
	for _, mode := range [][]string{nil, {"--tls"}, {"--tls", "--tls-verify", "--tls-ca-path", s.ca()}, {"--pipeline"}} {
		args := append([]string{"--server", host, "--port", port, "--helo", "client.example", "--from", "ben@client.example",
			"--to", anna, "--data", "@" + path}, mode...)
		out := finish(t, "", swaks, args...)
		if !strings.Contains(out, "250 2.0.0") && !strings.Contains(out, "250 2.6.0") {
			t.Errorf("swaks %v: no final 250 in\n%s", mode, out)
		}
	}
	got, err := fetchAll(s.ports["pop3s"], s.tls(t), anna, password)
	if err != nil || len(got) != 4 {
		t.Fatalf("%d letters, %v; want 4", len(got), err)
	}
	for _, g := range got {
		// swaks ends its input with line ends of its own.
		expectAsSent(t, bytes.TrimRight(g, "\r\n"), bytes.TrimRight(letter, "\r\n"))
	}
}

func TestDeliverPython(t *testing.T) {
	python := program(t, "python3")
	s := newServer(t)
	s.serve(t)
	host, port := hostPort(t, s.ports["smtp"])
	path := file(t, "letter", letter)
	for _, mode := range []string{"plain", "starttls", "8bit"} {
		finish(t, "", python, "testdata/deliver.py", host, port, s.ca(), mode, "ben@client.example", anna, path)
	}
	// RFC 6531: a UTF-8 sender and a UTF-8 local part here.
	s.run(t, "", "alias", "add", "jürgen@example.org", anna)
	finish(t, "", python, "testdata/deliver.py", host, port, s.ca(), "utf8", "bén@client.example", "jürgen@example.org", path)
	s.expectLetters(t, letter, letter, letter, letter)
}

func TestDeliverMsmtp(t *testing.T) {
	msmtp := program(t, "msmtp")
	s := newServer(t)
	s.serve(t)
	host, port := hostPort(t, s.ports["smtp"])
	for _, mode := range [][]string{{"--tls=off"}, {"--tls=on", "--tls-starttls=on", "--tls-trust-file=" + s.ca()}} {
		args := append([]string{"--file=/dev/null", "--host=" + host, "--port=" + port, "--auth=off", "--domain=client.example", "--set-date-header=off", "--set-msgid-header=off",
			"--from=ben@client.example"}, mode...)
		finish(t, strings.ReplaceAll(string(letter), "\r\n", "\n"), msmtp, append(args, anna)...)
	}
	s.expectLetters(t, letter, letter)
}

// TestOpenSSL verifies the certificate of every port with another TLS library, and that old versions are refused.
func TestOpenSSL(t *testing.T) {
	openssl := program(t, "openssl")
	s := newServer(t)
	s.serve(t)
	for _, tc := range []struct{ name, port, starttls string }{{"smtp", "smtp", "smtp"}, {"pop3", "pop3", "pop3"}, {"pop3s", "pop3s", ""}} {
		_, port := hostPort(t, s.ports[tc.port])
		args := []string{"s_client", "-connect", "127.0.0.1:" + port, "-CAfile", s.ca(), "-verify_return_error", "-verify_hostname", hostname,
			"-crlf", "-quiet", "-no_ign_eof"}
		if tc.starttls != "" {
			args = append(args, "-starttls", tc.starttls)
		}
		out := finish(t, "QUIT\n", openssl, args...)
		if !strings.Contains(out, "CN = "+hostname) {
			t.Errorf("%s: %s", tc.name, out)
		}
		old := exec.Command(openssl, append(args, "-tls1_1", "-cipher", "ALL@SECLEVEL=0")...)
		old.Stdin = strings.NewReader("QUIT\n")
		if out, err := old.CombinedOutput(); err == nil {
			t.Errorf("%s takes TLS 1.1: %s", tc.name, out)
		}
	}
}

func TestDeliverChunks(t *testing.T) {
	s := newServer(t)
	s.serve(t)
	for _, secure := range []bool{false, true} {
		config := s.tls(t)
		if !secure {
			config = nil
		}
		c, err := greet(s.ports["smtp"], config)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1, 97, 1 << 20} {
			if _, err := c.deliverChunks(anna, letter, size); err != nil {
				t.Errorf("chunks of %d: %v", size, err)
			}
		}
		c.close()
	}
	s.expectLetters(t, letter, letter, letter, letter, letter, letter)
}

// fetchers are the mail programs that collect anna's mail, each over implicit TLS and STLS.
var fetchers = []struct {
	name string
	run  func(t *testing.T, s *server, path string, stls bool) [][]byte
}{
	{"curl", withCurl},
	{"mpop", withMpop},
	{"fetchmail", withFetchmail},
	{"python3", withPoplib},
}

func TestFetch(t *testing.T) {
	for _, f := range fetchers {
		t.Run(f.name, func(t *testing.T) {
			path := program(t, f.name)
			s := newServer(t)
			s.serve(t)
			c, err := greet(s.ports["smtp"], s.tls(t))
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			for _, stls := range []bool{false, true} {
				if _, err := c.deliver(anna, letter); err != nil {
					t.Fatal(err)
				}
				got := f.run(t, s, path, stls)
				if len(got) != 1 {
					t.Fatalf("stls %t: %d letters, want 1", stls, len(got))
				}
				expectAsSent(t, got[0], letter)
				s.empty(t)
			}
		})
	}
}

// empty deletes what a program left on the server.
func (s *server) empty(t *testing.T) {
	t.Helper()
	c, err := openBox(s.ports["pop3s"], s.tls(t), anna, password)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	list, err := c.multi("LIST")
	if err != nil {
		t.Fatal(err)
	}
	for n := range bytes.Count(list, []byte("\r\n")) {
		if _, err := c.command(fmt.Sprintf("DELE %d", n+1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.command("QUIT"); err != nil {
		t.Fatal(err)
	}
}

func withCurl(t *testing.T, s *server, path string, stls bool) [][]byte {
	scheme, address := "pop3s", s.ports["pop3s"]
	args := []string{"--silent", "--show-error", "--cacert", s.ca(), "--config", "-"}
	if stls {
		scheme, address = "pop3", s.ports["pop3"]
		args = append(args, "--ssl-reqd")
	}
	host, port := hostPort(t, address)
	secret := fmt.Sprintf("user = \"%s:%s\"\n", anna, password)
	out := finish(t, secret, path, append(args, fmt.Sprintf("%s://%s:%s/1", scheme, host, port))...)
	return [][]byte{[]byte(out)}
}

func withMpop(t *testing.T, s *server, path string, stls bool) [][]byte {
	address, starttls := s.ports["pop3s"], "off"
	if stls {
		address, starttls = s.ports["pop3"], "on"
	}
	host, port := hostPort(t, address)
	dir := t.TempDir()
	for _, sub := range []string{"new", "cur", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	config := file(t, "mpoprc", fmt.Appendf(nil, "account default\nhost %s\nport %s\nuser %s\npassword %q\ntls on\n"+
		"tls_starttls %s\ntls_trust_file %s\nkeep off\nreceived_header off\ndelivery maildir %s\nuidls_file %s/uidls\n",
		host, port, anna, password, starttls, s.ca(), dir, dir))
	finish(t, "", path, "--file="+config, "--quiet")
	return readFiles(t, filepath.Join(dir, "new"), true)
}

func withFetchmail(t *testing.T, s *server, path string, stls bool) [][]byte {
	address, ssl := s.ports["pop3s"], "ssl"
	if stls {
		address, ssl = s.ports["pop3"], "sslproto tls1+"
	}
	host, port := hostPort(t, address)
	dir := t.TempDir()
	// The delivery agent keeps each letter as fetchmail gives it.
	agent := filepath.Join(dir, "agent")
	if err := os.WriteFile(agent, []byte("#!/bin/sh\ncat >"+dir+"/out\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := file(t, "fetchmailrc", fmt.Appendf(nil, "poll %s service %s protocol pop3 user %q password %q %s sslcertck sslcertfile %q "+
		"mda %q no rewrite fetchall nokeep\n", host, port, anna, password, ssl, s.ca(), agent))
	cmd := []string{"--fetchmailrc", config, "--nodetach", "--invisible", "--pidfile", filepath.Join(dir, "pid"), "--idfile", filepath.Join(dir, "ids")}
	t.Setenv("FETCHMAILHOME", dir)
	finish(t, "", path, cmd...)
	out, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{crlf(out)}
}

func withPoplib(t *testing.T, s *server, path string, stls bool) [][]byte {
	address, mode := s.ports["pop3s"], "tls"
	if stls {
		address, mode = s.ports["pop3"], "stls"
	}
	host, port := hostPort(t, address)
	dir := t.TempDir()
	finish(t, password+"\n", path, "testdata/fetch.py", host, port, s.ca(), mode, anna, dir)
	return readFiles(t, dir, false)
}

// readFiles returns the content of every file of a folder; where the program wrote lines of its own system, with
// the line ends of mail.
func readFiles(t *testing.T, dir string, local bool) (all [][]byte) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if local {
			b = crlf(b)
		}
		all = append(all, b)
	}
	return all
}

func crlf(b []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
}
