// Package config reads the configuration file: one TOML file with few keys and good defaults. It says what is wrong with
// file, line and key, all at once; it opens nothing and changes nothing.
package config
