package main

import (
	"context"
	"io"
)

// printRecords prints the DNS records to publish, for a BIND zone.
func (j *setupJob) printRecords(ctx context.Context) error {
	args := []string{"dns", "records", j.Domain.ASCII(), "--zone"}
	for _, ip := range j.addresses {
		args = append(args, "--ip", ip.String())
	}
	records, err := j.postroom(ctx, args...)
	if err != nil {
		return err
	}
	j.p.say("Publish these records:")
	_, err = io.WriteString(j.p.stdout, records)
	return err
}
