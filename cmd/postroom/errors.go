package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/database"
)

// Exit statuses. 64 and 78 are EX_USAGE and EX_CONFIG of sysexits.h.
const (
	statusDone   = 0
	statusNo     = 1  // it was refused, or the answer is no
	statusUnsure = 2  // it could not be found out or done: a disk, a file, the database
	statusUsage  = 64 // the command line is wrong
	statusConfig = 78 // the configuration is wrong
)

// failure ends a command with one sentence for people: what happened, to what, and what to do next.
type failure struct {
	status   int
	sentence string
}

func (f *failure) Error() string { return f.sentence }

func nof(format string, args ...any) error { return &failure{statusNo, fmt.Sprintf(format, args...)} }

func unsuref(format string, args ...any) error {
	return &failure{statusUnsure, fmt.Sprintf(format, args...)}
}

func usagef(format string, args ...any) error {
	return &failure{statusUsage, fmt.Sprintf(format, args...)}
}

// explain turns the error that ended a command into its exit status and the sentence to print.
func explain(err error) (status int, sentence string) {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.status, f.sentence
	}
	if refused, ok := errors.AsType[*accounts.Problem](err); ok {
		return statusNo, refused.Sentence
	}
	if errors.Is(err, database.ErrServerRuns) {
		return statusNo, oneLine(err) + ": stop that one first, or give this one a data_dir of its own"
	}
	return statusUnsure, reason(err)
}

// reason says why, without the words of Go's libraries around it.
func reason(err error) string {
	switch {
	case errors.Is(err, database.ErrNewer):
		return oneLine(err) + ": install that version, this one leaves the database alone"
	case errors.Is(err, database.ErrDiskFull), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "the disk is full, and nothing was changed: make room, then try again"
	case errors.Is(err, context.Canceled):
		return "interrupted"
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Sprintf("%s: %s", path.Path, cause(path.Err))
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		return cause(call.Err)
	}
	return oneLine(err)
}

// oneLine is the text of an error, which may be several joined.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// cause names the common causes in plain words.
func cause(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("not allowed for user id %d: run postroom as root, and let the owner of data_dir use it", os.Geteuid())
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file or directory"
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program listens there already"
	}
	return err.Error()
}
