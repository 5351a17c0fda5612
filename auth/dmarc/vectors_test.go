package dmarc

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/mailtest"
)

// vectors are the public ones, written from RFC 7489.
type vectors struct {
	Records []struct {
		Name, Record, Result, P, SP, ADKIM, ASPF string
	}
	RecordSets []struct {
		Name    string
		Records []string
		Result  string
	} `json:"record_sets"`
	Evaluations []struct {
		Name       string
		HeaderFrom string `json:"header_from"`
		RecordAt   string `json:"record_at"`
		Record     *string
		SPF        *checked
		DKIM       []checked
		Expect     string
	}
}

type checked struct{ Result, Domain string }

func readVectors(t *testing.T) (v vectors) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(mailtest.Vectors(t, "own-dmarc"), "dmarc_vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVectors(t *testing.T) {
	v, ran := readVectors(t), 0
	for _, tc := range v.Records {
		ran++
		r, err := ParseRecord(tc.Record)
		result := map[error]string{nil: "ok", ErrNotDMARC: "none", ErrNoPolicy: "invalid"}[err]
		if result != tc.Result {
			t.Errorf("record %s: %s, want %s", tc.Name, result, tc.Result)
		}
		if err == nil && (string(r.Policy) != tc.P || string(r.Subdomains) != tc.SP || r.StrictDKIM != (tc.ADKIM == "s") || r.StrictSPF != (tc.ASPF == "s")) {
			t.Errorf("record %s: %+v", tc.Name, r)
		}
	}
	for _, tc := range v.RecordSets {
		ran++
		dns := fake{txt: map[string][]string{"_dmarc.example.com": tc.Records}}
		e := Evaluate(t.Context(), dns.dns(), Input{Author: "example.com"})
		if (e.Result == ResultNone) != (tc.Result == "none") {
			t.Errorf("set %s: %s, want %s", tc.Name, e.Result, tc.Result)
		}
	}
	for _, tc := range v.Evaluations {
		domain, ok := authorDomain(tc.HeaderFrom)
		if !ok { // which letters have one author domain is for package auth to say, and tested there
			if !strings.HasPrefix(tc.Expect, "malformed") {
				t.Errorf("evaluation %s has no author domain", tc.Name)
			}
			continue
		}
		ran++
		dns := fake{txt: map[string][]string{}, fails: map[string]bool{}}
		switch {
		case tc.Record == nil:
		case *tc.Record == "SERVFAIL":
			dns.fails[tc.RecordAt] = true
		default:
			dns.txt[tc.RecordAt] = []string{*tc.Record}
		}
		in := Input{Author: domain}
		if tc.SPF != nil {
			in.SPF = Identifier{Domain: tc.SPF.Domain, Pass: tc.SPF.Result == "pass"}
		}
		for _, d := range tc.DKIM {
			in.DKIM = append(in.DKIM, Identifier{Domain: d.Domain, Pass: d.Result == "pass"})
		}
		e := Evaluate(t.Context(), dns.dns(), in)
		got := string(e.Result)
		if e.Result == ResultFail {
			got += ":" + string(e.Policy)
		}
		if got != tc.Expect {
			t.Errorf("evaluation %s: %s (%s), want %s", tc.Name, got, e.Reason, tc.Expect)
		}
	}
	t.Logf("%d vectors of %d", ran, len(v.Records)+len(v.RecordSets)+len(v.Evaluations))
}

func authorDomain(from string) (string, bool) {
	_, domain, _ := strings.Cut(from, "@")
	d, err := addr.ParseDomain(domain)
	return d.ASCII(), err == nil && !strings.Contains(from, ",")
}

// fake is a DNS by table: names that are in no table do not exist.
type fake struct {
	txt    map[string][]string
	exists map[string]bool // domains without a TXT record
	fails  map[string]bool // names that cannot be looked up
	asked  []string
}

var errTemporary = errors.New("no answer")

func (f *fake) dns() DNS {
	return DNS{
		TXT: func(_ context.Context, name string) ([]string, error) {
			f.asked = append(f.asked, name)
			if f.fails[name] {
				return nil, errTemporary
			}
			if texts, ok := f.txt[name]; ok {
				return texts, nil
			}
			return nil, ErrNotFound
		},
		Exists: func(_ context.Context, name string) (bool, error) {
			if f.fails[name] {
				return false, errTemporary
			}
			return f.exists[name], nil
		},
	}
}
