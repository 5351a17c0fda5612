package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is the version that `make dist` writes into the binary.
var release string

type versionCommand struct{}

// Run prints what was built, from which commit, and with which Go.
func (versionCommand) Run(p *program) error {
	info, _ := debug.ReadBuildInfo()
	_, err := fmt.Fprintf(p.stdout, "postroom %s (%s, %s, %s/%s)\n", version(), commit(info), runtime.Version(), runtime.GOOS, runtime.GOARCH)
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

// commit says what a binary was built from.
func commit(info *debug.BuildInfo) string {
	if info == nil {
		return "commit unknown"
	}
	setting := map[string]string{}
	for _, s := range info.Settings {
		setting[s.Key] = s.Value
	}
	revision := setting["vcs.revision"]
	if revision == "" {
		return "commit unknown"
	}
	text := "commit " + revision[:min(12, len(revision))]
	if setting["vcs.modified"] == "true" {
		text += " and changes"
	}
	return text
}
