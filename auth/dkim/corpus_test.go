package dkim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/internal/mailtest"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/internal/resolve"
)

// keys answers TXT look-ups: name -> records. An absent name is NXDOMAIN; the record "!" fails.
type keys map[string][]string

func (k keys) TXT(_ context.Context, name string) ([]string, error) {
	records, ok := k[strings.ToLower(name)]
	switch {
	case !ok:
		return nil, resolve.ErrNotFound
	case len(records) == 1 && records[0] == "!":
		return nil, resolve.ErrServer
	}
	return records, nil
}

// read parses "name record" lines; a backslash at the end joins lines, a colon may follow the name.
func (k keys) read(text string) {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\\\n", " ")
	for line := range strings.SplitSeq(text, "\n") {
		name, record, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || name[0] == '#' {
			continue
		}
		name, record = strings.ToLower(strings.TrimSuffix(name, ":")), strings.TrimSpace(record)
		switch {
		case record == "NXDOMAIN":
		case strings.HasPrefix(record, "~~") || record == "TEMPERROR":
			k[name] = []string{"!"}
		case record == "PERMERROR":
		default:
			k[name] = append(k[name], strings.Trim(record, `"`))
		}
	}
}

// verifyText verifies a letter; lone LFs become CR LF.
func verifyText(t testing.TB, k keys, text []byte) []Result {
	t.Helper()
	text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
	return verifyOctets(t, k, text)
}

func verifyOctets(t testing.TB, k keys, text []byte) []Result {
	t.Helper()
	header, err := message.ReadHeader(bytes.NewReader(text), message.HeaderLimits{})
	if err != nil {
		t.Fatal(err)
	}
	return Verify(t.Context(), Letter{bytes.NewReader(text), int64(len(text)), header}, Options{TXT: k.TXT})
}

// statuses lists the results in order.
func statuses(results []Result) string {
	var all []string
	for _, r := range results {
		all = append(all, string(r.Status))
	}
	return strings.Join(all, " ")
}

// reasons lists the results with their reasons.
func reasons(results []Result) string {
	var all []string
	for _, r := range results {
		all = append(all, fmt.Sprintf("%s %s (%s)", r.Domain, r.Status, r.Reason))
	}
	return strings.Join(all, ", ")
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// different are the letters of the mail-dkim corpus for which this verifier rightly says something else than expected.tsv,
// which tells what was right in 2008.
var different = map[string]string{
	"badkey_8.txt": "g=", "badkey_9.txt": "g=", "badkey_12.txt": "g=", "badkey_13.txt": "g=",
}

// TestMailDKIM runs the mail-dkim corpus under the policy of RFC 8301: rsa-sha1 and short keys never pass.
func TestMailDKIM(t *testing.T) {
	dir := mailtest.Vectors(t, "dkim", "mail-dkim")
	k := keys{}
	k.read(string(mustRead(t, filepath.Join(dir, "FAKE_DNS.dat"))))
	ran, passed, old := 0, 0, 0
	for line := range strings.SplitSeq(string(mustRead(t, filepath.Join(dir, "expected.tsv"))), "\n") {
		name, rest, ok := strings.Cut(line, "\t")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		want, _, _ := strings.Cut(rest, "\t")
		ran++
		results := verifyText(t, k, mustRead(t, filepath.Join(dir, name)))
		got := statuses(results)
		pass := strings.Contains(got, "pass")
		switch {
		case want == "pass" && !pass:
			for _, r := range results {
				if r.Status != Policy && !strings.Contains(r.Reason, "v= is") && !strings.Contains(r.Reason, "malformed") {
					t.Errorf("%s: %s (%s), want pass or policy", name, r.Status, r.Reason)
				}
			}
			old++
		case want != "pass" && pass && different[name] == "":
			t.Errorf("%s: %s, want %s", name, got, want)
		default:
			passed++
		}
	}
	t.Logf("%d letters: %d as expected, %d with rsa-sha1 or signatures of drafts before RFC 4871", ran, passed, old)
	if ran < 70 {
		t.Errorf("%d letters ran", ran)
	}
}

// readLinked reads a file of the corpus. Some were links, and hold the name of another file now; one that is absent is
// the other one given.
func readLinked(t testing.TB, path, absent string) []byte {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		path = absent
	}
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return mustRead(t, filepath.Join(filepath.Dir(path), "01-rfc8463.dns"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(b) < 100 && !strings.ContainsAny(string(b), " \n") {
		return mustRead(t, filepath.Join(filepath.Dir(path), string(b)))
	}
	return b
}

// TestChasquid runs the corpus of chasquid. 02 has more signatures than it looks at, 07 two keys at one selector, 09 an l=
// tag, which is not acceptable here.
func TestChasquid(t *testing.T) {
	dir := mailtest.Vectors(t, "dkim", "chasquid")
	states := map[string]string{"SUCCESS": "pass", "TEMPFAIL": "temperror", "PERMFAIL": "permerror"}
	letters, err := filepath.Glob(filepath.Join(dir, "*.msg"))
	if err != nil || len(letters) != 11 {
		t.Fatalf("%d letters, %v", len(letters), err)
	}
	for _, letter := range letters {
		base := strings.TrimSuffix(letter, ".msg")
		t.Run(filepath.Base(base), func(t *testing.T) {
			if strings.Contains(base, "03-") { // a continuation before the first field
				t.Log("no header can be too malformed here: it has no signature")
				if got := verifyText(t, keys{}, mustRead(t, letter)); len(got) > 0 {
					t.Errorf("got %+v", got)
				}
				return
			}
			k := keys{}
			k.read(string(readLinked(t, base+".dns", base+".dns")))
			var want struct {
				Results []struct{ State, Error string }
			}
			if err := json.Unmarshal(readLinked(t, base+".result", filepath.Join(dir, "01-rfc8463.result")), &want); err != nil {
				t.Fatal(err)
			}
			got := verifyText(t, k, readLinked(t, letter, letter))
			if len(want.Results) == 0 || len(got) < len(want.Results) {
				t.Errorf("%d results, want %d", len(got), len(want.Results))
			}
			for i, w := range want.Results {
				expect := states[w.State]
				if strings.Contains(base, "09-") && i == 0 {
					expect = "policy"
				}
				if i >= len(got) || string(got[i].Status) != expect {
					t.Errorf("signature %d: %s, want %s (%s)", i, reasons(got), expect, w.Error)
				}
			}
		})
	}
}

// TestMailAuth runs the letters of mail-auth; each has its DNS records before the first empty line.
func TestMailAuth(t *testing.T) {
	letters, err := filepath.Glob(filepath.Join(mailtest.Vectors(t, "dkim", "mail-auth"), "dkim-*.txt"))
	if err != nil || len(letters) != 6 {
		t.Fatalf("%d letters, %v", len(letters), err)
	}
	for _, path := range letters {
		dns, letter, _ := strings.Cut(strings.ReplaceAll(string(mustRead(t, path)), "\r\n", "\n"), "\n\n")
		k := keys{}
		k.read(dns)
		got := verifyText(t, k, []byte(letter))
		t.Logf("%s: %s", filepath.Base(path), statuses(got))
		if len(got) == 0 {
			t.Errorf("%s: no signature found", path)
		}
		for _, r := range got {
			if r.Status != Pass && !(strings.HasSuffix(path, "005.txt") && r.Reason == errExpired.reason) { // x= was in 2023
				t.Errorf("%s: %s: %s (%s)", path, r.Domain, r.Status, r.Reason)
			}
		}
	}
}

// TestRFCExamples runs the vectors of RFC 6376 appendix A and RFC 8463 appendix A, as dkimpy has them.
func TestRFCExamples(t *testing.T) {
	dir := mailtest.Vectors(t, "dkim", "dkimpy")
	k := keys{
		"brisbane._domainkey.football.example.com": {"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="},
		"brisbane._domainkey.example.com":          {"v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"},
		"test._domainkey.football.example.com":     {"v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"},
	}
	for name, want := range map[string]string{"rfc6376.signed.msg": "pass pass", "test_nofrom.message": "", "rfc6376.msg": ""} {
		if got := statuses(verifyText(t, k, mustRead(t, filepath.Join(dir, name)))); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
