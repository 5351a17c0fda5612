package addr

import (
	"encoding/xml"
	"os"
	"strings"
	"testing"

	"github.com/postroom/postroom/internal/mailtest"
)

// TestIsemail runs the public address vectors. The envelope has RFC 5321's grammar: what is valid there is accepted,
// everything that only RFC 5322 allows in a header (comments, folding, obsolete forms) is refused.
func TestIsemail(t *testing.T) {
	data, err := os.ReadFile(mailtest.Vectors(t, "address/isemail-tests.xml"))
	if err != nil {
		t.Fatal(err)
	}
	var suite struct {
		Tests []struct {
			ID       int    `xml:"id,attr"`
			Address  string `xml:"address"`
			Category string `xml:"category"`
		} `xml:"test"`
	}
	if err := xml.Unmarshal(data, &suite); err != nil {
		t.Fatal(err)
	}
	passed := 0
	for _, tc := range suite.Tests {
		want := false
		switch tc.Category {
		case "ISEMAIL_VALID_CATEGORY", "ISEMAIL_RFC5321":
			want = true
		case "ISEMAIL_DNSWARN": // valid, but not in the DNS of that day, which is no matter of grammar
			want = true
		}
		address := strings.Map(controls, tc.Address)
		_, err := Parse(address)
		_, rest, errPath := ParsePath("<" + address + ">")
		if address != "" && (err == nil) != (errPath == nil) || rest != "" { // <> is a path, but no mailbox
			t.Errorf("case %d: Parse(%q) says %v, ParsePath %v with rest %q", tc.ID, address, err, errPath, rest)
		}
		if (err == nil) != want {
			t.Errorf("case %d, %s: Parse(%q): %v, want accepted: %t", tc.ID, tc.Category, address, err, want)
			continue
		}
		passed++
	}
	t.Logf("%d cases run, %d passed, no deliberate differences", len(suite.Tests), passed)
	if len(suite.Tests) < 164 {
		t.Errorf("only %d cases: the file is not complete", len(suite.Tests))
	}
}

// controls undoes the notation of the file: U+2400 and the character stand for a control character.
func controls(r rune) rune {
	if r >= 0x2400 && r < 0x2420 {
		return r - 0x2400
	}
	return r
}
