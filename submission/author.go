package submission

import (
	"context"

	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/smtpd"
)

// checkAuthors wants one From field, whose authors may all be used by this login: RFC 6409 section 6.1 and RFC 5322 section
// 3.6.2. It returns the domain that signs, that of the first author, or the reply.
func (t *transaction) checkAuthors(ctx context.Context, h *message.Header) (domain addr.Domain, refused smtpd.Reply, err error) {
	if h.Count("From") != 1 {
		return domain, replyAuthors, nil
	}
	mailboxes, err := message.ParseMailboxes(h.Get("From"))
	if err != nil || len(mailboxes) == 0 {
		return domain, replyAuthors, nil
	}
	for _, m := range mailboxes {
		d, refused, err := t.checkAuthor(ctx, m)
		if err != nil || !refused.IsZero() {
			return domain, refused, err
		}
		if domain.IsZero() {
			domain = d
		}
	}
	refused, err = t.checkSenders(ctx, h)
	return domain, refused, err
}

// checkSenders holds the others who say that they have sent the letter to the same rule: many mail programs show them first.
func (t *transaction) checkSenders(ctx context.Context, h *message.Header) (refused smtpd.Reply, err error) {
	for _, name := range []string{"Sender", "Resent-From", "Resent-Sender"} {
		for f := range h.All(name) {
			mailboxes, err := message.ParseMailboxes(f.Value())
			if err != nil {
				return replyAuthors, nil
			}
			for _, m := range mailboxes {
				if _, refused, err := t.checkAuthor(ctx, m); err != nil || !refused.IsZero() {
					return refused, err
				}
			}
		}
	}
	return smtpd.Reply{}, nil
}

// checkAuthor wants an address that this login may use.
func (t *transaction) checkAuthor(ctx context.Context, m message.Mailbox) (domain addr.Domain, refused smtpd.Reply, err error) {
	domain, err = addr.ParseDomain(m.Domain)
	if err != nil {
		return domain, replyAuthors, nil
	}
	author := addr.Address{Local: m.Local, Domain: domain}
	may, err := t.maySendAs(ctx, author)
	if err == nil && !may {
		refused = replyAuthor(author.String())
	}
	return domain, refused, err
}
