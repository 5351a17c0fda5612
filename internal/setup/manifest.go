package setup

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// manifestVersion is the form of the manifest; a newer one is left alone.
const manifestVersion = 1

// ManifestFile is the manifest's name in data_dir.
const ManifestFile = "setup.json"

// Kind is what a step makes.
type Kind string

// The kinds.
const (
	MadeUser     Kind = "user"
	MadeDir      Kind = "directory"
	MadeFile     Kind = "file"
	MadeUnit     Kind = "unit"
	MadeDatabase Kind = "database"
	MadeDomain   Kind = "domain"
	MadeAccount  Kind = "account"
)

// Made is one thing that setup made.
type Made struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	Sum  string `json:"sum,omitempty"` // of a file: SHA-256
}

// Manifest lists what setup made on a machine, in that order. What was there before is not in it.
type Manifest struct {
	Version int    `json:"version"`
	Made    []Made `json:"made"`
	path    string
}

// maxManifest bounds what is read.
const maxManifest = 1 << 20

// OpenManifest reads the manifest, which is empty where there is none.
func OpenManifest(path string) (*Manifest, error) {
	m := &Manifest{Version: manifestVersion, path: path}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	suspect := fmt.Errorf("%s may have been written by somebody else than who runs this: look at it, then remove it", path)
	if errors.Is(err, syscall.ELOOP) {
		return nil, suspect
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat() // of what is read: the name may lead elsewhere by now
	if err != nil {
		return nil, err
	}
	if !trusted(info) {
		return nil, suspect
	}
	text, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	if m.Version != manifestVersion {
		return nil, fmt.Errorf("%s was written by another version of Postroom", path)
	}
	return m, nil
}

// trusted tells whether a manifest is our own: root would remove what it names, in a directory where another user may write.
func trusted(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode().IsRegular() && int(stat.Uid) == os.Geteuid() && stat.Nlink == 1
}

// Has tells whether setup made the thing.
func (m *Manifest) Has(kind Kind, name string) bool {
	return slices.ContainsFunc(m.Made, func(x Made) bool { return x.Kind == kind && x.Name == name })
}

// Add notes what was made, at once: what follows may fail. Before the directory of the manifest is there, it only remembers.
func (m *Manifest) Add(made ...Made) error {
	m.Made = append(m.Made, made...)
	return m.save()
}

// Forget notes that something is gone.
func (m *Manifest) Forget(made Made) error {
	m.Made = slices.DeleteFunc(m.Made, func(x Made) bool { return x == made })
	return m.save()
}

// save writes the manifest beside itself first, so that it is there whole or as it was.
func (m *Manifest) save() error {
	dir := filepath.Dir(m.path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ManifestFile+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), m.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// WriteNew writes a file that is not there yet, and returns what to note. The error is fs.ErrExist where it is.
func WriteNew(path string, content []byte, mode fs.FileMode) (Made, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return Made{}, err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil { // whatever the umask is
		return Made{}, errors.Join(err, os.Remove(path))
	}
	return Made{MadeFile, path, sum(content)}, nil
}

// Unchanged tells whether a file is as it was made.
func (x Made) Unchanged() (bool, error) {
	content, err := os.ReadFile(x.Name)
	return err == nil && sum(content) == x.Sum, err
}

func sum(content []byte) string {
	s := sha256.Sum256(content)
	return hex.EncodeToString(s[:])
}

// ownFiles are the patterns of the files that Postroom makes in data_dir.
var ownFiles = []string{"postroom.db", "postroom.db-wal", "postroom.db-shm", "postroom-before-*.db", "postroom.lock", "secret.key", "backup-*.part",
	"tls/*", "tls", "spool/*", "spool"}

// RemoveDatabase removes what Postroom keeps in data_dir, and nothing else that lies there. It follows no link that leads out: root
// may be the one who removes, in a directory where another user may write.
func RemoveDatabase(dataDir string) error {
	root, err := os.OpenRoot(dataDir)
	if err != nil {
		return err
	}
	defer root.Close()
	var all error
	for _, pattern := range ownFiles {
		found, err := fs.Glob(root.FS(), pattern)
		all = errors.Join(all, err)
		for _, path := range found {
			if err := root.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				all = errors.Join(all, err)
			}
		}
	}
	return all
}
