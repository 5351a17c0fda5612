package mtasts

import (
	"reflect"
	"testing"
	"time"
)

func TestOwn(t *testing.T) {
	for _, tc := range []struct {
		mode Mode
		want string
	}{
		{Enforce, "version: STSv1\r\nmode: enforce\r\nmx: mail.example.org\r\nmax_age: 1209600\r\n"},
		{Testing, "version: STSv1\r\nmode: testing\r\nmx: mail.example.org\r\nmax_age: 86400\r\n"},
		{None, "version: STSv1\r\nmode: none\r\nmx: mail.example.org\r\nmax_age: 86400\r\n"},
	} {
		p := Own(tc.mode, "Mail.example.org")
		if got := p.String(); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.mode, got, tc.want)
		}
		again, err := ParsePolicy([]byte(p.String()))
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Errorf("%s: read back %+v, %v; want %+v", tc.mode, again, err, p)
		}
	}
}

func TestID(t *testing.T) {
	seen := map[string]Policy{}
	for _, p := range []Policy{
		Own(Enforce, "mail.example.org"), Own(Testing, "mail.example.org"), Own(None, "mail.example.org"), Own(Enforce, "mx.example.org"),
		{Mode: Enforce, MX: []string{"mail.example.org"}, MaxAge: time.Hour},
	} {
		id := p.ID()
		if other, ok := seen[id]; ok {
			t.Errorf("%+v and %+v have one id", p, other)
		}
		seen[id] = p
		if got, err := ParseTXT([]string{"v=STSv1; id=" + id + ";"}); err != nil || got != id {
			t.Errorf("%q is read back as %q, %v", id, got, err)
		}
		if id != p.ID() {
			t.Error("the id of a policy changes")
		}
	}
}

func TestParseMode(t *testing.T) {
	for s, want := range map[string]Mode{"none": None, "testing": Testing, "enforce": Enforce, "": "", "Enforce": "", "report": ""} {
		if got, err := ParseMode(s); got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v; want %q", s, got, err, want)
		}
	}
}
