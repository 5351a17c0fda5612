package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// asJSON is embedded by every command that lists or shows.
type asJSON struct {
	JSON bool `name:"json" help:"Print JSON instead of a table."`
}

// table is what a command lists, for people.
type table struct {
	head  []string
	rows  [][]string
	empty string // said instead of a table without rows
}

// add adds one row.
func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// show prints value as JSON where that was asked for, else the table.
func (a asJSON) show(w io.Writer, value any, t *table) error {
	if a.JSON {
		return printJSON(w, value)
	}
	return t.print(w)
}

func (t *table) print(w io.Writer) error {
	if len(t.rows) == 0 {
		_, err := fmt.Fprintln(w, t.empty)
		return err
	}
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{t.head}, t.rows...) {
		fmt.Fprintln(columns, strings.Join(row, "\t")) // tabwriter keeps an error for Flush
	}
	return columns.Flush()
}

func printJSON(w io.Writer, value any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(value)
}

// orDash shows an empty cell.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
