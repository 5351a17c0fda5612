package dkim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

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
	// Keys remembers keys from letter to letter. It may be nil.
	Keys *Keys
}

// budget bounds the time for one letter.
const budget = 5 * time.Second

// Verify verifies the signatures of a letter and returns one result for each that was looked at, in the order of their fields.
func Verify(ctx context.Context, letter Letter, o Options) []Result {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	all := parseAll(letter.Header)
	chosen := choose(all, o.Prefer)
	fetchKeys(ctx, chosen, o)
	verifyChosen(ctx, letter, chosen)
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
	key    key
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
func choose(all []*candidate, prefer func(string) bool) (chosen []*candidate) {
	for _, preferred := range []bool{true, false} {
		for _, c := range all {
			switch {
			case c.Status != "" || c.chosen || (prefer != nil && prefer(c.Domain)) != preferred:
			case len(chosen) == maxSignatures:
				c.Status, c.Reason = Neutral, "too many signatures"
			default:
				c.chosen = true
				chosen = append(chosen, c)
			}
		}
	}
	return chosen
}

// fetchKeys looks up all keys at once, and judges them.
func fetchKeys(ctx context.Context, chosen []*candidate, o Options) {
	var wait sync.WaitGroup
	for _, c := range chosen {
		if c.Status == "" {
			wait.Go(func() { c.fetchKey(ctx, o) })
		}
	}
	wait.Wait()
}

func (c *candidate) fetchKey(ctx context.Context, o Options) {
	records, err := o.TXT(ctx, c.keyName())
	switch {
	case resolve.IsNotFound(err):
		c.Status, c.Reason = PermError, "there is no key at "+c.keyName()
		return
	case err != nil:
		c.Status, c.Reason = TempError, "the key at "+c.keyName()+" could not be looked up"
		return
	}
	c.pickKey(records, o.Keys)
}

// pickKey takes the first record that fits the signature. RFC 6376 section 3.6.2.2 leaves open what several mean; in the
// wild there are two keys of different kinds, and records of something else under a wildcard.
func (c *candidate) pickKey(records []string, known *Keys) {
	err := permanent("there is no key at %s", c.keyName())
	for _, record := range records[:min(len(records), maxKeys)] {
		var k key
		k, err = parseKey(record, c.Signature, known)
		c.key, c.KeyBits, c.Testing = k, k.bits, k.testing
		if err == nil {
			return
		}
	}
	c.judge(err)
}

// verifyChosen verifies what is left: all bodies in one pass, then each header.
func verifyChosen(ctx context.Context, letter Letter, chosen []*candidate) {
	var left []*candidate
	for _, c := range chosen {
		if c.Status == "" {
			left = append(left, c)
		}
	}
	if len(left) == 0 {
		return
	}
	hashes, err := hashBodies(ctx, letter, left)
	for _, c := range left {
		if err == nil {
			err = c.verify(letter, hashes)
		}
		if err != nil {
			c.Status, c.Reason = TempError, "the letter could not be read in time"
		}
	}
}

// pieces keeps what bodies are read through for the next ones.
var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

const pieceSize = 32 << 10

// hashBodies returns the hash of the body in each canonical form that is needed, by whether it is relaxed.
func hashBodies(ctx context.Context, letter Letter, left []*candidate) (map[bool][]byte, error) {
	hashers := map[bool]*bodyHasher{}
	for _, c := range left {
		if hashers[c.relaxedBody] == nil {
			h := newBodyHasher(sha256.New(), c.relaxedBody)
			defer h.free() // at most two
			hashers[c.relaxedBody] = h
		}
	}
	pooled := pieces.Get().(*[pieceSize]byte)
	defer pieces.Put(pooled)
	buffer := pooled[:]
	for at := letter.Header.BodyOffset; at < letter.Size; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := letter.Content.ReadAt(buffer[:min(int64(len(buffer)), letter.Size-at)], at)
		for _, h := range hashers {
			_, _ = h.Write(buffer[:n]) // never fails
		}
		at += int64(n)
		if err != nil && !(err == io.EOF && at == letter.Size) {
			return nil, errors.Join(err, io.ErrUnexpectedEOF)
		}
	}
	sums := map[bool][]byte{}
	for relaxed, h := range hashers {
		sums[relaxed] = h.sum()
	}
	return sums, nil
}

// verify compares the body's hash, then the signature of the header. An error is one of reading.
func (c *candidate) verify(letter Letter, hashes map[bool][]byte) error {
	if !bytes.Equal(hashes[c.relaxedBody], c.bodyHash) {
		c.Status, c.Reason = Fail, "the body was changed"
		return nil
	}
	signed, err := c.signedHeader(letter)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(signed)
	if c.key.verifies(digest[:], c.signature) {
		c.Status = Pass
	} else {
		c.Status, c.Reason = Fail, "the signature does not fit the header"
	}
	return nil
}

// signedHeader is what the signature signs: the fields that h= names, of those with the same name the last one first (RFC 6376
// section 5.4.2), then the signature's own field. A name for which there is no field left stands for none.
func (c *candidate) signedHeader(letter Letter) (signed []byte, err error) {
	fields := letter.Header.Fields
	next := map[string]int{} // where to look for the next field of a name, upwards
	for _, name := range c.Signed {
		name = strings.ToLower(name)
		at, begun := next[name]
		if !begun {
			at = len(fields)
		}
		for at--; at >= 0 && (!fields[at].Is(name) || fields[at].Start == c.field.Start); at-- {
		}
		next[name] = max(at, 0)
		if at < 0 {
			continue
		}
		if signed, err = c.appendField(signed, letter, fields[at]); err != nil {
			return nil, err
		}
		signed = append(signed, "\r\n"...)
	}
	raw, err := rawField(letter, c.field)
	if err != nil {
		return nil, err
	}
	own := withoutSignature(string(raw))
	_, body, _ := strings.Cut(own, ":")
	return appendField(signed, message.Field{Name: c.field.Name, Body: body}, []byte(own), c.relaxedHeader), nil
}

// appendField appends one field in the canonical form of the signature.
func (c *candidate) appendField(b []byte, letter Letter, f message.Field) ([]byte, error) {
	if c.relaxedHeader {
		return appendField(b, f, nil, true), nil
	}
	raw, err := rawField(letter, f)
	return appendField(b, f, raw, false), err
}

// rawField reads a field as it came, without its line end and what is malformed behind it.
func rawField(letter Letter, f message.Field) ([]byte, error) {
	raw := make([]byte, f.BodyStart+int64(len(f.Body))-f.Start)
	if n, err := letter.Content.ReadAt(raw, f.Start); n < len(raw) {
		return nil, err
	}
	return raw, nil
}
