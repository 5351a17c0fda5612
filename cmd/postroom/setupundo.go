package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/postroom/postroom/internal/setup"
)

// undo removes what the manifest names, in the opposite order, after asking.
func (j *setupJob) undo(ctx context.Context) error {
	if !j.there && len(j.manifest.Made) == 0 {
		return nof("there is no %s: nothing to undo", j.file)
	}
	if len(j.manifest.Made) == 0 {
		return nof("setup made nothing that is noted in %s: nothing to undo", j.config.DataDir)
	}
	if err := j.refuseLoss(ctx); err != nil {
		return err
	}
	j.p.say("This goes:")
	for _, made := range slices.Backward(j.manifest.Made) {
		j.p.say("  %-9s  %s", made.Kind, made.Name)
	}
	sure, err := j.ask.yes(ctx, "Remove all of it?")
	if err != nil {
		return err
	}
	if !sure {
		return nof("nothing was removed")
	}
	if err := j.stopService(ctx); err != nil {
		return err
	}
	switch runs, err := j.serverRuns(); {
	case err != nil:
		return err
	case runs:
		return nof("`postroom serve` runs on %s: stop it first", j.config.DataDir)
	}
	if err := j.refuseLoss(ctx); err != nil { // mail may have come while the question was on the screen
		j.startService(ctx)
		return err
	}
	return j.removeAll(ctx)
}

// refuseLoss says no where mail would be lost, or what others made later.
func (j *setupJob) refuseLoss(ctx context.Context) error {
	_, err := os.Stat(filepath.Join(j.config.DataDir, "postroom.db"))
	switch {
	case j.WithMail || errors.Is(err, fs.ErrNotExist):
		return nil
	case !j.there:
		return nof("there is a database in %s, but no %s to look at it with: put that back, or give --with-mail", j.config.DataDir, j.file)
	case err != nil:
		return err
	}
	var (
		all    []shownAccount
		queued []struct{}
		hosted []shownDomain
	)
	if err := errors.Join(j.read(ctx, &all, "account", "list"), j.read(ctx, &queued, "queue", "list"), j.read(ctx, &hosted, "domain", "list")); err != nil {
		return err
	}
	loses := ""
	letters, later := 0, 0
	for _, a := range all {
		mine := j.manifest.Has(setup.MadeAccount, a.Address)
		if j.losesDatabase() || mine {
			letters += a.Messages
		}
		if j.losesDatabase() && !mine {
			later++
		}
	}
	switch {
	case letters > 0:
		loses = fmt.Sprintf("%d letters are kept here", letters)
	case j.losesDatabase() && len(queued) > 0:
		loses = fmt.Sprintf("%d letters wait in the queue", len(queued))
	case later > 0:
		loses = fmt.Sprintf("%d accounts were added after setup", later)
	case j.losesDatabase() && slices.ContainsFunc(hosted, func(d shownDomain) bool { return !j.manifest.Has(setup.MadeDomain, d.ASCII) }):
		loses = "domains were added after setup"
	}
	if loses != "" {
		return nof("%s: nothing was removed. `postroom backup` saves them; --with-mail removes them, too", loses)
	}
	return nil
}

// losesDatabase tells whether the whole database goes.
func (j *setupJob) losesDatabase() bool {
	return slices.ContainsFunc(j.manifest.Made, func(m setup.Made) bool { return m.Kind == setup.MadeDatabase })
}

// startService starts again what undo has stopped for nothing.
func (j *setupJob) startService(ctx context.Context) {
	if !j.manifest.Has(setup.MadeUnit, setup.UnitFile) || !j.m.HasSystemd() {
		return
	}
	if err := j.m.Tool(ctx, "systemctl", "enable", "--now", filepath.Base(setup.UnitFile)); err != nil {
		j.p.say("The service was stopped, and could not be started again: %s", reason(err))
	}
}

func (j *setupJob) stopService(ctx context.Context) error {
	if !j.manifest.Has(setup.MadeUnit, setup.UnitFile) || !j.m.HasSystemd() {
		return nil
	}
	return j.m.Tool(ctx, "systemctl", "disable", "--now", filepath.Base(setup.UnitFile))
}

// removeAll removes one thing after the other. The manifest is the last that goes from its directory.
func (j *setupJob) removeAll(ctx context.Context) error {
	for _, made := range slices.Backward(slices.Clone(j.manifest.Made)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		said, err := j.remove(ctx, made)
		if err != nil {
			return unsuref("the %s %s could not be removed: %s; what is left is still noted: run this again", made.Kind, made.Name, reason(err))
		}
		j.p.say("  %s  %s", said, made.Name)
		if err := j.manifest.Forget(made); err != nil {
			return err
		}
	}
	// Where the data directory is left, the empty manifest is there again.
	if err := os.Remove(filepath.Join(j.config.DataDir, setup.ManifestFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

const (
	gone = "gone"
	left = "left"
)

// remove removes one thing, or leaves it and says so.
func (j *setupJob) remove(ctx context.Context, made setup.Made) (said string, err error) {
	switch made.Kind {
	case setup.MadeAccount:
		if !j.losesDatabase() {
			_, err = j.postroom(ctx, "account", "remove", made.Name, "--now")
		}
	case setup.MadeDomain:
		if !j.losesDatabase() {
			_, err = j.postroom(ctx, "domain", "remove", made.Name)
		}
	case setup.MadeDatabase:
		err = setup.RemoveDatabase(filepath.Dir(made.Name))
	case setup.MadeUnit:
		if err = os.Remove(made.Name); err == nil && j.m.HasSystemd() {
			err = j.m.Tool(ctx, "systemctl", "daemon-reload")
		}
	case setup.MadeFile:
		return j.removeFile(made)
	case setup.MadeDir:
		return j.removeDir(made.Name)
	case setup.MadeUser:
		err = j.m.Tool(ctx, "userdel", made.Name)
	default:
		return "", fmt.Errorf("this version does not know what a %s is", made.Kind)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // somebody was faster
	}
	return gone, err
}

// removeFile leaves a file that was changed: somebody's work is in it.
func (j *setupJob) removeFile(made setup.Made) (said string, err error) {
	switch same, err := made.Unchanged(); {
	case errors.Is(err, fs.ErrNotExist):
		return gone, nil
	case err != nil:
		return "", err
	case !same:
		return left + ", since it was changed:", nil
	}
	return gone, os.Remove(made.Name)
}

// removeDir leaves a folder with something in it that setup did not make.
func (j *setupJob) removeDir(path string) (said string, err error) {
	if path == j.config.DataDir {
		if err := os.Remove(filepath.Join(path, setup.ManifestFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return gone, nil
	case err != nil:
		return "", err
	case len(entries) > 0:
		return left + ", since there is more in it:", nil
	}
	return gone, os.Remove(path)
}
