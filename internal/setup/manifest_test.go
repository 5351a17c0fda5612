package setup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestManifest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	path := filepath.Join(dir, ManifestFile)
	m, err := OpenManifest(path)
	if err != nil {
		t.Fatal(err)
	}
	user := Made{Kind: MadeUser, Name: "postroom"}
	if err := m.Add(user); err != nil { // before there is a place for it
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	place := Made{Kind: MadeDir, Name: dir}
	if err := m.Add(place); err != nil {
		t.Fatal(err)
	}
	again, err := OpenManifest(path)
	if err != nil || !slices.Equal(again.Made, []Made{user, place}) || !again.Has(MadeUser, "postroom") || again.Has(MadeUser, "mail") {
		t.Errorf("%+v, %v", again, err)
	}
	if err := again.Forget(user); err != nil {
		t.Fatal(err)
	}
	if again, err = OpenManifest(path); err != nil || !slices.Equal(again.Made, []Made{place}) {
		t.Errorf("%+v, %v", again, err)
	}
	if left, _ := filepath.Glob(path + ".*"); left != nil {
		t.Errorf("left behind: %q", left)
	}
	for name, text := range map[string]string{"half": `{"version": 1, "made": [`, "newer": `{"version": 2}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenManifest(path); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

func TestWriteNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postroom.toml")
	made, err := WriteNew(path, []byte("first"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := WriteNew(path, []byte("second"), 0o644); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	if same, err := made.Unchanged(); !same || err != nil {
		t.Errorf("unchanged is %t, %v", same, err)
	}
	if err := os.WriteFile(path, []byte("edited"), 0o644); err != nil {
		t.Fatal(err)
	}
	if same, err := made.Unchanged(); same || err != nil {
		t.Errorf("after an edit: unchanged is %t, %v", same, err)
	}
}

// TestForeignManifest shows that nobody else can have files removed through a manifest.
func TestForeignManifest(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real.json")
	if err := os.WriteFile(real, []byte(`{"version": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	link, second := filepath.Join(dir, "link.json"), filepath.Join(dir, "second.json")
	if err := errors.Join(os.Symlink(real, link), os.Link(real, second)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, second} {
		if _, err := OpenManifest(path); err == nil {
			t.Errorf("%s is read", path)
		}
	}
	if err := os.Remove(second); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenManifest(real); err != nil {
		t.Error(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	if err := os.Chown(real, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenManifest(real); err == nil {
		t.Error("another user's manifest is read")
	}
}

// TestRemoveDatabase shows that only what Postroom makes goes, also where the path means something in a pattern, and nothing that a
// link leads to.
func TestRemoveDatabase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[data]*")
	for _, sub := range []string{"tls", "spool", "other"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"postroom.db", "postroom.db-wal", "postroom-before-0080.db", "secret.key", "tls/ca.pem", "spool/x", "other/file", "notes.txt", "setup.json"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveDatabase(dir); err != nil {
		t.Error(err)
	}
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	if err := errors.Join(os.WriteFile(victim, nil, 0o600), os.Symlink(outside, filepath.Join(dir, "tls"))); err != nil {
		t.Fatal(err)
	}
	if err := RemoveDatabase(dir); err != nil {
		t.Log(err)
	}
	if _, err := os.Stat(victim); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "tls")); err != nil {
		t.Fatal(err)
	}
	var left []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"notes.txt", "other", "setup.json"}; !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
}
