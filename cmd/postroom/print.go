package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
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

// zoneLine prints a TXT record for a BIND zone: strings of at most 255 octets (RFC 1035 section 3.3.14).
func (p *program) zoneLine(name, text string) error {
	var quoted []string
	for len(text) > 255 {
		quoted, text = append(quoted, strconv.Quote(text[:255])), text[255:]
	}
	quoted = append(quoted, strconv.Quote(text))
	_, err := fmt.Fprintf(p.stdout, "%s 3600 IN TXT %s\n", name, strings.Join(quoted, " "))
	return err
}
