package queue

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/internal/message"
)

// wide tells whether the notice has octets beyond ASCII: only where the letter had them in its addresses or header.
func (n notice) wide() bool {
	return n.letter.UTF8 || slices.ContainsFunc(n.about, func(r result) bool { return !r.To.Address.IsASCII() })
}

// text makes a value fit for a line of the notice: one line, and ASCII where it must be.
func (n notice) text(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\r' || r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r == 0x7f || r > 0x7e && !n.wide() || r == '\ufffd':
			return '?'
		}
		return r
	}, s)
}

// subject begins the Subject of each kind.
var subject = map[noticeKind]string{failure: "Not delivered", delay: "Not delivered yet", success: "Delivered", arrived: "Delivered"}

// action is what each kind says in the status: RFC 3464 section 2.3.3. Success is told here only where the next server does not
// tell it, so that the last that is known is that it was relayed.
var action = map[noticeKind]string{failure: "failed", delay: "delayed", success: "relayed", arrived: "delivered"}

// compose writes the notice.
func (n notice) compose() []byte {
	var b bytes.Buffer
	boundary := "=_" + n.id.String()
	to := n.to.Address.String()
	if n.to.Postmaster {
		to = n.from.String()
	}
	fmt.Fprintf(&b, "From: Mail delivery <%s>\r\nTo: <%s>\r\nSubject: %s: %s\r\nDate: %s\r\nMessage-ID: <%s@%s>\r\n", n.from, to, subject[n.kind], n.title(),
		n.now.Format(time.RFC1123Z), n.id, n.hostname)
	b.WriteString("Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n") // RFC 3834 section 3.1.7
	var parts bytes.Buffer
	n.part(&parts, boundary, "text/plain; charset=utf-8", n.people())
	n.part(&parts, boundary, n.choose("message/delivery-status", "message/global-delivery-status"), n.status())
	if kind, content := n.returned(); len(content) > 0 {
		n.part(&parts, boundary, kind, content)
	}
	fmt.Fprintf(&b, "Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"%s\"\r\nContent-Transfer-Encoding: %s\r\n\r\n%s--%s--\r\n",
		boundary, encoding(parts.Bytes()), parts.Bytes(), boundary)
	return b.Bytes()
}

// encoding: RFC 2045 section 6.2; a part with octets beyond ASCII makes its whole so (section 6.4).
func encoding(content []byte) string {
	if isASCII(content) {
		return "7bit"
	}
	return "8bit"
}

func isASCII(content []byte) bool {
	for _, c := range content {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

func (n notice) choose(ascii, wide string) string {
	if n.wide() {
		return wide
	}
	return ascii
}

func (n notice) part(b *bytes.Buffer, boundary, kind string, content []byte) {
	fmt.Fprintf(b, "--%s\r\nContent-Type: %s\r\nContent-Transfer-Encoding: %s\r\n\r\n%s", boundary, kind, encoding(content), content)
	if !bytes.HasSuffix(content, []byte("\r\n")) {
		b.WriteString("\r\n")
	}
}

// title is the subject of the letter, or its recipient.
func (n notice) title() string {
	h, err := message.ReadHeader(bytes.NewReader(n.original), message.HeaderLimits{})
	if err == nil {
		if s := h.Get("Subject"); s != "" {
			return cut(n.text(s), 200)
		}
	}
	return cut(n.text("your letter to "+n.about[0].To.Address.String()), 200)
}

// cut shortens s to at most so many octets.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

// maxText bounds a line, RFC 5322 section 2.1.1, without what stands before it.
const maxText = 900

// people is the part that people read.
func (n notice) people() []byte {
	var b bytes.Buffer
	switch n.kind {
	case failure:
		b.WriteString("Your letter did not reach these recipients, and will not be tried again:\r\n")
	case delay:
		fmt.Fprintf(&b, "Your letter has not reached these recipients yet. You need not do anything: it is\r\ntried again until %s.\r\n", n.giveUp.UTC().Format("Monday, 2 January, 15:04 MST"))
	case arrived:
		b.WriteString("Your letter is in the mailboxes of these recipients:\r\n")
	case success:
		b.WriteString("Your letter was handed to the mail servers of these recipients:\r\n")
	}
	for _, r := range n.about {
		fmt.Fprintf(&b, "\r\n  %s\r\n", n.text(r.To.Address.String()))
		said := "    "
		if r.Remote && r.Host != "" {
			said += n.text(r.Host) + " said: "
		}
		b.WriteString(cut(said+n.text(r.Reply), maxText) + "\r\n")
		if r.Unclear {
			b.WriteString("    The connection was lost at the very end: it may have arrived all the same.\r\n")
		}
	}
	fmt.Fprintf(&b, "\r\nThe subject of the letter: %s\r\nHanded in: %s\r\nIts id here, for the operator of %s: %s\r\n", n.title(),
		n.letter.Created.UTC().Format(time.RFC1123Z), n.hostname, n.letter.ID)
	return b.Bytes()
}

// status is the part that programs read: RFC 3464 section 2.
func (n notice) status() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Reporting-MTA: dns; %s\r\n", n.hostname)
	if n.letter.EnvelopeID != "" {
		fmt.Fprintf(&b, "Original-Envelope-Id: %s\r\n", n.text(fromXText(n.letter.EnvelopeID)))
	}
	fmt.Fprintf(&b, "Arrival-Date: %s\r\n", n.letter.Created.Format(time.RFC1123Z))
	for _, r := range n.about {
		b.WriteString("\r\n")
		if kind, address, ok := strings.Cut(r.Original, ";"); ok {
			fmt.Fprintf(&b, "Original-Recipient: %s; %s\r\n", n.text(kind), n.text(fromXText(address)))
		}
		kind := "rfc822"
		if !r.To.Address.IsASCII() {
			kind = "utf-8" // RFC 6533 section 3
		}
		fmt.Fprintf(&b, "Final-Recipient: %s; %s\r\nAction: %s\r\nStatus: %s\r\n", kind, n.text(r.To.Address.String()), action[n.kind], r.code(n.kind))
		if r.Remote && r.Host != "" {
			fmt.Fprintf(&b, "Remote-MTA: dns; %s\r\n", n.text(r.Host))
		}
		if r.Remote {
			fmt.Fprintf(&b, "Diagnostic-Code: smtp; %s\r\n", cut(n.text(r.Reply), maxText))
		}
		fmt.Fprintf(&b, "Last-Attempt-Date: %s\r\n", n.now.Format(time.RFC1123Z))
		if n.kind == delay {
			fmt.Fprintf(&b, "Will-Retry-Until: %s\r\n", n.giveUp.Format(time.RFC1123Z))
		}
	}
	return b.Bytes()
}

// code is the status of the kind's class: RFC 3463 section 2.
func (r result) code(kind noticeKind) string {
	class := map[noticeKind]string{failure: "5", delay: "4", success: "2", arrived: "2"}[kind]
	if parts := strings.Split(r.Enhanced, "."); len(parts) == 3 {
		return class + "." + parts[1] + "." + parts[2]
	}
	return class + ".0.0"
}

// returned is what a notice gives back: RFC 3461 section 4.3. A letter that is not whole here is given back as its header.
func (n notice) returned() (kind string, content []byte) {
	if len(n.original) == 0 {
		return "", nil
	}
	if n.letter.Return == "FULL" && n.kind == failure && int64(len(n.original)) == n.letter.Size {
		return n.choose("message/rfc822", "message/global"), n.original
	}
	h, err := message.ReadHeader(bytes.NewReader(n.original), message.HeaderLimits{})
	if err != nil {
		return "", nil
	}
	header, err := io.ReadAll(io.LimitReader(bytes.NewReader(n.original), h.BodyOffset))
	if err != nil {
		return "", nil
	}
	return n.choose("text/rfc822-headers", "message/global-headers"), header
}

// fromXText undoes xtext: RFC 3461 section 4.
func fromXText(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '+' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
