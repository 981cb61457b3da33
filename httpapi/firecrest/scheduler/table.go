package scheduler

import (
	"crypto/rand"
	"slices"
	"strconv"
	"strings"
)

// A table is how a command is asked for rows: each field is followed by a
// separator that is made anew for each command, so that nobody can put it into the
// name of a job. A newline is as good as any other character of a field.
type table struct {
	fields    []string
	separator string
}

func newTable(fields ...string) table {
	// Slurm takes a digit at its beginning for the width of a field.
	return table{fields: fields, separator: "x" + rand.Text()}
}

// format is the value of squeue's and sinfo's --Format.
func (t table) format() string {
	parts := make([]string, 0, len(t.fields))
	for _, f := range t.fields {
		parts = append(parts, f+":"+t.separator)
	}
	return strings.Join(parts, ",")
}

// rows reads what was printed. The first field of a row has no newline in it, so
// that what a login script prints before the first row does no harm.
func (t table) rows(printed []byte) [][]string {
	// Encoding to JSON would replace what is no UTF-8 too, a byte at a time.
	text := strings.ToValidUTF8(string(printed), "\uFFFD")
	fields := strings.Split(text, t.separator)
	var rows [][]string
	for row := range slices.Chunk(fields[:len(fields)-1], len(t.fields)) {
		if len(row) < len(t.fields) {
			break
		}
		row[0] = row[0][strings.LastIndexByte(row[0], '\n')+1:]
		rows = append(rows, row)
	}
	return rows
}

// number reads a whole number; what is none is nil.
func number(s string) *int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// count is number with 0 for what is none.
func count(s string) int64 {
	if n := number(s); n != nil {
		return *n
	}
	return 0
}

// text is nil for what Slurm prints when there is nothing.
func text(s string) *string {
	switch s {
	case "", "(null)", "N/A":
		return nil
	}
	return &s
}

// span reads "D-HH:MM:SS", "HH:MM:SS" or "MM:SS" as seconds; what is none, such as
// "UNLIMITED", is nil.
func span(s string) *int64 {
	days, clock, found := strings.Cut(s, "-")
	if !found {
		days, clock = "0", s
	}
	total := number(days)
	parts := strings.Split(clock, ":")
	if total == nil || len(parts) < 2 || len(parts) > 3 {
		return nil
	}
	seconds := int64(0)
	for _, part := range parts {
		n := number(part)
		if n == nil {
			return nil
		}
		seconds = seconds*60 + *n
	}
	seconds += *total * 24 * 60 * 60
	return &seconds
}
