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
		d, err := addr.ParseDomain(m.Domain)
		if err != nil {
			return domain, replyAuthors, nil
		}
		author := addr.Address{Local: m.Local, Domain: d}
		may, err := t.maySendAs(ctx, author)
		switch {
		case err != nil:
			return domain, smtpd.Reply{}, err
		case !may:
			return domain, replyAuthor(author.String()), nil
		}
		if domain.IsZero() {
			domain = d
		}
	}
	return domain, smtpd.Reply{}, nil
}
