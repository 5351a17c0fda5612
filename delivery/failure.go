package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"

	"github.com/postroom/postroom/internal/wire"
	"github.com/postroom/postroom/queue"
)

// reach is how far a failure goes.
type reach int

const (
	thisAddress reach = iota // another address of the host may do
	thisHost                 // another host may do
	allHosts                 // no other host would do better now
)

// failure is why a host did not take a letter: nothing of it was decided.
type failure struct {
	queue.Outcome // for the recipients, where no other host takes the letter
	reach         reach
	tls           tlsFailure
	gone          bool // the connection is of no use any more
}

// errReply says that the other side does not keep to the protocol.
var errReply = errors.New("delivery: a reply out of turn")

// refused is the failure that a reply means: the host is given up, and the letter is not.
func refused(r wire.Reply, reach reach) *failure {
	return &failure{Outcome: replied(queue.Deferred, r), reach: reach, gone: r.Code == closing}
}

// local is a failure of our own.
func local(enhanced, text string) *failure {
	return &failure{Outcome: queue.Outcome{Enhanced: enhanced, Reply: text}, reach: allHosts}
}

// lost is the failure that an error of the connection means. doing says what was waited for.
func lost(err error, doing string) *failure {
	what, silent := describe(err)
	return &failure{Outcome: queue.Outcome{Enhanced: "4.4.2", Reply: what + " " + doing, Silent: silent}, gone: true}
}

// unreachable is the failure that an error of dialing means.
func unreachable(err error) *failure {
	f := lost(err, "when it was called")
	f.Enhanced = "4.4.1"
	return f
}

// describe says what an error of a connection means, in words that show nothing of our inside.
func describe(err error) (text string, silent bool) {
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "the attempt was stopped", false
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "the host did not answer in time", true
	case errors.Is(err, wire.ErrBadReply), errors.Is(err, errReply):
		return "the host did not answer as SMTP asks", false
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the host refused the connection", false
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return "there is no way to the host", false
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.ErrClosedPipe), errors.Is(err, net.ErrClosed):
		return "the host closed the connection", false
	}
	return "the connection failed", false
}

// replied is the outcome that a reply means. The class of the enhanced status code follows what we make of the reply.
func replied(status queue.Status, r wire.Reply) queue.Outcome {
	return queue.Outcome{Status: status, Reply: r.String(), Enhanced: enhancedCode(status, r.Enhanced), Remote: true}
}

func enhancedCode(status queue.Status, e wire.Enhanced) string {
	class := map[queue.Status]int{queue.Delivered: 2, queue.Deferred: 4, queue.Failed: 5}[status]
	return strconv.Itoa(class) + fmt.Sprintf(".%d.%d", e.Subject, e.Detail)
}

// classOf is the status that a reply to MAIL, RCPT or the content means. Only 2yz, 4yz and 5yz answer these.
func classOf(r wire.Reply) (queue.Status, bool) {
	switch r.Code / 100 {
	case 2:
		return queue.Delivered, true
	case 4:
		return queue.Deferred, true
	case 5:
		return queue.Failed, true
	}
	return queue.Deferred, false
}

// closing is the code with which a server ends a session at any time. RFC 5321 section 3.8.
const closing = 421

// noReverse tells whether a host refuses us for the reverse DNS of our address. RFC 7372 section 3.
func noReverse(o queue.Outcome) bool { return o.Remote && o.Enhanced[1:] == ".7.25" }
