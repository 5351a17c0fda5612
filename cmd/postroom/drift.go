package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/postroom/postroom/dnscheck"
	"github.com/postroom/postroom/internal/maillog"
	"github.com/postroom/postroom/queue"
)

// driftInterval is how often the records of all domains are looked at while the server runs.
const driftInterval = 6 * time.Hour

// watchDNS looks at the records of all domains now and then: for the metrics, and so that the operator hears when a record is gone that
// was there.
func (s *server) watchDNS(ctx context.Context) {
	ticker := time.NewTicker(driftInterval)
	defer ticker.Stop()
	well := map[string]bool{} // domains that had all they need when they were looked at last
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, err := s.lookAtDNS(ctx, well)
		if err != nil && ctx.Err() == nil {
			s.log.Error("DNS records not looked at", maillog.Err, err)
			continue
		}
		for domain := range well {
			if _, still := now[domain]; !still {
				s.metrics.ForgetDNS(domain)
			}
		}
		well = now
	}
}

// lookAtDNS looks at each domain in turn, and tells of those that were well before and are not now.
func (s *server) lookAtDNS(ctx context.Context, before map[string]bool) (well map[string]bool, err error) {
	domains, err := s.stores.accounts.Domains(ctx)
	if err != nil {
		return nil, err
	}
	well = map[string]bool{}
	for _, d := range domains {
		profile, err := profileOf(ctx, s.config, s.stores, dnsTarget{Domain: domainArgument{d.Name}})
		if err != nil {
			return nil, err
		}
		report := dnscheck.Run(ctx, dnscheck.Options{Profile: profile, DNS: s.dns})
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		wrong := amiss(report)
		s.metrics.SetDNS(report.Domain, len(wrong), time.Now())
		if well[report.Domain] = len(wrong) == 0; !well[report.Domain] && before[report.Domain] {
			s.log.Warn("DNS records are not as they were", "domain", report.Domain, "checks", wrong)
			s.queue.Alert(ctx, queue.Alert{Domain: d.Name, Title: "DNS records of " + report.Domain + " are not as they were",
				Text: fmt.Sprintf("Wrong now: %s.\nHow to mend it: postroom dns check %s", strings.Join(wrong, ", "), report.Domain)})
		}
	}
	return well, nil
}

// amiss lists the required checks that found something wrong.
func amiss(r dnscheck.Report) (ids []string) {
	for _, c := range r.Checks {
		if c.Required && (c.Status == dnscheck.Wrong || c.Status == dnscheck.Missing || c.Status == dnscheck.Duplicate) {
			ids = append(ids, c.ID)
		}
	}
	return ids
}
