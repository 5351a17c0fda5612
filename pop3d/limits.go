package pop3d

import "time"

// Limits bound what one client may take. A zero field stands for its default.
type Limits struct {
	BadCommands  int           // not understood or out of order; 10, then the connection is closed
	FailedLogins int           // 3, then the connection is closed
	Idle         time.Duration // wait for a command: 10 min, the least that RFC 1939 section 3 allows
	Login        time.Duration // until somebody has logged in: 3 min
	Write        time.Duration // a client that does not read what it asked for: 3 min
}

const (
	maxCommandLine = 255   // octets with CR LF; RFC 2449 section 4
	maxAuthLine    = 12288 // in an AUTH exchange, as RFC 4954 section 4 says for SMTP
	maxName        = 254
)

func (l Limits) withDefaults() Limits {
	return Limits{
		BadCommands:  orDefault(l.BadCommands, 10),
		FailedLogins: orDefault(l.FailedLogins, 3),
		Idle:         orDefault(l.Idle, 10*time.Minute),
		Login:        orDefault(l.Login, 3*time.Minute),
		Write:        orDefault(l.Write, 3*time.Minute),
	}
}

func orDefault[T int | time.Duration](value, standard T) T {
	if value == 0 {
		return standard
	}
	return value
}
