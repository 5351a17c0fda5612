package maillog

import (
	"fmt"
	"io"
	"log/slog"
)

// The keys of log attributes. Every line has svc; every line of a session has sid and remote; every line about a letter
// has msg, its id, so that one grep tells its story.
const (
	Service   = "svc"
	SessionID = "sid"
	Remote    = "remote"
	Msg       = "letter" // written as "msg", which slog keeps for the phrase
	Account   = "account"
	From      = "from"
	To        = "to"
	Size      = "size"
	Reply     = "reply"
	Enhanced  = "enhanced" // the status code of RFC 3463 that stands for it
	Err       = "err"
	Addr      = "addr"
	Took      = "took"      // a letter: from its end to its 250
	Verdict   = "verdict"   // what mail authentication found
	Suspicion = "suspicion" // why a letter is marked; "" for one that is not
)

// The phrases of events.
const (
	Listening   = "listening"
	Ready       = "ready"
	Stopping    = "stopping"
	Stopped     = "stopped"
	Stored      = "stored"
	Refused     = "refused"
	Sent        = "sent"
	Deferred    = "deferred"
	Bounced     = "bounced"
	LoggedIn    = "logged in"
	LoginFailed = "login failed"
	Fetched     = "session ended"
)

// phraseKey is where the phrase stands: "msg" is the id of a letter.
const phraseKey = "event"

// New returns a logger that writes lines of the format ("text" or "json") at or above the level.
func New(w io.Writer, level slog.Leveler, format string) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: rename}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("log format %q is neither text nor json", format)
}

// rename gives the phrase and the id of a letter the keys that they have in a line.
func rename(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 {
		switch a.Key {
		case slog.MessageKey:
			a.Key = phraseKey
		case Msg:
			a.Key = slog.MessageKey
		}
	}
	return a
}

// Secret is text that no log and no format verb shows.
type Secret string

const redacted = "redacted"

// LogValue keeps the secret out of slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// String keeps it out of %s and %v.
func (Secret) String() string { return redacted }

// Format keeps it out of every other verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) } // a failed print prints nothing

// MarshalText keeps it out of JSON.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
