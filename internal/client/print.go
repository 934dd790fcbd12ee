package client

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// printResult prints a result as indented JSON with --json, and as a table otherwise.
// Cells of lines are separated by tabs.
func (r *Remote) printResult(to Streams, result any, lines ...string) error {
	if r.JSON {
		encoder := json.NewEncoder(to.Out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(result)
	}
	table := tabwriter.NewWriter(to.Out, 0, 0, 2, ' ', 0)
	for _, line := range lines {
		if _, err := fmt.Fprintln(table, line); err != nil {
			return err
		}
	}
	return table.Flush()
}

// printPage prints a page of a list, and the flag that shows the next page.
func (r *Remote) printPage(to Streams, page any, lines []string, hasNext bool, cursor *string) error {
	if err := r.printResult(to, page, lines...); err != nil || r.JSON || !hasNext {
		return err
	}
	_, err := fmt.Fprintf(to.Err, "More results: --after %s\n", *cursor)
	return err
}

// printBalance prints the balance after a change. With --json it prints nothing, because
// the result contains the balance.
func (r *Remote) printBalance(to Streams, balance int64) error {
	if r.JSON {
		return nil
	}
	_, err := fmt.Fprintf(to.Err, "Balance: %d credits\n", balance)
	return err
}

// row formats a line of a table.
func row(cells ...any) string {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		texts[i] = SanitizeLine(fmt.Sprint(cell))
	}
	return strings.Join(texts, "\t")
}

// SanitizeLine replaces control characters with spaces, so that untrusted text
// cannot move the cursor or start a new line.
func SanitizeLine(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return ' '
		}
		return c
	}, text)
}

// sanitizeText is like SanitizeLine but keeps line breaks and tabs.
func sanitizeText(text string) string {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i, line := range lines {
		cells := strings.Split(line, "\t")
		for j, cell := range cells {
			cells[j] = SanitizeLine(cell)
		}
		lines[i] = strings.Join(cells, "\t")
	}
	return strings.Join(lines, "\n")
}

// formatTime formats a time in the local time zone.
func formatTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") } //nolint:gosmopolitan // printed for the user of this machine
