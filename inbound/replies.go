package inbound

import "github.com/postroom/postroom/internal/wire"

// All that a peer reads from this package.
var (
	replyDeliver        = wire.NewReply(250, 1, 5, "recipient ok")
	replyNoSuchUser     = wire.NewReply(550, 1, 1, "there is no such mailbox here")
	replyNoRelay        = wire.NewReply(550, 7, 1, "this server does not relay to other domains")
	replyNoRouting      = wire.NewReply(550, 7, 1, "addresses that name a route are not accepted")
	replyNobodyYet      = wire.NewReply(451, 3, 0, "this domain has no mailbox yet, try again later")
	replyMailboxFull    = wire.NewReply(452, 2, 2, "the mailbox is full")
	replyGone           = wire.NewReply(451, 2, 1, "a mailbox was removed just now, try again")
	replyDiskReserve    = wire.NewReply(452, 3, 1, "not enough room to accept mail, try again later")
	replyHeaderTooLarge = wire.NewReply(552, 3, 4, "the header of this message is larger than 256 KiB or has more than 2,000 fields")
	replyLoop           = wire.NewReply(554, 4, 6, "more than 100 Received fields: this message is going in a circle")
)
