package main

import (
	"context"
	"fmt"
	"io"
)

// printRecords prints the DNS records to publish, for a BIND zone.
func (j *setupJob) printRecords(ctx context.Context) error {
	keys, err := j.postroom(ctx, "dkim", "export", j.Domain.ASCII())
	if err != nil {
		return err
	}
	j.p.say("Publish these records:")
	domain, host := j.Domain.ASCII(), j.config.Hostname
	for _, ip := range j.addresses {
		kind := "A"
		if ip.Is6() {
			kind = "AAAA"
		}
		if _, err := fmt.Fprintf(j.p.stdout, "%s. 3600 IN %s %s\n", host, kind, ip); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(j.p.stdout, "%s. 3600 IN MX 10 %s.\n", domain, host); err != nil {
		return err
	}
	for _, txt := range []struct{ name, text string }{
		{domain + ".", "v=spf1 mx -all"},
		{"_dmarc." + domain + ".", "v=DMARC1; p=none"},
	} {
		if err := j.p.zoneLine(txt.name, txt.text); err != nil {
			return err
		}
	}
	_, err = io.WriteString(j.p.stdout, keys)
	return err
}
