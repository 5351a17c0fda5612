package smtpd

import "time"

// Limits bound what one client may take. A zero field stands for its default.
type Limits struct {
	MessageSize int64 // octets, as RFC 1870 counts: CR LF included, dots of the encoding not; 50 MiB
	Recipients  int   // per transaction; 1,000 (RFC 5321 section 4.5.3.1.8: at least 100)

	BadCommands       int // not understood or out of order; 10, then 421
	RefusedRecipients int // per session; 100, then 421
	FailedLogins      int // per session; 3, then 421

	Command time.Duration // wait for a command: 5 min (RFC 5321 section 4.5.3.2.7)
	Data    time.Duration // wait between two reads of a message: 3 min (section 4.5.3.2.5)
	Write   time.Duration // a client that does not read its replies: 1 min
	ToMail  time.Duration // from the greeting to the first MAIL: 10 min
	Session time.Duration // in all: 1 h
}

const (
	maxCommandLine = 2048  // octets with CR LF; RFC 5321 section 4.5.3.1.4 asks for 512, extensions for more
	maxAuthLine    = 12288 // RFC 4954 section 4
	maxTextLine    = 64 << 10
	minRate        = 60 << 10 // octets in minRateWindow: 1 KiB a second
	minRateWindow  = time.Minute
	maxHello       = 512
)

func (l Limits) withDefaults() Limits {
	return Limits{
		MessageSize:       orDefault(l.MessageSize, 50<<20),
		Recipients:        orDefault(l.Recipients, 1000),
		BadCommands:       orDefault(l.BadCommands, 10),
		RefusedRecipients: orDefault(l.RefusedRecipients, 100),
		FailedLogins:      orDefault(l.FailedLogins, 3),
		Command:           orDefault(l.Command, 5*time.Minute),
		Data:              orDefault(l.Data, 3*time.Minute),
		Write:             orDefault(l.Write, time.Minute),
		ToMail:            orDefault(l.ToMail, 10*time.Minute),
		Session:           orDefault(l.Session, time.Hour),
	}
}

func orDefault[T int | int64 | time.Duration](value, standard T) T {
	if value == 0 {
		return standard
	}
	return value
}
