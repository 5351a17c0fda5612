package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a terminal: what a person types goes into the first.
func openTerminal(t *testing.T) (person, terminal *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { terminal.Close() })
	return person, terminal
}

// typist answers each prompt with the next line.
type typist struct {
	bytes.Buffer
	answer func()
}

func (w *typist) Write(b []byte) (int, error) {
	if bytes.HasSuffix(b, []byte(": ")) {
		w.answer()
	}
	return w.Buffer.Write(b)
}

func TestPasswordAtTheTerminal(t *testing.T) {
	in := settled(t)
	for _, tc := range []struct {
		name   string
		typed  []string // "" stands for Ctrl-C
		status int
		says   string
	}{
		{"the same twice", []string{"a good password", "a good password"}, statusDone, "has a new password"},
		{"a slip", []string{"a good password", "a god password"}, statusNo, "not the same"},
		{"nothing", []string{"\n", "\n"}, statusUsage, "is empty"},
		{"stopped", []string{""}, statusUnsure, "interrupted"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			person, terminal := openTerminal(t)
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			shown := new(typist)
			shown.answer = func() {
				next := tc.typed[0]
				tc.typed = tc.typed[1:]
				if next == "" {
					interrupt()
					return
				}
				if _, err := person.WriteString(strings.TrimSuffix(next, "\n") + "\n"); err != nil {
					t.Error(err)
				}
			}
			p := &program{stdin: terminal, stdout: new(bytes.Buffer), stderr: shown, passwords: quickPasswords}
			status := p.run(ctx, []string{"account", "password", "anna@example.org", "--config", in.config})
			if status != tc.status || !strings.Contains(shown.String(), tc.says) {
				t.Errorf("status %d, %q; want %d and %q", status, shown.String(), tc.status, tc.says)
			}
			state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
			if err != nil || tc.name != "stopped" && state.Lflag&unix.ECHO == 0 {
				t.Errorf("the terminal does not show what is typed any more: %v", err)
			}
			if tc.name == "stopped" { // lets the read end
				_, _ = person.WriteString("\n")
			}
		})
	}
}
