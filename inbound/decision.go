package inbound

import (
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/internal/wire"
)

// maxReceived is how many hops a letter may have made. RFC 5321 section 6.3: a loop is found by counting Received
// fields, with a threshold of at least 100.
const maxReceived = 100

// facts are what is known of a complete letter before it is kept. The verdict of mail authentication will be one.
type facts struct {
	header *message.Header // nil when it is over the limits of this server
}

// decide says what the sender of a letter is told, or nothing when the letter is kept. It is a pure function of the facts.
func decide(f facts) wire.Reply {
	switch {
	case f.header == nil:
		return replyHeaderTooLarge
	case f.header.Count("Received") > maxReceived:
		return replyLoop
	}
	return wire.Reply{}
}
