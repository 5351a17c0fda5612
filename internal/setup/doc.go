// Package setup is what `postroom setup` knows about machines: what there is to find out before mail is set up on one (Look), what
// that means to the person who does it (Judge), what the service manager is told (Unit), and what was made, so that it can be
// unmade (Manifest).
//
// It asks and prints nothing, and knows no account. Judge and the files for systemd are pure functions of values.
package setup
