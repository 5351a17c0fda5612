package web

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/postroom/postroom/queue"
)

// gatherTime is how long a look at the database may take for one scrape.
const gatherTime = 5 * time.Second

// maxDomains bounds the domains whose DNS check has metrics of its own.
const maxDomains = 1000

// Metrics count what happens, and say how things stand. No label holds an address, and each has a bounded number of values.
type Metrics struct {
	registry *prometheus.Registry

	received      *prometheus.CounterVec
	refused       *prometheus.CounterVec
	outcomes      *prometheus.CounterVec
	failures      *prometheus.CounterVec
	logins        *prometheus.CounterVec
	loginFailures *prometheus.CounterVec
	complaints    *prometheus.CounterVec
	latency       *prometheus.HistogramVec
	dnsWrong      *prometheus.GaugeVec
	dnsChecked    *prometheus.GaugeVec

	mu      sync.Mutex // guards domains
	domains map[string]struct{}
}

// NewMetrics returns metrics in a registry of their own.
func NewMetrics(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), domains: map[string]struct{}{}}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return register(m, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return register(m, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels))
	}
	m.received = counter("postroom_letters_received_total", "Letters that were taken, answered 250.", "service")
	m.refused = counter("postroom_refusals_total", "Senders, recipients and letters that were refused, by the code of the reply.", "service", "code")
	m.outcomes = counter("postroom_deliveries_total", "Tries to hand a letter to another server, one for each recipient.", "outcome")
	m.failures = counter("postroom_delivery_failures_total", "Tries that failed, by what they failed of (RFC 3463 section 4).", "outcome", "subject")
	m.logins = counter("postroom_logins_total", "Logins.", "service")
	m.loginFailures = counter("postroom_login_failures_total", "Logins that were refused.", "service", "reason")
	m.complaints = counter("postroom_log_lines_total", "Lines of the log that ask for somebody to look.", "level")
	m.latency = register(m, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "postroom_letter_seconds", Help: "Time from the end of a letter to its 250.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"service"}))
	m.dnsWrong = gauge("postroom_dns_wrong_records", "Required DNS records of a domain that are not as they should be.", "domain")
	m.dnsChecked = gauge("postroom_dns_checked_timestamp_seconds", "When the DNS records of a domain were last looked at.", "domain")
	gauge("postroom_build_info", "The version that runs.", "version").WithLabelValues(version).Set(1)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.prepare()
	return m
}

func register[C prometheus.Collector](m *Metrics, c C) C {
	m.registry.MustRegister(c)
	return c
}

// prepare makes what counts from zero be there from the start: an alert on a rate needs the zero.
func (m *Metrics) prepare() {
	for _, s := range []string{"smtp", "submission"} {
		m.received.WithLabelValues(s)
		m.latency.WithLabelValues(s)
	}
	for _, s := range []string{"pop3", "submission"} {
		m.logins.WithLabelValues(s)
		m.loginFailures.WithLabelValues(s, "credentials")
	}
	for _, o := range []string{"sent", "deferred", "bounced"} {
		m.outcomes.WithLabelValues(o)
	}
	for _, l := range []string{"warn", "error"} {
		m.complaints.WithLabelValues(l)
	}
}

// SetDNS tells how many required records of a domain of this server are wrong. It is for whoever checks them.
func (m *Metrics) SetDNS(domain string, wrong int, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.domains[domain]; !known && len(m.domains) >= maxDomains {
		return
	}
	m.domains[domain] = struct{}{}
	m.dnsWrong.WithLabelValues(domain).Set(float64(wrong))
	m.dnsChecked.WithLabelValues(domain).Set(float64(at.Unix()))
}

// ForgetDNS ends the metrics of a domain that is here no more.
func (m *Metrics) ForgetDNS(domain string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.domains, domain)
	m.dnsWrong.DeleteLabelValues(domain)
	m.dnsChecked.DeleteLabelValues(domain)
}

// Certificate is one that is served.
type Certificate struct {
	Name    string
	Expires time.Time // zero: there is none
	Failing bool      // the last renewal did not work
}

// Sources are asked at each scrape; nil ones are left out.
type Sources struct {
	Queue        func(ctx context.Context) (queue.Stats, error)
	Certificates func() []Certificate
	FreeSpace    func() (int64, error)
	Reserve      int64
	Connections  func() map[string]int // by service
	Log          *slog.Logger
}

// Handler serves the metrics.
func (m *Metrics) Handler(from Sources) http.Handler {
	if from.Log == nil {
		from.Log = slog.New(slog.DiscardHandler)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), gatherTime)
		defer cancel()
		now := prometheus.NewRegistry()
		now.MustRegister(from.look(ctx))
		promhttp.HandlerFor(prometheus.Gatherers{m.registry, now}, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	})
}

// standing is how things stand at one scrape.
type standing []prometheus.Metric

// Describe says nothing: what there is differs from scrape to scrape.
func (standing) Describe(chan<- *prometheus.Desc) {}

// Collect hands it out.
func (s standing) Collect(to chan<- prometheus.Metric) {
	for _, m := range s {
		to <- m
	}
}

// add adds a gauge. labels are names and values in turn.
func (s *standing) add(name, help string, value float64, labels ...string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	*s = append(*s, prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), prometheus.GaugeValue, value, values...))
}

// look asks the sources. What cannot be asked is missing, and postroom_metrics_incomplete says so.
func (from Sources) look(ctx context.Context) (s standing) {
	incomplete := 0.0
	missing := func(what string, err error) {
		incomplete = 1
		from.Log.Warn("metrics incomplete", "of", what, "err", err)
	}
	if from.Queue != nil {
		if q, err := from.Queue(ctx); err != nil {
			missing("queue", err)
		} else {
			s.addQueue(q, time.Now())
		}
	}
	if from.FreeSpace != nil {
		if free, err := from.FreeSpace(); err != nil {
			missing("disk", err)
		} else {
			s.add("postroom_disk_free_bytes", "What can still be stored: free space of the disk, and free pages of the database.", float64(free))
		}
		s.add("postroom_disk_reserve_bytes", "Below it, mail from outside is told to come back.", float64(from.Reserve))
	}
	if from.Connections != nil {
		for service, n := range from.Connections() {
			s.add("postroom_connections", "Open connections.", float64(n), "service", service)
		}
	}
	if from.Certificates != nil {
		s.addCertificates(from.Certificates(), time.Now())
	}
	s.add("postroom_metrics_incomplete", "1: something could not be asked, and its metrics are missing.", incomplete)
	return s
}

func (s *standing) addQueue(q queue.Stats, now time.Time) {
	for _, named := range []struct {
		state queue.State
		name  string
	}{
		{queue.Waiting, "waiting"}, {queue.Held, "held"}, {queue.AccountHeld, "account_held"}, {queue.Aside, "set_aside"},
	} {
		s.add("postroom_queue_recipients", "Recipients in the queue, by why they are there.", float64(q.Recipients[named.state]), "state", named.name)
	}
	overdue := 0.0
	if !q.OldestDue.IsZero() && q.OldestDue.Before(now) {
		overdue = now.Sub(q.OldestDue).Seconds()
	}
	s.add("postroom_queue_overdue_seconds", "How long the recipient that is due has waited that is due longest; 0: none is.", overdue)
	for _, d := range q.Failing {
		s.add("postroom_queue_failing_recipients", "Recipients that were tried and wait, in the domains that have most of them.", float64(d.Recipients), "domain", d.Domain)
	}
}

func (s *standing) addCertificates(all []Certificate, now time.Time) {
	for _, c := range all {
		days := 0.0
		if !c.Expires.IsZero() {
			days = c.Expires.Sub(now).Hours() / 24
		}
		failing := 0.0
		if c.Failing {
			failing = 1
		}
		s.add("postroom_certificate_days_left", "Days until a certificate ends; 0: there is none.", days, "name", c.Name)
		s.add("postroom_certificate_renewal_failing", "1: the last renewal did not work.", failing, "name", c.Name)
	}
}

// classOf is the label of a reply's code.
func classOf(reply string) string {
	if len(reply) >= 3 {
		if n, err := strconv.Atoi(reply[:3]); err == nil && n >= 200 && n < 600 {
			return reply[:3]
		}
	}
	return "other"
}
