package submission

import (
	"fmt"

	"github.com/postroom/postroom/internal/wire"
	"github.com/postroom/postroom/smtpd"
)

// All that a client reads from this package.
var (
	replyCredentials  = wire.NewReply(535, 7, 8, "wrong name or password")
	replyThrottled    = wire.NewReply(454, 7, 0, "too many failed logins from your network, wait a minute")
	replyMalformed    = wire.NewReply(501, 5, 2, "malformed authentication response")
	replyBusy         = wire.NewReply(454, 7, 0, "too many logins at once, try again later")
	replyTooMany      = wire.NewReply(454, 7, 0, "too many sessions of this account")
	replyNoLonger     = wire.NewReply(530, 7, 0, "this login is no longer valid, log in again")
	replyLiteral      = wire.NewReply(550, 1, 2, "mail to address literals is not sent")
	replyNoSuchUser   = wire.NewReply(550, 1, 1, "there is no such mailbox here")
	replyNobodyYet    = wire.NewReply(451, 3, 0, "this domain has no mailbox yet, try again later")
	replyMailboxFull  = wire.NewReply(452, 2, 2, "the mailbox is full")
	replyGone         = wire.NewReply(451, 2, 1, "a mailbox was removed just now, try again")
	replyDiskReserve  = wire.NewReply(452, 3, 1, "not enough room to accept mail, try again later")
	replyHeader       = wire.NewReply(552, 3, 4, "the header of this message is larger than 256 KiB or has more than 2,000 fields")
	replyMalformedHdr = wire.NewReply(550, 6, 0, "the header has lines that are no fields (RFC 5322 section 2.2)")
	replyLoop         = wire.NewReply(554, 4, 6, "more than 100 Received fields: this message is going in a circle")
	replyAuthors      = wire.NewReply(550, 6, 0, "this message needs one From field with mailboxes in domains (RFC 5322 section 3.6.2)")
	replyHeld         = wire.NewReply(450, 7, 1, "sending is on hold for this account, ask your postmaster")
)

// refuseSender names the address that a login may not use: RFC 6409 section 6.1.
func refuseSender(address string) error {
	return smtpd.Refuse(553, 7, 1, fmt.Sprintf("you may not send as %s: it neither delivers to your account nor was granted to it", address))
}

// replyAuthor is the same for an address in the header.
func replyAuthor(address string) smtpd.Reply {
	return wire.NewReply(550, 7, 1, fmt.Sprintf("you may not send as %s, which the From field names", address))
}
