package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxAnswer bounds one answer, and maxTries how often a question is asked.
const (
	maxAnswer = 1024
	maxTries  = 3
)

// questions asks the person at the keyboard, or what is piped in.
type questions struct {
	p      *program
	silent bool // take what is proposed
	input  *bufio.Reader
}

func newQuestions(p *program, silent bool) *questions {
	return &questions{p, silent, bufio.NewReaderSize(p.stdin, maxAnswer)}
}

// line asks until take accepts the answer. An empty one stands for what is proposed.
func (q *questions) line(ctx context.Context, question, proposed string, take func(string) error) error {
	if q.silent {
		if err := take(proposed); err != nil {
			return usagef("%s: %s", question, err)
		}
		return nil
	}
	prompt := question
	if proposed != "" {
		prompt += " [" + proposed + "]"
	}
	for range maxTries {
		text, err := q.read(ctx, prompt+": ")
		if err != nil {
			return err
		}
		if text == "" {
			text = proposed
		}
		if err = take(text); err == nil {
			return nil
		}
		q.p.say("  %s", err)
	}
	return usagef("no answer to %q could be used: nothing was made", question)
}

// yes asks whether to go on; anything but a y is a no.
func (q *questions) yes(ctx context.Context, question string) (bool, error) {
	if q.silent {
		return true, nil
	}
	text, err := q.read(ctx, question+" [y/N]: ")
	return strings.HasPrefix(strings.ToLower(text), "y"), err
}

// read reads one answer.
func (q *questions) read(ctx context.Context, prompt string) (string, error) {
	fmt.Fprint(q.p.stderr, prompt)
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() { // a read from a terminal cannot be ended; after ctx the process is about to end
		line, err := q.input.ReadSlice('\n')
		got <- answer{string(line), err}
	}()
	select {
	case a := <-got:
		switch {
		case errors.Is(a.err, io.EOF) && a.line == "":
			fmt.Fprintln(q.p.stderr)
			return "", usagef("nobody answers: give the flags (`postroom setup --help`), and --yes to take what is proposed")
		case errors.Is(a.err, bufio.ErrBufferFull):
			return "", usagef("the answer is too long")
		case a.err != nil && !errors.Is(a.err, io.EOF):
			return "", a.err
		}
		return strings.TrimSpace(a.line), nil
	case <-ctx.Done():
		fmt.Fprintln(q.p.stderr)
		return "", ctx.Err()
	}
}
