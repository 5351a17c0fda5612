package inbound

import (
	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/wire"
)

// RouteReply is what RCPT answers to an address with this route when its mailboxes have room, and what `postroom resolve`
// prints.
func RouteReply(kind accounts.RouteKind) wire.Reply {
	switch kind {
	case accounts.Deliver:
		return replyDeliver
	case accounts.UnknownUser:
		return replyNoSuchUser
	case accounts.NotOurs:
		return replyNoRelay
	case accounts.Routing:
		return replyNoRouting
	}
	return replyNobodyYet // and anything unclear is temporary
}

// hasRoom tells whether a letter of the announced size may go to a mailbox. A letter whose size was not announced may
// overshoot by its own size.
func hasRoom(quota, used, announced int64) bool {
	return quota == 0 || used < quota && used+announced <= quota
}
