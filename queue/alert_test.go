package queue

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/addr"
)

// TestAlert: postmaster and the address outside are told, once an hour of the same, and not of everything.
func TestAlert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outside, err := addr.Parse("me@elsewhere.example")
		if err != nil {
			t.Fatal(err)
		}
		domain, err := addr.ParseDomain("example.org")
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, Options{AlertsTo: outside})
		defer w.run()()
		a := Alert{Domain: domain, Title: "The sky\r\nis falling: ü", Text: "Look up.\nThen run."}
		for range 3 {
			w.q.Alert(t.Context(), a)
		}
		w.sleep(time.Second)
		box := w.boxes["<postmaster>"]
		if len(box) != 1 || !strings.Contains(box[0], "From: Postroom on mail.example.org <postmaster@example.org>\r\nTo: <postmaster@example.org>\r\nSubject: [postroom] The sky??is falling: ?\r\n") ||
			!strings.HasSuffix(box[0], "\r\n\r\nThe sky\r\nis falling: ?.\r\n\r\nLook up.\r\nThen run.\r\n") {
			t.Errorf("postmaster has %q", box)
		}
		if len(w.calls) != 1 || w.calls[0].to[0] != "me@elsewhere.example" || !w.calls[0].letter.From.Null || w.calls[0].letter.Account != 0 {
			t.Errorf("%+v", w.calls)
		}
		time.Sleep(alertInterval)
		w.q.Alert(t.Context(), a)
		for i := range 2 * maxAlerts {
			w.q.Alert(t.Context(), Alert{Title: fmt.Sprint(i), Text: "x"})
		}
		if n := len(w.boxes["<postmaster>"]); n != 1+maxAlerts {
			t.Errorf("postmaster has %d alerts", n)
		}
	})
}
