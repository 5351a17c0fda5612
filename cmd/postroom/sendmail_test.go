package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/internal/database"
	"github.com/postroom/postroom/internal/maillog"
)

// TestSendmail hands letters in as programs on the machine do, and follows them through the commands of the queue.
func TestSendmail(t *testing.T) {
	in := settled(t)
	in.must("From: Anna <anna@example.org>\nTo: zoe@far.example, ben@example.org\nBcc: yan@near.example\nSubject: hello\n\none\n..\n.\nnot part of it\n", "sendmail", "-t", "-oem")
	in.must("From: anna@example.org\n\n.\nrest\n", "sendmail", "-oi", "-f", "anna@example.org", "zoe@far.example")
	if r := in.try("From anna Thu Nov 26 10:00:00 2026\nFrom: anna@example.org\n\nmbox\n", "sendmail", "ben@example.org"); r.status != statusDone {
		t.Errorf("with the line of an mbox file: %+v", r)
	}
	if r := in.try("Subject: from cron\n\nx\n", "sendmail", "-bm", "-v", "-N", "never", "-r", "anna@example.org", "ben@example.org"); r.status != statusDone {
		t.Errorf("without a From field: %+v", r)
	}
	if r := in.try("From: anna@example.org\n\nx\n", "sendmail", "-bs"); r.status != statusUsage {
		t.Errorf("in another mode: %+v", r)
	}
	type row struct {
		ID, From, Recipient, State string
		Size                       int64
		Attempts                   int
	}
	var all []row
	in.read(&all, "queue", "list")
	if len(all) != 3 || all[0].Recipient != "<zoe@far.example>" || all[1].Recipient != "<yan@near.example>" || all[0].From != "<anna@example.org>" || all[0].State != "waiting" {
		t.Fatalf("%+v", all)
	}
	var filtered []row
	if in.read(&filtered, "queue", "list", "--destination", "near.example"); len(filtered) != 1 {
		t.Errorf("in near.example: %+v", filtered)
	}
	if in.read(&filtered, "queue", "list", "--account", "ben@example.org"); len(filtered) != 0 {
		t.Errorf("of ben: %+v", filtered)
	}
	in.must("", "queue", "hold", "--id", all[0].ID)
	if out := in.must("", "queue", "show", all[0].ID); !strings.Contains(out, "zoe@far.example") || !strings.Contains(out, "held") {
		t.Errorf("show: %s", out)
	}
	in.must("", "queue", "release", "--id", all[0].ID)
	in.must("", "queue", "retry", "--account", "anna@example.org")
	in.must("", "queue", "drop", "--destination", "far.example")
	if dropped := in.dropped(); len(dropped) != 2 || !strings.HasPrefix(dropped[0], "<zoe@far.example> dropped from the queue by ") {
		t.Errorf("the ledger says %q", dropped)
	}
	if in.read(&all, "queue", "list"); len(all) != 1 || all[0].Recipient != "<yan@near.example>" {
		t.Errorf("after drop: %+v", all)
	}
	var usage struct{ Messages int }
	if in.read(&usage, "account", "show", "ben@example.org"); usage.Messages != 3 {
		t.Errorf("ben has %d letters", usage.Messages)
	}
}

// dropped are the rows of the ledger about what was dropped.
func (in *installation) dropped() (all []string) {
	in.t.Helper()
	db, err := database.Open(in.t.Context(), database.Options{DataDir: in.data})
	if err != nil {
		in.t.Fatal(err)
	}
	defer db.Close()
	entries, err := maillog.OfAccount(in.t.Context(), db, 1, 100)
	if err != nil {
		in.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Kind == maillog.KindDropped {
			all = append(all, e.Recipient+" "+e.Detail)
		}
	}
	return all
}

// TestQueueHolds: what an account's hold keeps stays, whatever else is released, and what the operator holds stays beyond it.
func TestQueueHolds(t *testing.T) {
	in := settled(t)
	send := func(n int) result {
		args := []string{"sendmail", "-f", "anna@example.org"}
		for i := range n {
			args = append(args, fmt.Sprintf("n%d@far.example", i))
		}
		return in.try("From: anna@example.org\n\nx\n", args...)
	}
	states := func() (all []string) {
		var rows []struct{ ID, State string }
		in.read(&rows, "queue", "list")
		for _, r := range rows {
			all = append(all, r.State)
		}
		return all
	}
	send(1)
	send(1)
	var rows []struct{ ID string }
	in.read(&rows, "queue", "list")
	in.must("", "queue", "hold", "--id", rows[0].ID)
	send(501)
	if got := states(); !slices.Equal(got, []string{"held", "held with its account"}) {
		t.Fatalf("%q", got)
	}
	in.must("", "queue", "release", "--id", rows[0].ID)
	if got := states(); !slices.Equal(got, []string{"held with its account", "held with its account"}) {
		t.Errorf("released by id: %q", got)
	}
	if r := in.try("", "queue", "release", "--id", rows[1].ID, "--account", "anna@example.org"); r.status != statusNo || send(1).status != statusTemporary {
		t.Errorf("the account is released by a filter that is narrower: %+v", r)
	}
	in.must("", "queue", "hold", "--id", rows[1].ID)
	in.must("", "queue", "release", "--account", "anna@example.org")
	if got := states(); !slices.Equal(got, []string{"waiting", "waiting"}) {
		t.Errorf("released with the account: %q", got)
	}
	if r := send(1); r.status != statusDone {
		t.Errorf("%+v", r)
	}
	in.must("", "account", "remove", "anna@example.org", "--now")
	if got := states(); len(got) != 0 {
		t.Errorf("of a removed account: %q", got)
	}
}

// TestSendmailTooMuch: an account that sends too much is told to come back, and its owner finds out why.
func TestSendmailTooMuch(t *testing.T) {
	in := settled(t)
	args := []string{"sendmail", "-f", "anna@example.org"}
	for i := range 501 {
		args = append(args, fmt.Sprintf("n%d@far.example", i))
	}
	for range 2 {
		if r := in.try("From: anna@example.org\n\nx\n", args...); r.status != statusTemporary || !strings.Contains(r.stderr, "450 4.7.1") {
			t.Errorf("%+v", r)
		}
		args = args[:4]
	}
	var usage struct{ Messages int }
	if in.read(&usage, "account", "show", "anna@example.org"); usage.Messages != 1 { // the first account is postmaster
		t.Errorf("%d alerts", usage.Messages)
	}
	if r := in.try("", "queue", "release", "--account", "anna@example.org"); r.status != statusDone {
		t.Errorf("%+v", r)
	}
	in.must("From: anna@example.org\n\nx\n", args...)
}

// TestSendmailRefused has a row for each thing that is wrong, with the exit status that calling programs know.
func TestSendmailRefused(t *testing.T) {
	in := settled(t)
	for _, tc := range []struct {
		args   string
		stdin  string
		status int
		says   string
	}{
		{"sendmail", "From: anna@example.org\n\nx\n", statusUsage, "nobody to send to"},
		{"sendmail -t", "From: anna@example.org\nTo: \n\nx\n", statusUsage, "nobody to send to"},
		{"sendmail -t", "From: anna@example.org\nTo: <<\n\nx\n", statusUsage, "the To field"},
		{"sendmail x@far.example", "Subject: x\n\nx\n", statusUsage, "a From field"},
		{"sendmail x@far.example", "From: carl@elsewhere.example\n\nx\n", statusUnavailable, "not the address of one account"},
		{"sendmail -f anna@example.org x@far.example", "From: ben@example.org\n\nx\n", statusUnavailable, "550 5.7.1"},
		{"sendmail -f anna@example.org nobody@example.org", "From: anna@example.org\n\nx\n", statusUnavailable, "550 5.1.1"},
		{"queue retry", "", statusUsage, "--id ID"},
		{"queue retry --destination far.example", "", statusNo, "nothing in the queue"},
		{"queue drop --id nonsense", "", statusUsage, "no id of a letter"},
		{"queue show 03e6ljtc01o016mper8ovnsv9k", "", statusNo, "not in the queue"},
		{"queue release --account anna@example.org", "", statusNo, "nothing that is held"},
		{"queue hold --account carl@example.org", "", statusNo, "no account carl@example.org"},
	} {
		r := in.try(tc.stdin, strings.Fields(tc.args)...)
		if r.status != tc.status || !strings.Contains(r.stderr, tc.says) {
			t.Errorf("%s: status %d, %q; want %d, %q", tc.args, r.status, r.stderr, tc.status, tc.says)
		}
	}
}

// TestRelayAndKeys: smarthosts are set, listed without their passwords, and removed; keys have records that fit into a zone.
func TestRelayAndKeys(t *testing.T) {
	in := settled(t)
	in.must("secret\n", "relay", "set", "smart.example", "--login", "me")
	in.must("", "relay", "set", "192.0.2.9", "--destination", "far.example", "--port", "2525", "--tls", "tls")
	var all []struct {
		Destination, Host, TLS, Login string
		Port                          int
	}
	out := in.must("", "relay", "list", "--json")
	in.read(&all, "relay", "list")
	if len(all) != 2 || strings.Contains(out, "secret") {
		t.Errorf("%s", out)
	}
	if out := in.must("", "relay", "list"); !strings.Contains(out, "smart.example:587") || !strings.Contains(out, "mail to far.example") {
		t.Errorf("%s", out)
	}
	in.must("", "relay", "remove", "--destination", "far.example")
	if in.read(&all, "relay", "list"); len(all) != 1 || all[0].Host != "smart.example" || all[0].Login != "me" {
		t.Errorf("%+v", all)
	}
	if r := in.try("", "relay", "remove", "--sender", "example.org"); r.status == statusDone {
		t.Error("a smarthost that is not there was removed")
	}
	var keys []struct{ Selector, Algorithm, State, Name, Record string }
	if in.read(&keys, "dkim", "list", "example.org"); len(keys) != 2 || keys[0].State != "active" || keys[0].Name != keys[0].Selector+"._domainkey.example.org" {
		t.Errorf("%+v", keys)
	}
	zone := in.must("", "dkim", "export", "example.org")
	if lines := strings.Split(strings.TrimSpace(zone), "\n"); len(lines) != 2 || !strings.Contains(lines[0], `" "`) || strings.Contains(lines[1], `" "`) {
		t.Errorf("%s", zone)
	}
	r := in.try("", "dkim", "rotate", "example.org")
	if r.status != statusDone || strings.Count(r.stdout, "._domainkey.example.org. 3600 IN TXT") != 2 || !strings.Contains(r.stderr, "once all name servers") {
		t.Errorf("%+v", r)
	}
	if in.read(&keys, "dkim", "list", "example.org"); len(keys) != 4 || keys[0].State != "active" || keys[3].State != "new" {
		t.Errorf("%+v", keys)
	}
	if r := in.try("", "dkim", "rotate", "example.org"); r.status != statusUnsure || !strings.Contains(r.stderr, "could not be asked") {
		t.Errorf("%+v", r)
	}
	if lines := strings.Count(in.must("", "dkim", "export", "example.org"), "\n"); lines != 4 {
		t.Errorf("%d records are exported", lines)
	}
	if r := in.try("", "dkim", "rotate", "nobody.example"); r.status != statusNo {
		t.Errorf("%+v", r)
	}
}
