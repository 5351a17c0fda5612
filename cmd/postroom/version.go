package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// release and revision are what `make dist` writes into the binary: what the Go tool would stamp depends on how the source was fetched.
var release, revision string

type versionCommand struct{}

// Run prints what was built, from which commit, and with which Go.
func (versionCommand) Run(p *program) error {
	info, _ := debug.ReadBuildInfo()
	_, err := fmt.Fprintf(p.stdout, "postroom %s (%s, %s, %s/%s)\n", version(), commit(revision, info), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// version is the release, else what the Go tool stamped into the binary.
func version() string {
	info, ok := debug.ReadBuildInfo()
	switch {
	case release != "":
		return release
	case !ok || info.Main.Version == "":
		return "(devel)"
	}
	return info.Main.Version
}

// commit says what a binary was built from: by what is written into it, else by the Go tool's stamp.
func commit(revision string, info *debug.BuildInfo) string {
	modified := false
	if revision == "" && info != nil {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				revision = s.Value
			case "vcs.modified":
				modified = s.Value == "true"
			}
		}
	}
	switch {
	case revision == "":
		return "commit unknown"
	case modified:
		return "commit " + revision[:min(12, len(revision))] + " and changes"
	}
	return "commit " + revision[:min(12, len(revision))]
}
