package main

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/term"
)

type backupCommand struct {
	File string `arg:"" help:"The file to make, or - for standard output. It must not be there yet."`
}

// Run copies the database while the server runs. The file is made before root is given up: a backup usually goes where the
// owner of the data directory may not write.
func (c *backupCommand) Run(ctx context.Context, p *program) (err error) {
	if c.File == "-" {
		if f, ok := p.stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return usagef("a backup is no text for a terminal: send it into a file or a program")
		}
		return p.withStores(ctx, func(s *stores) error {
			_, err := s.db.Backup(ctx, p.stdout)
			return err
		})
	}
	f, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if info, e := os.Lstat(c.File); errors.Is(err, fs.ErrExist) && e == nil && info.Mode().IsRegular() && info.Size() == 0 {
		f, err = os.OpenFile(c.File, os.O_WRONLY, 0) // what a backup that failed has left
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return nof("%s is there already, and no backup is written over another: give another name", c.File)
	case err != nil:
		return err
	}
	kept := false
	defer func() {
		if !kept {
			_ = f.Truncate(0) // where the file cannot be removed, since root was given up meanwhile, the next backup takes it
			_ = os.Remove(c.File)
		}
		err = errors.Join(err, f.Close())
	}()
	return p.withStores(ctx, func(s *stores) error {
		octets, err := s.db.Backup(ctx, f)
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			return err
		}
		kept = true
		p.say("%s has everything but secret.key (%s). Keep a copy of that from data_dir elsewhere: without it the signing keys in the backup cannot be opened.", c.File, size(octets))
		return nil
	})
}
