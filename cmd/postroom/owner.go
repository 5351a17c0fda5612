package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// owner is the user and group that a data directory belongs to.
type owner struct{ uid, gid int }

// becomeOwner makes a process of root act as the owner of dir from here on, so that no command leaves a file behind
// that the server cannot open. A directory that is still to be made counts as its nearest parent's. It returns a
// warning for people where root is the owner itself.
func becomeOwner(dir string) (warning string, err error) {
	if os.Geteuid() != 0 {
		return "", nil
	}
	who, err := ownerOf(dir)
	if err != nil {
		return "", err
	}
	if who.uid == 0 {
		return fmt.Sprintf("%s belongs to root, so postroom runs as root; give it to a user of its own (chown -R postroom: %s)", dir, dir), nil
	}
	// The order matters: a process that is no longer root may not change its groups. Go sets all threads.
	if err := syscall.Setgroups(who.groups()); err != nil {
		return "", fmt.Errorf("set groups: %w", err)
	}
	if err := syscall.Setgid(who.gid); err != nil {
		return "", fmt.Errorf("set group %d: %w", who.gid, err)
	}
	if err := syscall.Setuid(who.uid); err != nil {
		return "", fmt.Errorf("set user %d: %w", who.uid, err)
	}
	return "", nil
}

// ownerOf finds the owner of dir, or of its nearest parent that exists.
func ownerOf(dir string) (owner, error) {
	for {
		info, err := os.Stat(dir)
		switch {
		case err == nil:
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				return owner{uid: int(stat.Uid), gid: int(stat.Gid)}, nil
			}
			return owner{}, fmt.Errorf("the owner of %s is not known here", dir)
		case !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir):
			return owner{}, err
		}
		dir = filepath.Dir(dir)
	}
}

// groups lists the owner's groups; only the directory's own where the user is in no list of users.
func (o owner) groups() []int {
	groups := []int{o.gid}
	u, err := user.LookupId(strconv.Itoa(o.uid))
	if err != nil {
		return groups // a user without a name (containers) has no other groups
	}
	ids, err := u.GroupIds()
	if err != nil {
		return groups
	}
	for _, id := range ids {
		if gid, err := strconv.Atoi(id); err == nil && gid != o.gid {
			groups = append(groups, gid)
		}
	}
	return groups
}
