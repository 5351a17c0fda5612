package demo

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"

	"github.com/postroom/postroom/auth/dkim"
)

// TestJudge shows what is wrong with a letter that has arrived.
func TestJudge(t *testing.T) {
	secure := &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}
	pass, fail := dkim.Result{Status: dkim.Pass}, dkim.Result{Status: dkim.Fail}
	for _, tc := range []struct {
		name    string
		arrival arrival
		policy  string
		problem string
	}{
		{"all is well", arrival{"a", secure, []byte("x"), []dkim.Result{pass, pass}}, "dane", ""},
		{"clear text", arrival{"a", nil, []byte("x"), []dkim.Result{pass, pass}}, "dane", "in clear text"},
		{"a certificate that nobody looked at", arrival{"a", secure, []byte("x"), []dkim.Result{pass, pass}}, "opportunistic", `the policy was "opportunistic"`},
		{"one signature", arrival{"a", secure, []byte("x"), []dkim.Result{pass}}, "dane", "1 good signatures"},
		{"a bad signature", arrival{"a", secure, []byte("x"), []dkim.Result{pass, fail}}, "dane", "1 good signatures"},
		{"an address", arrival{"a", secure, []byte("Received: from [127.0.0.1]"), []dkim.Result{pass, pass}}, "dane", "127.0.0.1"},
		{"a name", arrival{"a", secure, []byte("Received: from annas-laptop.home.example"), []dkim.Result{pass, pass}}, "dane", "annas-laptop"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := &visit{World: &World{Policy: func(context.Context, string) (string, error) { return tc.policy, nil }}}
			err := v.judge(t.Context(), func(string, ...any) {}, tc.arrival)
			if (err == nil) != (tc.problem == "") || err != nil && !strings.Contains(err.Error(), tc.problem) {
				t.Errorf("%v; want %q", err, tc.problem)
			}
		})
	}
}

// TestReadBounce wants each line.
func TestReadBounce(t *testing.T) {
	notice := "Subject: Not delivered: Are you there?\r\n\r\nFinal-Recipient: rfc822; nobody@elsewhere.example\r\nAction: failed\r\nStatus: 5.1.1\r\n" +
		"Diagnostic-Code: smtp; 550 5.1.1 nobody of that name lives here\r\n"
	var notes int
	if err := readBounce(func(string, ...any) { notes++ }, "\r\n"+notice); err != nil || notes != 5 {
		t.Errorf("%v, %d notes", err, notes)
	}
	for line := range strings.Lines(strings.TrimSpace(notice)) {
		if line == "\r\n" {
			continue
		}
		if err := readBounce(func(string, ...any) {}, "\r\n"+strings.Replace(notice, line, "", 1)); err == nil {
			t.Errorf("nothing is missed without %q", line)
		}
	}
}
