// Package message holds a letter while it passes through: its id, its spooled octets, its header, and the trace fields
// that we put before it. It reads what really arrives, malformed or not, in linear time and bounded memory, and it changes
// nothing: fields are spans of octets, and a letter without some of them is a reader that skips these spans.
//
// It has no network, no storage but a temporary file, and does not judge a letter; it does not compose one either.
//
// RFCs: 5322 (header), 5321 section 4.4 (trace fields), 3848 and 6531 section 4.3 (the "with" keywords), 9562 (ids).
package message
