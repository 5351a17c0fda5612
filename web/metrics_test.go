package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/queue"
)

// series is a line of the text format: https://prometheus.io/docs/instrumenting/exposition_formats.
var series = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\.)*",?)*\})? (\S+)$`)

// scrape reads all metrics. Each line must be one of the format, and each metric have its help and type before it.
func scrape(t *testing.T, m *Metrics, from Sources) map[string]float64 {
	t.Helper()
	a := get(m.Handler(from), "http://127.0.0.1/metrics")
	if a.status != 200 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Fatalf("got %s", a)
	}
	all, typed := map[string]float64{}, map[string]bool{}
	for line := range strings.Lines(a.body) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ := strings.Cut(rest, " ")
			typed[name] = true
			continue
		}
		if strings.HasPrefix(line, "# HELP ") {
			continue
		}
		match := series.FindStringSubmatch(line)
		if match == nil {
			t.Fatalf("not a line of the format: %q", line)
		}
		value, err := strconv.ParseFloat(match[3], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		name := match[1]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && typed[base] {
				name = base
			}
		}
		if !typed[name] {
			t.Errorf("%s has no type", name)
		}
		all[match[1]+match[2]] = value
	}
	return all
}

// sources are healthy ones.
func sources() Sources {
	return Sources{
		Queue: func(context.Context) (queue.Stats, error) {
			return queue.Stats{
				Recipients: map[queue.State]int{queue.Waiting: 3, queue.Aside: 1}, OldestDue: time.Now().Add(-90 * time.Second),
				Failing: []queue.Destination{{Domain: "slow.example", Recipients: 2}},
			}, nil
		},
		Certificates: func() []Certificate {
			return []Certificate{{Name: host, Expires: time.Now().Add(36 * time.Hour)}, {Name: "mta-sts.example.org", Failing: true}}
		},
		FreeSpace:   func() (int64, error) { return 5 << 30, nil },
		Reserve:     1 << 30,
		Connections: func() map[string]int { return map[string]int{"smtp": 4, "pop3": 0} },
	}
}

// TestMetrics shows that everything an operator alerts on is there, by the name that the alerts know.
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMetrics("v1")
		m.SetDNS("example.org", 2, time.Unix(1700000000, 0))
		got := scrape(t, m, sources())
		for name, want := range map[string]float64{
			`postroom_letters_received_total{service="smtp"}`:                    0,
			`postroom_letters_received_total{service="submission"}`:              0,
			`postroom_deliveries_total{outcome="sent"}`:                          0,
			`postroom_deliveries_total{outcome="deferred"}`:                      0,
			`postroom_deliveries_total{outcome="bounced"}`:                       0,
			`postroom_login_failures_total{reason="credentials",service="pop3"}`: 0,
			`postroom_log_lines_total{level="error"}`:                            0,
			`postroom_letter_seconds_count{service="smtp"}`:                      0,
			`postroom_queue_recipients{state="waiting"}`:                         3,
			`postroom_queue_recipients{state="held"}`:                            0,
			`postroom_queue_recipients{state="account_held"}`:                    0,
			`postroom_queue_recipients{state="set_aside"}`:                       1,
			`postroom_queue_overdue_seconds`:                                     90,
			`postroom_queue_failing_recipients{domain="slow.example"}`:           2,
			`postroom_certificate_days_left{name="mail.example.org"}`:            1.5,
			`postroom_certificate_days_left{name="mta-sts.example.org"}`:         0,
			`postroom_certificate_renewal_failing{name="mail.example.org"}`:      0,
			`postroom_certificate_renewal_failing{name="mta-sts.example.org"}`:   1,
			`postroom_disk_free_bytes`:                                           5 << 30,
			`postroom_disk_reserve_bytes`:                                        1 << 30,
			`postroom_connections{service="smtp"}`:                               4,
			`postroom_connections{service="pop3"}`:                               0,
			`postroom_dns_wrong_records{domain="example.org"}`:                   2,
			`postroom_dns_checked_timestamp_seconds{domain="example.org"}`:       1700000000,
			`postroom_build_info{version="v1"}`:                                  1,
			`postroom_metrics_incomplete`:                                        0,
		} {
			if value, ok := got[name]; !ok || value != want {
				t.Errorf("%s is %v (%t), want %v", name, value, ok, want)
			}
		}
		if got["go_goroutines"] == 0 {
			t.Error("the runtime's own metrics are missing")
		}
		m.ForgetDNS("example.org")
		if _, ok := scrape(t, m, sources())[`postroom_dns_wrong_records{domain="example.org"}`]; ok {
			t.Error("a domain that is gone has metrics")
		}
	})
}

// TestMetricsIncomplete shows that a source that fails takes its own metrics away, and no others.
func TestMetricsIncomplete(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Sources)
		gone   string
	}{
		{"queue", func(s *Sources) {
			s.Queue = func(context.Context) (queue.Stats, error) { return queue.Stats{}, errors.New("broken") }
		}, "postroom_queue_overdue_seconds"},
		{"disk", func(s *Sources) { s.FreeSpace = func() (int64, error) { return 0, errors.New("broken") } }, "postroom_disk_free_bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log bytes.Buffer
			s := sources()
			tc.change(&s)
			s.Log = logTo(&log)
			got := scrape(t, NewMetrics("v1"), s)
			if _, there := got[tc.gone]; there || got["postroom_metrics_incomplete"] != 1 || got[`postroom_connections{service="smtp"}`] != 4 {
				t.Errorf("got %v", got)
			}
			if !strings.Contains(log.String(), "of="+tc.name) {
				t.Errorf("the log says %s", log.String())
			}
		})
	}
}

// TestSlowQueue shows that a scrape has an end.
func TestSlowQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sources()
		s.Queue = func(ctx context.Context) (queue.Stats, error) {
			<-ctx.Done()
			return queue.Stats{}, ctx.Err()
		}
		start := time.Now()
		if got := scrape(t, NewMetrics("v1"), s); got["postroom_metrics_incomplete"] != 1 || time.Since(start) != gatherTime {
			t.Errorf("after %v: %v", time.Since(start), got["postroom_metrics_incomplete"])
		}
	})
}

func TestIdleQueue(t *testing.T) {
	for name, s := range map[string]queue.Stats{"empty": {}, "none is due": {OldestDue: time.Now().Add(time.Hour)}} {
		from := sources()
		from.Queue = func(context.Context) (queue.Stats, error) { return s, nil }
		if got, ok := scrape(t, NewMetrics("v1"), from)["postroom_queue_overdue_seconds"]; got != 0 || !ok {
			t.Errorf("%s: overdue %v", name, got)
		}
	}
}

// TestEvents has a row for each line of the log that is counted, and for some that are not.
func TestEvents(t *testing.T) {
	none := ""
	for _, tc := range []struct {
		name    string
		level   slog.Level
		event   string
		attrs   []any
		counted string // the metric that has 1 then, and no other
	}{
		{"received", slog.LevelInfo, maillog.Stored, []any{maillog.Service, "smtp"}, `postroom_letters_received_total{service="smtp"}`},
		{"handed in", slog.LevelInfo, maillog.Stored, []any{maillog.Service, "submission"}, `postroom_letters_received_total{service="submission"}`},
		{"by a program", slog.LevelInfo, maillog.Stored, []any{maillog.Service, "sendmail"}, `postroom_letters_received_total{service="sendmail"}`},
		{"by an unknown service", slog.LevelInfo, maillog.Stored, []any{maillog.Service, "x\ny"}, `postroom_letters_received_total{service="other"}`},
		{"refused", slog.LevelInfo, maillog.Refused, []any{maillog.Service, "smtp", maillog.Reply, "550 5.1.1 no such user"}, `postroom_refusals_total{code="550",service="smtp"}`},
		{"refused, without a reply", slog.LevelInfo, maillog.Refused, []any{maillog.Service, "submission"}, `postroom_refusals_total{code="other",service="submission"}`},
		{"refused, an odd reply", slog.LevelInfo, maillog.Refused, []any{maillog.Service, "smtp", maillog.Reply, "999 a@b"}, `postroom_refusals_total{code="other",service="smtp"}`},
		{"sent", slog.LevelInfo, maillog.Sent, []any{maillog.Service, "queue"}, `postroom_deliveries_total{outcome="sent"}`},
		{"logged in", slog.LevelInfo, maillog.LoggedIn, []any{maillog.Service, "pop3"}, `postroom_logins_total{service="pop3"}`},
		{"wrong password", slog.LevelInfo, maillog.LoginFailed, []any{maillog.Service, "pop3", maillog.Err, fmt.Errorf("x: %w", accounts.ErrBadCredentials)},
			`postroom_login_failures_total{reason="credentials",service="pop3"}`},
		{"throttled", slog.LevelInfo, maillog.LoginFailed, []any{maillog.Service, "submission", maillog.Err, accounts.ErrThrottled},
			`postroom_login_failures_total{reason="throttled",service="submission"}`},
		{"another reason", slog.LevelInfo, maillog.LoginFailed, []any{maillog.Service, "pop3", maillog.Err, errors.New("anna@example.org")},
			`postroom_login_failures_total{reason="other",service="pop3"}`},
		{"a reason that is text", slog.LevelInfo, maillog.LoginFailed, []any{maillog.Service, "pop3", maillog.Err, "anna@example.org"},
			`postroom_login_failures_total{reason="other",service="pop3"}`},
		{"a warning", slog.LevelWarn, "below the disk reserve", nil, `postroom_log_lines_total{level="warn"}`},
		{"an error", slog.LevelError, "broken", nil, `postroom_log_lines_total{level="error"}`},
		{"anything else", slog.LevelInfo, "session ended", []any{maillog.Service, "pop3"}, none},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := NewMetrics("v1")
			slog.New(m.Counting(slog.DiscardHandler)).Log(t.Context(), tc.level, tc.event, tc.attrs...)
			got := scrape(t, m, Sources{})
			for name, value := range got {
				counts := strings.HasSuffix(strings.SplitN(name, "{", 2)[0], "_total") && strings.HasPrefix(name, "postroom_")
				if want := name == tc.counted; counts && (value == 1) != want {
					t.Errorf("%s is %v", name, value)
				}
				if strings.Contains(name, "@") {
					t.Errorf("an address is in %s", name)
				}
			}
			if _, ok := got[tc.counted]; tc.counted != none && !ok {
				t.Errorf("%s is missing", tc.counted)
			}
		})
	}
}

// TestFailuresBySubject has a row for each subject of RFC 3463 section 4.
func TestFailuresBySubject(t *testing.T) {
	for enhanced, want := range map[string]string{
		"5.1.1": "address", "4.2.2": "mailbox", "4.3.1": "system", "4.4.1": "network", "5.5.0": "protocol", "5.6.0": "content", "5.7.26": "policy",
		"4.0.0": "other", "5.9.9": "other", "": "other", "550": "other", "a@b.example": "other", "4.x.1": "other",
	} {
		for _, event := range []string{maillog.Deferred, maillog.Bounced} {
			m := NewMetrics("v1")
			slog.New(m.Counting(slog.DiscardHandler)).Info(event, maillog.Enhanced, enhanced)
			got := scrape(t, m, Sources{})
			if got[`postroom_delivery_failures_total{outcome="`+event+`",subject="`+want+`"}`] != 1 || got[`postroom_deliveries_total{outcome="`+event+`"}`] != 1 {
				t.Errorf("%s %q is not counted as %s", event, enhanced, want)
			}
		}
	}
}

// TestLatency shows that the time of a letter comes from its line, with the service of the session's logger.
func TestLatency(t *testing.T) {
	m := NewMetrics("v1")
	log := slog.New(m.Counting(slog.DiscardHandler)).With(maillog.Service, "smtp", maillog.SessionID, "1")
	log.Info(maillog.Stored, maillog.Took, 30*time.Millisecond)
	log.WithGroup("g").With(maillog.Service, "pop3").Info(maillog.Stored, maillog.Took, 3*time.Second)
	got := scrape(t, m, Sources{})
	if got[`postroom_letter_seconds_count{service="smtp"}`] != 2 || got[`postroom_letter_seconds_bucket{service="smtp",le="0.05"}`] != 1 ||
		got[`postroom_letter_seconds_sum{service="smtp"}`] != 3.03 {
		t.Errorf("got %v", got)
	}
}

// TestCountingIsUnseen shows that what is logged does not change, and that what nobody wants to see is counted all the same.
func TestCountingIsUnseen(t *testing.T) {
	var plain, counted bytes.Buffer
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelError} {
		plain.Reset()
		counted.Reset()
		m := NewMetrics("v1")
		o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}
		for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&plain, o)), slog.New(m.Counting(slog.NewTextHandler(&counted, o)))} {
			log = log.With(maillog.Service, "smtp")
			log.Debug("dialogue")
			log.Info(maillog.Stored, maillog.Size, 7)
			log.WithGroup("g").With("a", 1).Error("broken", "b", 2)
		}
		if plain.String() != counted.String() {
			t.Errorf("at %v:\n%s\nwithout counting\n%s", level, counted.String(), plain.String())
		}
		if got := scrape(t, m, Sources{}); got[`postroom_letters_received_total{service="smtp"}`] != 1 {
			t.Errorf("at %v it is not counted", level)
		}
	}
}

// TestDomainsAreBounded shows that metrics do not grow with what is checked.
func TestDomainsAreBounded(t *testing.T) {
	m := NewMetrics("v1")
	for i := range maxDomains + 10 {
		m.SetDNS(fmt.Sprintf("d%d.example", i), 0, time.Unix(1, 0))
	}
	n := 0
	for name := range scrape(t, m, Sources{}) {
		if strings.HasPrefix(name, "postroom_dns_wrong_records") {
			n++
		}
	}
	if n != maxDomains {
		t.Errorf("%d domains", n)
	}
}

// TestMetricsAreDescribed keeps the list in the documentation whole.
func TestMetricsAreDescribed(t *testing.T) {
	doc, err := os.ReadFile("../docs/web.md")
	if err != nil {
		t.Fatal(err)
	}
	m := NewMetrics("v1")
	m.SetDNS("example.org", 0, time.Unix(1, 0))
	log := slog.New(m.Counting(slog.DiscardHandler))
	for _, event := range []string{maillog.Stored, maillog.Refused, maillog.Deferred, maillog.LoggedIn, maillog.LoginFailed} {
		log.Info(event)
	}
	described := map[string]bool{}
	for _, name := range regexp.MustCompile("`(postroom_[a-z_]+)`").FindAllStringSubmatch(string(doc), -1) {
		described[name[1]] = true
	}
	served := map[string]bool{}
	for name := range scrape(t, m, sources()) {
		name, _, _ = strings.Cut(name, "{")
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			name = strings.TrimSuffix(name, suffix)
		}
		if strings.HasPrefix(name, "postroom_") {
			served[name] = true
		}
	}
	for name := range served {
		if !described[name] {
			t.Errorf("docs/web.md does not describe %s", name)
		}
	}
	for name := range described {
		if !served[name] {
			t.Errorf("docs/web.md describes %s, which is not served", name)
		}
	}
}
