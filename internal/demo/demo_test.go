package demo

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestRunStopsAtTheFirstFailure(t *testing.T) {
	broken := errors.New("the wheel came off")
	var taken []string
	step := func(name string, err error) Step {
		return Step{Name: name, Run: func(_ context.Context, note Note) error {
			taken = append(taken, name)
			note("in %s", name)
			return err
		}}
	}
	var results []Result
	err := Run(t.Context(), []Step{step("one", nil), step("two", broken), step("three", nil)},
		func(r Result) { results = append(results, r) })

	failed, ok := errors.AsType[*StepError](err)
	if !ok || failed.Number != 2 || failed.Step != "two" || !errors.Is(err, broken) {
		t.Errorf("got error %v, want step 2, two", err)
	}
	if got := strings.Join(taken, " "); got != "one two" {
		t.Errorf("took %q, want one and two", got)
	}
	if len(results) != 2 || results[0].Err != nil || !errors.Is(results[1].Err, broken) || results[1].Notes[0] != "in two" {
		t.Errorf("reported %+v", results)
	}
}

func TestRunStopsWhenTold(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	steps := []Step{
		{"first", func(context.Context, Note) error { cancel(); return nil }},
		{"second", func(context.Context, Note) error { t.Error("the second step was taken"); return nil }},
	}
	if err := Run(ctx, steps, func(Result) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestLetterIsHardToCarry(t *testing.T) {
	letter := string(composeLetter("ben@out.example", "anna@in.example", "1@out.example", time.Unix(0, 0).UTC()))
	if strings.Count(letter, "\n") != strings.Count(letter, "\r\n") || !strings.HasSuffix(letter, "\r\n") {
		t.Error("not every line ends with CR LF")
	}
	for _, want := range []string{"\r\n.\r\n", "\r\n..\r\n", "\r\n.A", "ü", "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n"} {
		if !strings.Contains(letter, want) {
			t.Errorf("the letter lacks %q", want)
		}
	}
}

func TestCompareLetter(t *testing.T) {
	const sent = "Subject: x\r\n\r\nbody\r\n"
	const trace = "Return-Path: <a@b>\r\nReceived: from a by b\r\n"
	for _, tc := range []struct {
		name, fetched string
		added         int
		problem       string
	}{
		{"as it should be", trace + sent, len(trace), ""},
		{"no trace fields", sent, 0, "does not begin with a Return-Path"},
		{"no received field", "Return-Path: <a@b>\r\n" + sent, 0, "no Received field"},
		{"trace fields not ended", "Return-Path: <a@b>\r\nReceived: x" + sent, 0, "do not end a line"},
		{"shortened", trace + sent[:len(sent)-2], 0, "differs from octet 0"},
		{"an octet changed", trace + strings.Replace(sent, "body", "bodz", 1), 0, "differs from octet 17"},
		{"nearly nothing", "x", 0, "1 octets came back of the 20"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			added, err := compareLetter([]byte(sent), []byte(tc.fetched))
			switch {
			case tc.problem == "" && (err != nil || added != tc.added):
				t.Errorf("got %d, %v; want %d", added, err, tc.added)
			case tc.problem != "" && (err == nil || !strings.Contains(err.Error(), tc.problem)):
				t.Errorf("got %v, want %q", err, tc.problem)
			}
		})
	}
}
