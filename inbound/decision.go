package inbound

import (
	"fmt"

	"github.com/postroom/postroom/auth"
	"github.com/postroom/postroom/auth/dmarc"
	"github.com/postroom/postroom/auth/spf"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/internal/wire"
)

// maxReceived is how many hops a letter may have made. RFC 5321 section 6.3: a loop is found by counting Received
// fields, with a threshold of at least 100.
const maxReceived = 100

// facts are what is known of a complete letter before it is kept.
type facts struct {
	header  *message.Header // nil when it is over the limits of this server
	verdict auth.Verdict    // zero where header is nil
	ours    bool            // the author's domain is one of ours, or below one
}

// decision is what happens to a letter: refused where refusal is not zero, else kept, and marked where suspicion says why.
type decision struct {
	refusal   wire.Reply
	suspicion string
}

// decide is the whole policy for mail from outside, as a pure function of the facts. What cannot be mended by waiting comes
// first, then what can, then the marks.
func decide(f facts) decision {
	for _, refusal := range []func(facts) wire.Reply{refuseForm, refuseSender, refuseForged, tryLater} {
		if reply := refusal(f); !reply.IsZero() {
			return decision{refusal: reply}
		}
	}
	suspicion := suspect(f)
	if suspicion != "" && f.header.Count("Subject") > 1 {
		return decision{refusal: replySubjects} // it is not known which one a mail program shows, and so where the mark belongs
	}
	return decision{suspicion: suspicion}
}

// refuseForm judges the letter itself.
func refuseForm(f facts) wire.Reply {
	switch {
	case f.header == nil:
		return replyHeaderTooLarge
	case f.header.Count("Received") > maxReceived:
		return replyLoop
	}
	switch f.verdict.Author.Problem {
	case auth.AuthorMissing:
		return replyNoAuthor
	case auth.AuthorRepeated:
		return replyAuthorRepeated
	case auth.AuthorDomains:
		return replyAuthorDomains
	case auth.AuthorUnreadable:
		return replyAuthorUnreadable
	}
	return wire.Reply{}
}

// refuseSender judges the reverse-path: mail that could never be answered.
func refuseSender(f facts) wire.Reply {
	switch f.verdict.Sender {
	case auth.SenderUnknown:
		return replySenderUnknown
	case auth.SenderNullMX:
		return replySenderNullMX // RFC 7505 section 4.2
	}
	return wire.Reply{}
}

// refuseForged does what the author's domain asks for, unless the letter came over a mailing list or a forwarder: RFC 9989
// section 7.4 tells receivers not to refuse for a policy of reject alone.
func refuseForged(f facts) wire.Reply {
	v := f.verdict
	if !f.forged() || v.Indirect || v.Unclear {
		return wire.Reply{}
	}
	return wire.NewReply(550, 7, 26, fmt.Sprintf("%s asks to reject mail that it did not authenticate (DMARC policy of %s): %s",
		v.Author.Domain, v.DMARC.PolicyDomain, v.Failed()))
}

// forged tells whether the author's domain did not authenticate the letter, and asks to reject such.
func (f facts) forged() bool {
	return f.verdict.DMARC.Result == dmarc.ResultFail && f.verdict.DMARC.Policy == dmarc.Reject
}

// tryLater answers where a temporary failure decides the outcome. It never decides by itself.
func tryLater(f facts) wire.Reply {
	v := f.verdict
	switch {
	case v.Sender == auth.SenderTempError:
		return replySenderTempError
	case f.forged() && v.Unclear:
		return replyRelayTempError // a forgery or a mailing list: which one could not be told
	case !mattersWhoWrote(f) || v.Certain(v.Author.Domain):
		return wire.Reply{}
	case v.DMARC.Result == dmarc.ResultTempError && v.SPF.Status == spf.TempError:
		return replySPFTempError
	case v.DMARC.Result == dmarc.ResultTempError:
		return replyDMARCTempError
	case f.ours && !v.Authenticates(v.Author.Domain) && v.MightAuthenticate(v.Author.Domain):
		return replySPFTempError
	}
	return wire.Reply{}
}

// mattersWhoWrote tells whether the letter's fate could depend on what is not known: not where the policy is known to be none
// and the domain is not ours.
func mattersWhoWrote(f facts) bool {
	return f.ours || f.verdict.DMARC.Policy != dmarc.None
}

// suspect says why a letter that is kept is marked, or nothing.
func suspect(f facts) string {
	v := f.verdict
	switch {
	case f.forged():
		return fmt.Sprintf("%s asks to reject it (DMARC), but a mailing list or forwarder may have changed it: %s", v.Author.Domain, v.Failed())
	case v.DMARC.Result == dmarc.ResultFail && v.DMARC.Policy == dmarc.Quarantine:
		return fmt.Sprintf("%s asks to set it apart (DMARC): %s", v.Author.Domain, v.Failed())
	case f.ours && !v.Authenticates(v.Author.Domain):
		return fmt.Sprintf("it says that it is from %s, which is served here, but came from outside: %s", v.Author.Domain, v.Failed())
	case v.Author.Deceptive != "":
		return v.Author.Deceptive
	}
	return ""
}
