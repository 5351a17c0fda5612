package mtasts

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/internal/mailtest"
)

// vectors are public cases; their "behaviour" is that of package delivery.
type vectors struct {
	TXT []struct {
		Record, Result string
		ID             string
	}
	Sets []struct {
		Records []string
		Result  string
	} `json:"txt_sets"`
	Policies []struct {
		Name, Policy, Result, Mode string
		MX                         []string
		MaxAge                     int64 `json:"max_age"`
	}
	Match []struct {
		Pattern, Host string
		Match         bool
	} `json:"mx_match"`
}

func TestVectors(t *testing.T) {
	var v vectors
	if err := json.Unmarshal(read(t, "own-mtasts", "mtasts_vectors.json"), &v); err != nil {
		t.Fatal(err)
	}
	for _, c := range v.TXT {
		id, err := ParseTXT([]string{c.Record})
		if got := result(err); got != c.Result || id != c.ID {
			t.Errorf("record %q: %s %q (%v), want %s %q", c.Record, got, id, err, c.Result, c.ID)
		}
	}
	for _, c := range v.Sets {
		if _, err := ParseTXT(c.Records); (err == nil) != (c.Result == "ok") {
			t.Errorf("records %q: %v, want %s", c.Records, err, c.Result)
		}
	}
	for _, c := range v.Policies {
		p, err := ParsePolicy([]byte(c.Policy))
		switch {
		case result(err) != c.Result:
			t.Errorf("%s: %v, want %s", c.Name, err, c.Result)
		case err == nil && (string(p.Mode) != c.Mode || !slices.Equal(p.MX, c.MX) || p.MaxAge != time.Duration(c.MaxAge)*time.Second):
			t.Errorf("%s: %+v, want %+v", c.Name, p, c)
		}
	}
	for _, c := range v.Match {
		pattern, err := parsePattern(c.Pattern)
		if err != nil {
			t.Errorf("%q: %v", c.Pattern, err)
		}
		if got := (Policy{MX: []string{pattern}}).Match(c.Host); got != c.Match {
			t.Errorf("%q and %q: %v", c.Pattern, c.Host, got)
		}
	}
	t.Logf("%d records, %d sets of records, %d policies, %d matches", len(v.TXT), len(v.Sets), len(v.Policies), len(v.Match))
}

func read(t *testing.T, sub ...string) []byte {
	t.Helper()
	content, err := os.ReadFile(mailtest.Vectors(t, sub...))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func result(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrNone):
		return "none"
	}
	return "invalid"
}

func TestParseTXT(t *testing.T) {
	for record, want := range map[string]string{
		"v=STSv1; id=1; id=2":         "1",
		"v=STSv1; a.b-c_d=x/y; id=9;": "9",
		"v=STSv1;; id=1":              "",
		"v=STSv1; id=1; =x":           "",
		"v=STSv1; id=1; -a=x":         "",
		"v=STSv1; id=1; a=b c":        "",
		"v=STSv1; id=1; a=b=c":        "",
		"v=STSv1; id = 1":             "",
		"v=STSv1x; id=1":              "",
		"v=STSv1":                     "",
		"v=STSv1; id=é":               "",
	} {
		if got, err := ParseTXT([]string{record}); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", record, got, err)
		}
	}
}

func TestParsePolicy(t *testing.T) {
	const good = "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 10\n"
	for content, want := range map[string]bool{
		good:                                 true,
		good + "\n\n":                        true,
		good + "note: größer\n":              true,
		good + "note\n":                      false,
		good + "bad name: x\n":               false,
		good + "note: \xff\n":                false,
		good + strings.Repeat("\n", MaxSize): false,
		strings.ReplaceAll(good, "a.example", "a.example."):                        true,
		strings.ReplaceAll(good, "a.example", "*"):                                 false,
		strings.ReplaceAll(good, "a.example", "*."):                                false,
		strings.ReplaceAll(good, "a.example", "*.*.example"):                       false,
		strings.ReplaceAll(good, "a.example", "-a.example"):                        false,
		strings.ReplaceAll(good, "a.example", "a..example"):                        false,
		strings.ReplaceAll(good, "a.example", "bücher.example"):                    false,
		strings.ReplaceAll(good, "a.example", strings.Repeat("a.", 130)+"example"): false,
		strings.ReplaceAll(good, "10", ""):                                         false,
		strings.ReplaceAll(good, "10", "+10"):                                      false,
		strings.ReplaceAll(good, "10", "9999999999"):                               true, // kept for a year
		strings.ReplaceAll(good, "version", "Version"):                             false,
	} {
		p, err := ParsePolicy([]byte(content))
		if (err == nil) != want {
			t.Errorf("%.200q: %+v, %v", content, p, err)
		}
		if p.MaxAge > maxMaxAge*time.Second {
			t.Errorf("%.200q: kept for %v", content, p.MaxAge)
		}
	}
}

// FuzzParsePolicy: what is read has what it must have, and matches its own hosts.
func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte("version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"))
	f.Add([]byte("version: STSv1\nmode: none\nmax_age: 0"))
	f.Fuzz(func(t *testing.T, content []byte) {
		p, err := ParsePolicy(content)
		if err != nil {
			return
		}
		if p.Mode != None && len(p.MX) == 0 || p.MaxAge < 0 || p.MaxAge > maxMaxAge*time.Second {
			t.Errorf("%q is %+v", content, p)
		}
		for _, pattern := range p.MX {
			if host := strings.Replace(pattern, "*", "a", 1); !p.Match(host) {
				t.Errorf("%q does not match %q of its own", p.MX, host)
			}
		}
	})
}

// FuzzParseTXT: an id is what an id may be.
func FuzzParseTXT(f *testing.F) {
	f.Add("v=STSv1; id=20160831085700Z;", "v=spf1 -all")
	f.Fuzz(func(t *testing.T, one, two string) {
		id, err := ParseTXT([]string{one, two})
		if (err == nil) == (id == "") || len(id) > 32 || !alphanumeric(id, "") {
			t.Errorf("%q, %q: %q, %v", one, two, id, err)
		}
	})
}
