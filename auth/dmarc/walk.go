package dmarc

import (
	"context"
	"errors"
	"strings"
)

// ErrNotFound is what a Lookup returns for a name that does not exist or has no TXT record. Any other error is temporary.
var ErrNotFound = errors.New("no record")

// DNS is what an evaluation asks.
type DNS struct {
	// TXT returns the TXT records of a name, each as one string.
	TXT func(ctx context.Context, name string) ([]string, error)
	// Exists tells whether a domain exists: RFC 9989 section 3.2.13, all but NXDOMAIN.
	Exists func(ctx context.Context, name string) (bool, error)
}

// maxQueries bounds a tree walk: RFC 9989 section 4.10.
const maxQueries = 8

// maxLookups bounds what one evaluation asks for, whatever many signatures name.
const maxLookups = 60

// errLookups ends an evaluation that asks for too much.
var errLookups = errors.New("too many look-ups")

// TreeWalkNames are the domains whose records a tree walk asks for, in their order: the domain itself and those above it. Of
// a name of more than eight labels all but the last seven are left out after the first query, so that nobody can be made to ask
// hundreds of times.
func TreeWalkNames(domain string) []string {
	names := []string{domain}
	labels := strings.Split(domain, ".")
	if len(labels) > maxQueries {
		labels = labels[len(labels)-maxQueries:]
	}
	for i := 1; i < len(labels); i++ {
		names = append(names, strings.Join(labels[i:], "."))
	}
	return names
}

// found is a record and where it is.
type found struct {
	domain string
	Record
}

// walker asks for records, each once.
type walker struct {
	dns     DNS
	known   map[string]answer
	lookups int
}

type answer struct {
	record *Record // nil for none
	err    error
}

func newWalker(dns DNS) *walker { return &walker{dns: dns, known: map[string]answer{}} }

// record asks for the record of one domain. RFC 9989 section 4.10: what is not a DMARC record is discarded, and of several
// none counts.
func (w *walker) record(ctx context.Context, domain string) (*Record, error) {
	if a, ok := w.known[domain]; ok {
		return a.record, a.err
	}
	if w.lookups++; w.lookups > maxLookups {
		return nil, errLookups
	}
	texts, err := w.dns.TXT(ctx, "_dmarc."+domain)
	if errors.Is(err, ErrNotFound) {
		texts, err = nil, nil
	}
	var a answer
	a.err = err
	count := 0
	for _, text := range texts {
		r, err := ParseRecord(text)
		if !errors.Is(err, ErrNotDMARC) {
			count++
		}
		if err == nil {
			a.record = &r
		}
	}
	if count > 1 {
		a.record = nil
	}
	w.known[domain] = a
	return a.record, a.err
}

// walk is the tree walk from a domain upwards. It ends at a record that says psd=y or psd=n.
func (w *walker) walk(ctx context.Context, domain string) (all []found, err error) {
	for _, name := range TreeWalkNames(domain) {
		r, err := w.record(ctx, name)
		if err != nil {
			return nil, err
		}
		if r == nil {
			continue
		}
		all = append(all, found{name, *r})
		if r.PSD != 'u' {
			break
		}
	}
	return all, nil
}

// organizational is the organizational domain: RFC 9989 section 4.10.2.
func (w *walker) organizational(ctx context.Context, domain string) (string, error) {
	all, err := w.walk(ctx, domain)
	if err != nil {
		return "", err
	}
	return organizationalOf(domain, all), nil
}

// organizationalOf picks it from the records of a tree walk, which are ordered from the longest name to the shortest.
func organizationalOf(domain string, all []found) string {
	if len(all) == 0 {
		return domain
	}
	last := all[len(all)-1] // the fewest labels; psd=y and psd=n end the walk
	if last.PSD == 'y' && last.domain != domain {
		return oneBelow(domain, last.domain)
	}
	return last.domain
}

// oneBelow is the name one label longer than the parent, on the way to the domain.
func oneBelow(domain, parent string) string {
	rest := strings.TrimSuffix(domain, "."+parent)
	return rest[strings.LastIndexByte(rest, '.')+1:] + "." + parent
}

// policyRecord finds the record whose policy counts for an author domain: RFC 9989 section 4.10.1. Its own, else that of its
// organizational domain, else that of the public suffix above.
func (w *walker) policyRecord(ctx context.Context, author string) (policy *found, organizational string, err error) {
	all, err := w.walk(ctx, author)
	if err != nil {
		return nil, "", err
	}
	organizational = organizationalOf(author, all)
	for _, wanted := range []string{author, organizational} {
		for i := range all {
			if all[i].domain == wanted {
				return &all[i], organizational, nil
			}
		}
	}
	if len(all) > 0 && all[len(all)-1].PSD == 'y' {
		return &all[len(all)-1], organizational, nil
	}
	return nil, organizational, nil
}

// OrganizationalDomain finds the organizational domain of a domain by a tree walk.
func OrganizationalDomain(ctx context.Context, dns DNS, domain string) (string, error) {
	return newWalker(dns).organizational(ctx, strings.ToLower(domain))
}
