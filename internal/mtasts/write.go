package mtasts

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// How long senders keep a policy of ours. RFC 8461 section 3.2 asks for weeks; while it is on trial or on its way out, a mistake
// should be gone the day after it was mended.
const (
	enforceAge = 14 * 24 * time.Hour
	trialAge   = 24 * time.Hour
)

// ParseMode reads a mode as people and policy files write it.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case Enforce, Testing, None:
		return m, nil
	}
	return "", fmt.Errorf("%q is not a mode: use none, testing or enforce", s)
}

// Own is the policy of a domain whose only mail server is the host.
func Own(mode Mode, host string) Policy {
	p := Policy{Mode: mode, MX: []string{strings.ToLower(host)}, MaxAge: trialAge}
	if mode == Enforce {
		p.MaxAge = enforceAge
	}
	return p
}

// String is the policy file: RFC 8461 section 3.2.
func (p Policy) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: %s\r\nmode: %s\r\n", version, p.Mode)
	for _, mx := range p.MX {
		fmt.Fprintf(&b, "mx: %s\r\n", mx)
	}
	fmt.Fprintf(&b, "max_age: %d\r\n", int64(p.MaxAge/time.Second))
	return b.String()
}

// ID is what stands behind id= in the record of the policy: another one for each policy, so that nobody has to count.
// RFC 8461 section 3.1.
func (p Policy) ID() string {
	sum := sha256.Sum256([]byte(p.String()))
	return hex.EncodeToString(sum[:10])
}
