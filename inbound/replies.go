package inbound

import "github.com/postroom/postroom/internal/wire"

// All that a peer reads from this package.
var (
	replyDeliver          = wire.NewReply(250, 1, 5, "recipient ok")
	replyNoSuchUser       = wire.NewReply(550, 1, 1, "there is no such mailbox here")
	replyNoRelay          = wire.NewReply(550, 7, 1, "this server does not relay to other domains")
	replyNoRouting        = wire.NewReply(550, 7, 1, "addresses that name a route are not accepted")
	replyNobodyYet        = wire.NewReply(451, 3, 0, "this domain has no mailbox yet, try again later")
	replyMailboxFull      = wire.NewReply(452, 2, 2, "the mailbox is full")
	replyGone             = wire.NewReply(451, 2, 1, "a mailbox was removed just now, try again")
	replyDiskReserve      = wire.NewReply(452, 3, 1, "not enough room to accept mail, try again later")
	replyHeaderTooLarge   = wire.NewReply(552, 3, 4, "the header of this message is larger than 256 KiB or has more than 2,000 fields")
	replyLoop             = wire.NewReply(554, 4, 6, "more than 100 Received fields: this message is going in a circle")
	replySubjects         = wire.NewReply(550, 6, 0, "this message looks suspicious and has several Subject fields")
	replyNoAuthor         = wire.NewReply(550, 6, 0, "this message has no From field (RFC 5322 section 3.6)")
	replyAuthorRepeated   = wire.NewReply(550, 6, 0, "this message has several From fields (RFC 5322 section 3.6)")
	replyAuthorDomains    = wire.NewReply(550, 6, 0, "the From field names authors in several domains")
	replyAuthorUnreadable = wire.NewReply(550, 6, 0, "the From field is not a list of mailboxes in domains (RFC 5322 section 3.6.2)")
	replySenderUnknown    = wire.NewReply(550, 1, 8, "the domain of the sender does not exist")
	replySenderNullMX     = wire.NewReply(550, 7, 27, "the domain of the sender says that it sends and takes no mail (RFC 7505)")
	replySenderTempError  = wire.NewReply(451, 4, 3, "the domain of the sender could not be looked up, try again later")
	replyRelayTempError   = wire.NewReply(451, 4, 3, "who passed this message on could not be verified, the DNS failed, try again later")
	replySPFTempError     = wire.NewReply(451, 7, 24, "the sender could not be verified, the DNS failed (SPF), try again later")
	replyDMARCTempError   = wire.NewReply(451, 4, 3, "the author could not be verified, the DNS failed (DMARC), try again later")
)
