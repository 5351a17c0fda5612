package tlsconf

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// files is a certificate and a key that somebody else writes: certbot, an operator.
type files struct {
	cert, key string
	seen      [2]stamp
}

// stamp is what tells one version of a file from the next. A file put in its place by a rename is another one.
type stamp struct {
	modified time.Time
	size     int64
	info     os.FileInfo
}

func (a stamp) same(b stamp) bool {
	if a.info == nil || b.info == nil {
		return a.info == nil && b.info == nil
	}
	return a.modified.Equal(b.modified) && a.size == b.size && os.SameFile(a.info, b.info)
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{} // it will say so when it is read
	}
	return stamp{info.ModTime(), info.Size(), info}
}

// interval is how soon a new certificate is served.
func (f *files) interval() time.Duration { return 2 * time.Second }

func (f *files) changed() bool {
	return !f.seen[0].same(stampOf(f.cert)) || !f.seen[1].same(stampOf(f.key))
}

func (f *files) load() (*tls.Certificate, error) {
	f.seen = [2]stamp{stampOf(f.cert), stampOf(f.key)} // before reading: what is written meanwhile is read again
	cert, err := readFile(f.cert)
	if err != nil {
		return nil, err
	}
	key, err := readFile(f.key)
	if err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s do not make a certificate: %w", f.cert, f.key, err)
	}
	return &c, nil
}

func readFile(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no file %s", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("not allowed to read %s", path)
	}
	return b, err
}
