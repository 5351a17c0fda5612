package database

import (
	"fmt"
	"math"
	"syscall"
)

// FreeSpace returns how many octets can still be stored: the free space of the file system and the free pages inside the
// database file, which deleting leaves behind.
func (db *DB) FreeSpace() (int64, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(db.dir, &fs); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", db.dir, err)
	}
	var pages, size int64
	err := db.ReadRow(db.readers.ctx, "SELECT freelist_count, page_size FROM pragma_freelist_count, pragma_page_size", nil, &pages, &size)
	if err != nil {
		return 0, fmt.Errorf("free pages: %w", err)
	}
	free := float64(fs.Bavail)*float64(fs.Bsize) + float64(pages)*float64(size)
	return int64(min(free, math.MaxInt64/2)), nil
}
