package delivery

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postroom/postroom/queue"
)

// TestDecide holds every combination of what a domain publishes, of what a letter asks for and of how its host was found against
// the table below.
//
// A cell is what a connection must have: opt (TLS is tried), enc (TLS), name (a certificate for the name), pin (one that a TLSA
// record names), with +R where REQUIRETLS must be offered and +t where MTA-STS is tested; or the code with which the host is
// refused.
func TestDecide(t *testing.T) {
	const table = `
		dane      mta-sts            | plain | requiretls, found safely | requiretls, found anyhow | TLS-Required: No
		none      none               | opt   | name+R | 5.7.30 | opt
		none      testing            | opt+t | name+R | 5.7.30 | opt
		none      testing,mismatch   | opt+t | name+R | 5.7.30 | opt
		none      enforce            | name  | name+R | name+R | opt
		none      enforce,mismatch   | 4.7.5 | 4.7.5  | 4.7.5  | opt
		usable    none               | pin   | pin+R  | pin+R  | opt
		usable    testing            | pin   | pin+R  | pin+R  | opt
		usable    testing,mismatch   | pin   | pin+R  | pin+R  | opt
		usable    enforce            | pin   | pin+R  | pin+R  | opt
		usable    enforce,mismatch   | pin   | pin+R  | pin+R  | opt
		unusable  none               | enc   | name+R | 5.7.30 | opt
		unusable  testing            | enc+t | name+R | 5.7.30 | opt
		unusable  testing,mismatch   | enc+t | name+R | 5.7.30 | opt
		unusable  enforce            | name  | name+R | name+R | opt
		unusable  enforce,mismatch   | 4.7.5 | 4.7.5  | 4.7.5  | opt
		bogus     none               | 4.7.5 | 4.7.5  | 4.7.5  | opt
		bogus     testing            | 4.7.5 | 4.7.5  | 4.7.5  | opt
		bogus     testing,mismatch   | 4.7.5 | 4.7.5  | 4.7.5  | opt
		bogus     enforce            | 4.7.5 | 4.7.5  | 4.7.5  | opt
		bogus     enforce,mismatch   | 4.7.5 | 4.7.5  | 4.7.5  | opt`
	rows := 0
	for _, line := range strings.Split(strings.TrimSpace(table), "\n")[1:] {
		rows++
		cells := strings.Split(line, "|")
		published := strings.Fields(cells[0])
		for column, f := range letterWishes {
			f.dane = daneStates[published[0]]
			mode, mismatch, _ := strings.Cut(published[1], ",")
			f.sts, f.stsMatch = stsModes[mode], mode != "none" && mismatch == ""
			if got, want := show(decide(f)), strings.TrimSpace(cells[column+1]); got != want {
				t.Errorf("%v, wish %d: %s, want %s", published, column, got, want)
			}
			// A smarthost does not care for what others publish, and both wishes at once are REQUIRETLS.
			both := f
			both.requireTLS, both.tlsOptional = true, true
			if f.requireTLS && show(decide(both)) != show(decide(f)) {
				t.Errorf("%v: both wishes give %s", published, show(decide(both)))
			}
			f.relay = true
			if got := show(decide(f)); got != map[bool]string{false: "name", true: "name+R"}[f.requireTLS] {
				t.Errorf("%v over a smarthost: %s", published, got)
			}
		}
	}
	if rows != len(daneStates)*(2*len(stsModes)-1) {
		t.Errorf("%d rows are not all", rows)
	}
}

var (
	daneStates   = map[string]daneState{"none": daneNone, "usable": daneUsable, "unusable": daneUnusable, "bogus": daneBogus}
	stsModes     = map[string]stsMode{"none": stsNone, "testing": stsTesting, "enforce": stsEnforce}
	letterWishes = []facts{{secureMX: true}, {secureMX: true, requireTLS: true}, {requireTLS: true}, {tlsOptional: true, secureMX: true}}
)

// show is a policy in a word.
func show(p policy) string {
	if p.refusal != nil {
		return p.refusal.Enhanced
	}
	s := []string{"opt", "enc", "name", "pin"}[p.need]
	if p.requireTLS {
		s += "+R"
	}
	if p.testing {
		s += "+t"
	}
	return s
}

// TestAfter holds every policy, mode and failure against a table. A letter is what follows a failure: . (go on), 2 (again with
// TLS 1.2), c (again in clear), X (the host is given up).
func TestAfter(t *testing.T) {
	failures := []tlsFailure{noFailure, notOffered, notStarted, handshake, wrongName, expired, untrusted, tlsaMismatch, noRequireTLS}
	const header = "- offer start shake name time trust tlsa require"
	if len(strings.Fields(header)) != len(failures) {
		t.Fatal("the columns are not the failures")
	}
	for _, row := range []struct {
		need                need
		any, old, clear     string
		anyR, oldR, unclear string // the same with REQUIRETLS
	}{
		{optional, ". . . 2 . . . . .", ". . . c . . . . .", ". . . X . . . . .", ". . . 2 . . . . X", ". . . c . . . . X", ". . . X . . . . X"},
		{encrypted, ". X X 2 . . . . .", ". X X X . . . . .", ". X X X . . . . .", ". X X 2 . . . . X", ". X X X . . . . X", ". X X X . . . . X"},
		{named, ". X X 2 X X X . .", ". X X X X X X . .", ". X X X X X X . .", ". X X 2 X X X . X", ". X X X X X X . X", ". X X X X X X . X"},
		{pinned, ". X X 2 . . . X .", ". X X X . . . X .", ". X X X . . . X .", ". X X 2 . . . X X", ". X X X . . . X X", ". X X X . . . X X"},
	} {
		for i, want := range []string{row.any, row.old, row.clear, row.anyR, row.oldR, row.unclear} {
			p := policy{need: row.need, requireTLS: i >= 3}
			m := tlsMode(i % 3)
			var got []string
			for _, f := range failures {
				got = append(got, map[step]string{goOn: ".", retryOld: "2", retryClear: "c", giveUp: "X"}[p.after(m, f)])
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s in mode %d:\n%s\n got %s\nwant %s", show(p), m, header, strings.Join(got, " "), want)
			}
		}
	}
}

// TestNoWayRound shows that no failure, whatever it is and however long it lasts, leads from a policy that asks for something to
// a connection that does not have it, and that all ways end.
func TestNoWayRound(t *testing.T) {
	for dane := range daneStates {
		for sts := range stsModes {
			for i := range 16 {
				f := facts{dane: daneStates[dane], sts: stsModes[sts], stsMatch: i&1 > 0, secureMX: i&2 > 0, requireTLS: i&4 > 0, relay: i&8 > 0}
				p := decide(f)
				if p.refusal != nil {
					continue
				}
				for failure := notOffered; failure <= noRequireTLS; failure++ {
					mode, steps := anyTLS, 0
					for s := p.after(mode, failure); s == retryOld || s == retryClear; s = p.after(mode, failure) {
						mode = map[step]tlsMode{retryOld: oldTLS, retryClear: inClear}[s]
						if steps++; steps > 2 {
							t.Fatalf("%+v never ends at %s", f, failure)
						}
					}
					if mode == inClear && (f.relay || f.requireTLS || f.sts == stsEnforce || f.dane != daneNone) {
						t.Errorf("%+v goes in clear after %s", f, failure)
					}
				}
			}
		}
	}
}

func TestPolicyOutcome(t *testing.T) {
	for _, tc := range []struct {
		policy  policy
		failure tlsFailure
		want    string
	}{
		{policy{need: named}, notOffered, "0 4.7.10"},
		{policy{need: named}, notStarted, "0 4.7.10"},
		{policy{need: named}, expired, "0 4.7.5"},
		{policy{need: pinned}, tlsaMismatch, "0 4.7.5"},
		{policy{need: named, requireTLS: true}, noRequireTLS, "2 5.7.30"},
		{policy{need: named, requireTLS: true}, notOffered, "2 5.7.10"},
		{policy{need: named, requireTLS: true}, wrongName, "0 4.7.5"},
	} {
		o := tc.policy.outcome(tc.failure)
		if got := fmt.Sprint(int(o.Status), " ", o.Enhanced); got != tc.want || o.Reply != tc.failure.String() || o.Remote {
			t.Errorf("%s: %s %+v, want %s", tc.failure, got, o, tc.want)
		}
	}
	if queue.Deferred != 0 || queue.Failed != 2 {
		t.Error("the statuses have other numbers now")
	}
}
