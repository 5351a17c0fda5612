package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/accounts"
)

// demonstrate runs `postroom demo` with its data directory below a folder of the test, and returns what is left there.
func demonstrate(t *testing.T, ctx context.Context, passwords accounts.Options, stdout *watched, args ...string) (status int, stderr string, left []string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var errors bytes.Buffer
	p := &program{stdin: strings.NewReader(""), stdout: stdout, stderr: &errors, passwords: passwords}
	status = p.run(ctx, append([]string{"demo"}, args...))
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return status, errors.String(), left
}

// watched is what a demonstration prints; stop is called when it has printed the text.
type watched struct {
	bytes.Buffer
	text string
	stop func()
}

func (w *watched) Write(b []byte) (int, error) {
	if w.text != "" && bytes.Contains(b, []byte(w.text)) {
		w.stop()
	}
	return w.Buffer.Write(b)
}

func TestDemoOnce(t *testing.T) {
	start := time.Now()
	out := new(watched)
	status, stderr, left := demonstrate(t, t.Context(), quickPasswords, out, "--once")
	if status != statusDone || stderr != "" || len(left) > 0 {
		t.Fatalf("status %d, %q, left behind %q\n%s", status, stderr, left, out)
	}
	for _, want := range []string{"1. start the server: ok", "250 2.0.0 ", "TLS 1.3", "PASS ****", "8. compare it with what was sent: ok", "every octet of it came back",
		"14. what has arrived at mail.elsewhere.example?: ok", "(DANE, RFC 7672)", "Diagnostic-Code: smtp; 550 5.1.1 nobody"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not print %q:\n%s", want, out)
		}
	}
	if strings.Contains(out.String(), "curl") {
		t.Error("--once prints what to try on a server that is gone")
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestDemoServesUntilTold(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := &watched{text: "normal password", stop: cancel}
	status, stderr, left := demonstrate(t, ctx, quickPasswords, out)
	if status != statusDone || stderr != "" || len(left) > 0 {
		t.Fatalf("status %d, %q, left behind %q\n%s", status, stderr, left, out)
	}
	for _, want := range []string{"login      anna@postroom.example", "/tls/ca.pem", "--ssl-reqd", "pop3s://127.0.0.1:", "openssl s_client", "SSL/TLS", "smtps://127.0.0.1:"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not print %q:\n%s", want, out)
		}
	}
}

func TestDemoNamesTheStepThatFailed(t *testing.T) {
	t.Run("no server", func(t *testing.T) {
		out := new(watched)
		status, stderr, left := demonstrate(t, t.Context(), accounts.Options{Cost: 99}, out, "--once") // more than bcrypt can do
		if status != statusNo || !strings.Contains(stderr, "failed at step 1, start the server: ") || len(left) > 0 ||
			!strings.Contains(out.String(), "1. start the server: FAILED") {
			t.Errorf("status %d, %q, left behind %q\n%s", status, stderr, left, out)
		}
	})
	t.Run("stopped on the way", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		out := &watched{text: "5. hand over", stop: cancel}
		status, stderr, left := demonstrate(t, ctx, quickPasswords, out, "--once")
		if status != statusNo || !strings.Contains(stderr, "step 6, log in over POP3S") || len(left) > 0 {
			t.Errorf("status %d, %q, left behind %q\n%s", status, stderr, left, out)
		}
	})
	t.Run("nowhere to put it", func(t *testing.T) {
		t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
		var stderr bytes.Buffer
		p := &program{stdout: new(bytes.Buffer), stderr: &stderr}
		if status := p.run(t.Context(), []string{"demo", "--once"}); status != statusUnsure || !strings.Contains(stderr.String(), os.Getenv("TMPDIR")) {
			t.Errorf("status %d, %q", status, stderr.String())
		}
	})
}
