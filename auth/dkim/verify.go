package dkim

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	library "github.com/emersion/go-msgauth/dkim"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/internal/resolve"
)

// Status is the result of one signature, RFC 8601 section 2.7.1.
type Status string

// The results.
const (
	Pass      Status = "pass"
	Fail      Status = "fail"
	Policy    Status = "policy"    // not acceptable here, whether right or wrong
	Neutral   Status = "neutral"   // not looked at
	TempError Status = "temperror" // could not tell; a later try might
	PermError Status = "permerror" // can never be verified
)

// Result is what was found of one signature.
type Result struct {
	Signature
	Status  Status
	Reason  string // a short phrase for people; "" for a pass
	KeyBits int
	Testing bool // the key says t=y: RFC 6376 section 3.6.1, the signer is still trying out
}

// Letter is what is verified. Header is that of Content.
type Letter struct {
	Content io.ReaderAt
	Size    int64
	Header  *message.Header
}

// Options are what verification needs from outside.
type Options struct {
	// TXT looks up key records; each is one string. Its errors are those of internal/resolve.
	TXT func(ctx context.Context, name string) ([]string, error)
	// Prefer tells the domains whose signatures matter most: they are verified first. It may be nil.
	Prefer func(domain string) bool
}

// Limits of the work for one letter.
const (
	budget = 5 * time.Second // for all of it
	// maxHashed bounds what is hashed for all signatures together: with a large body, fewer are verified. The library
	// does about 125 MB a second.
	maxHashed = 100 << 20
	// maxEmptyLines bounds a run of line ends in a body with a simple signature: the library goes over it again with each
	// piece that it reads.
	maxEmptyLines = 64 << 10
)

// Verify verifies the signatures of a letter and returns one result for each that was looked at, in the order of their fields.
func Verify(ctx context.Context, letter Letter, o Options) []Result {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	all := parseAll(letter.Header)
	chosen := choose(all, letter, o.Prefer)
	guardRuns(letter, chosen)
	fetchKeys(ctx, chosen, o.TXT)
	verifyChosen(ctx, letter, all, chosen)
	results := make([]Result, len(all))
	for i, c := range all {
		results[i] = c.Result
	}
	return results
}

// candidate is a signature on its way to a result: it has one as soon as Status is set.
type candidate struct {
	Result
	field  message.Field
	record string // of the key
	chosen bool
}

func (c *candidate) judge(err error) {
	if u, ok := errors.AsType[*unfit](err); ok {
		c.Status, c.Reason = u.status, u.reason
	}
}

// parseAll reads the signatures of a header.
func parseAll(h *message.Header) (all []*candidate) {
	now := time.Now()
	for field := range h.All("DKIM-Signature") {
		if len(all) == maxParsed {
			break
		}
		c := &candidate{field: field}
		var err error
		c.Signature, err = parseSignature(field.Body, now)
		c.judge(err)
		all = append(all, c)
	}
	return all
}

// choose picks what is verified: the preferred domains' signatures, then the first ones.
func choose(all []*candidate, letter Letter, prefer func(string) bool) (chosen []*candidate) {
	room := maxSignatures
	if body := letter.Size - letter.Header.BodyOffset; body > 0 {
		room = int(max(1, min(maxSignatures, maxHashed/body)))
	}
	for _, preferred := range []bool{true, false} {
		for _, c := range all {
			switch {
			case c.Status != "" || c.chosen || (prefer != nil && prefer(c.Domain)) != preferred:
			case len(chosen) == room:
				c.Status, c.Reason = Neutral, "too many signatures"
			default:
				c.chosen = true
				chosen = append(chosen, c)
			}
		}
	}
	return chosen
}

// guardRuns gives up simple signatures over bodies with long runs of empty lines.
func guardRuns(letter Letter, chosen []*candidate) {
	for _, c := range chosen {
		if !c.simple {
			continue
		}
		long, err := hasLongRun(letter)
		for _, c := range chosen {
			switch {
			case !c.simple:
			case err != nil:
				c.Status, c.Reason = TempError, "the letter could not be read"
			case long:
				c.Status, c.Reason = Policy, "the body has too many empty lines in a row"
			}
		}
		return
	}
}

// hasLongRun looks for a run of line ends that is too long.
func hasLongRun(letter Letter) (bool, error) {
	buffer := make([]byte, 32<<10)
	body := io.NewSectionReader(letter.Content, letter.Header.BodyOffset, letter.Size-letter.Header.BodyOffset)
	run := 0
	for {
		n, err := body.Read(buffer)
		for _, c := range buffer[:n] {
			if c != '\r' && c != '\n' {
				run = 0
			} else if run++; run > maxEmptyLines {
				return true, nil
			}
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// fetchKeys looks up all keys at once, and judges them.
func fetchKeys(ctx context.Context, chosen []*candidate, txt func(context.Context, string) ([]string, error)) {
	var wait sync.WaitGroup
	for _, c := range chosen {
		if c.Status == "" {
			wait.Go(func() { c.fetchKey(ctx, txt) })
		}
	}
	wait.Wait()
}

func (c *candidate) fetchKey(ctx context.Context, txt func(context.Context, string) ([]string, error)) {
	records, err := txt(ctx, c.keyName())
	switch {
	case resolve.IsNotFound(err):
		c.Status, c.Reason = PermError, "there is no key at "+c.keyName()
		return
	case err != nil:
		c.Status, c.Reason = TempError, "the key at "+c.keyName()+" could not be looked up"
		return
	}
	c.pickKey(records)
}

// pickKey takes the first record that fits the signature. RFC 6376 section 3.6.2.2 leaves open what several mean; in the
// wild there are two keys of different kinds, and records of something else under a wildcard.
func (c *candidate) pickKey(records []string) {
	err := permanent("there is no key at %s", c.keyName())
	for _, record := range records[:min(len(records), maxKeys)] {
		var k key
		k, err = parseKey(record, c.Signature)
		c.record, c.KeyBits, c.Testing = record, k.bits, k.testing
		if err == nil {
			return
		}
	}
	c.judge(err)
}

// verifyChosen hands what is left to the library, which sees the fields that are signed and nothing else.
func verifyChosen(ctx context.Context, letter Letter, all, chosen []*candidate) {
	var left []*candidate // in the order of their fields, as the library answers
	for _, c := range all {
		if c.chosen && c.Status == "" {
			left = append(left, c)
		}
	}
	if len(left) == 0 {
		return
	}
	header, err := signedHeader(letter, left)
	var verified []*library.Verification
	body := &patientReader{ctx: ctx, r: io.NewSectionReader(letter.Content, letter.Header.BodyOffset, letter.Size-letter.Header.BodyOffset)}
	if err == nil {
		verified, err = library.VerifyWithOptions(io.MultiReader(strings.NewReader(header), body), &library.VerifyOptions{LookupTXT: keysOf(left)})
	}
	for i, c := range left {
		switch {
		case body.cut || err != nil && len(verified) <= i:
			c.Status, c.Reason = TempError, "the letter could not be read in time"
		case verified[i].Err == nil:
			c.Status = Pass
		default:
			c.explain(verified[i].Err, len(left) < len(all))
		}
	}
}

// explain turns the library's error into a result. dropped says that it did not see all signatures.
func (c *candidate) explain(err error, dropped bool) {
	text := strings.TrimPrefix(err.Error(), "dkim: ")
	switch {
	case dropped && c.Covers("DKIM-Signature"):
		c.Status, c.Reason = Neutral, "it signs other signatures, and not all of them were looked at"
	case library.IsTempFail(err):
		c.Status, c.Reason = TempError, "the key could not be looked up"
	case library.IsPermFail(err):
		c.Status, c.Reason = PermError, text
	case strings.HasPrefix(text, "body hash"):
		c.Status, c.Reason = Fail, "the body was changed"
	default:
		c.Status, c.Reason = Fail, "the signature does not fit the header"
	}
}

// keysOf answers the library's look-ups with the records that were fetched.
func keysOf(left []*candidate) func(string) ([]string, error) {
	records := map[string]string{}
	for _, c := range left {
		records[strings.ToLower(c.keyName())] = c.record
	}
	return func(name string) ([]string, error) {
		selector, domain, _ := strings.Cut(name, "._domainkey.")
		if d, err := addr.ParseDomain(domain); err == nil {
			name = selector + "._domainkey." + d.ASCII()
		}
		if record, ok := records[strings.ToLower(name)]; ok {
			return []string{record}, nil
		}
		return nil, &net.DNSError{Err: "not fetched", Name: name, IsTemporary: true}
	}
}

// signedHeader is the header with the signatures and the fields they name, without malformed lines, and the empty line.
// Less for the library to search, and no line that it would take for a field and we did not.
func signedHeader(letter Letter, left []*candidate) (string, error) {
	names := map[string]bool{}
	starts := map[int64]bool{}
	for _, c := range left {
		starts[c.field.Start] = true
		for _, name := range c.Signed {
			names[strings.ToLower(name)] = true
		}
	}
	var header strings.Builder
	for _, field := range letter.Header.Fields {
		signature := field.Is("DKIM-Signature")
		if signature && !starts[field.Start] || !signature && !names[strings.ToLower(field.Name)] {
			continue
		}
		raw := make([]byte, field.BodyStart+int64(len(field.Body))-field.Start)
		if _, err := letter.Content.ReadAt(raw, field.Start); err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		header.Write(raw)
		header.WriteString("\r\n")
	}
	return header.String() + "\r\n", nil
}

// patientReader ends early instead of failing: the library leaves goroutines behind when a read fails.
type patientReader struct {
	ctx context.Context
	r   io.Reader
	cut bool
}

func (p *patientReader) Read(b []byte) (int, error) {
	if p.ctx.Err() != nil {
		p.cut = true
		return 0, io.EOF
	}
	n, err := p.r.Read(b)
	if err != nil && err != io.EOF {
		p.cut = true
		return n, io.EOF
	}
	return n, err
}
