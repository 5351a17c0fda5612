// Package demo is the outside world that `postroom demo` plays: a stranger's mail server that hands over a letter, and
// the owner's mail program that fetches it. It talks to the server over real sockets only and knows nothing of what is
// inside; starting the server is not its job.
//
// The clients speak just enough SMTP (RFC 5321, 3207) and POP3 (RFC 1939) for one letter, strictly: every reply is
// bounded and must have the expected code, and the certificate must be signed by the given authority.
package demo

import (
	"context"
	"fmt"
	"time"
)

// Step is one thing to do, with the name that a failure is reported under.
type Step struct {
	Name string
	// Run does it. What is worth showing, such as a reply of the server, goes to note, one line per call.
	Run func(ctx context.Context, note Note) error
}

// Note shows one line of what happened.
type Note func(format string, args ...any)

// Result is how a step went.
type Result struct {
	Number int // counted from 1
	Name   string
	Notes  []string
	Took   time.Duration
	Err    error
}

// StepError says which step failed, and why.
type StepError struct {
	Number int
	Step   string
	Err    error
}

func (e *StepError) Error() string { return fmt.Sprintf("step %d, %s: %v", e.Number, e.Step, e.Err) }

func (e *StepError) Unwrap() error { return e.Err }

// Run takes the steps in order, reports each, and stops at the first that fails with a *StepError.
func Run(ctx context.Context, steps []Step, report func(Result)) error {
	for i, step := range steps {
		result := Result{Number: i + 1, Name: step.Name}
		start := time.Now()
		result.Err = ctx.Err()
		if result.Err == nil {
			result.Err = step.Run(ctx, func(format string, args ...any) {
				result.Notes = append(result.Notes, fmt.Sprintf(format, args...))
			})
		}
		result.Took = time.Since(start)
		report(result)
		if result.Err != nil {
			return &StepError{Number: result.Number, Step: step.Name, Err: result.Err}
		}
	}
	return nil
}
