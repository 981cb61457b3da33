package scheduler

import (
	"slices"
	"strings"
	"testing"
)

func TestRowsAreReadWhateverIsInTheirFields(t *testing.T) {
	t.Parallel()
	table := newTable("id", "name", "dir")
	if newTable("id").separator == table.separator || strings.ContainsAny(table.separator, ",:%|") {
		t.Errorf("separator %q", table.separator)
	}
	x := table.separator
	printed := "Welcome to the cluster!\n1" + x + "a|b\nc, \x1f" + x + "/home/x y" + x + "\n2_[1-3]" + x + "" + x + "\xff" + x + "\n3" + x + "cut"
	want := [][]string{{"1", "a|b\nc, \x1f", "/home/x y"}, {"2_[1-3]", "", "\uFFFD"}}
	if got := table.rows([]byte(printed)); !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %q", got)
	}
	for _, nothing := range []string{"", "\n", "no rows"} {
		if rows := table.rows([]byte(nothing)); len(rows) != 0 {
			t.Errorf("%q has rows %q", nothing, rows)
		}
	}
}

func TestSpans(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0:01": 1, "59:59": 3599, "1:00:00": 3600, "1-02:03:04": 93784, "365-00:00:00": 31536000,
		"UNLIMITED": -1, "": -1, "N/A": -1, "1:2:3:4": -1, "x:1": -1, "5": -1,
	} {
		got := int64(-1)
		if s := span(text); s != nil {
			got = *s
		}
		if got != want {
			t.Errorf("%q is %d s, want %d", text, got, want)
		}
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	for id, valid := range map[string]bool{
		"1": true, "12_3": true, "12_[1-3,7%2]": true, "12+1": true, "12.batch": true, "12_3.0": true, "12.pbs-1.site": true, "12[].pbs": true, "12[3].pbs": true,
		"": false, "-1": false, "1 2": false, "1;2": false, "1_": false, "1\n": false, "1_[a]": false, "--help": false, "1_[1": false, ".": false, "1/2": false,
	} {
		if ValidID(id) != valid {
			t.Errorf("%q is valid: %v", id, !valid)
		}
	}
	for _, c := range []struct {
		asked, id string
		want      bool
	}{
		{"4", "4", true},
		{"4", "4_1", true},
		{"4", "4_[1-3%1]", true},
		{"4", "4+1", true},
		{"4", "40", false},
		{"4_1", "4_1", true},
		{"4_1", "4_2", false},
		{"4_2", "4_[1-3%1]", true},
		{"4_9", "4_[1-3%1]", false},
		{"4_9", "4_[1-3,9]", true},
		{"4_4", "4_[0-8:2]", true},
		{"4_5", "4_[0-8:2]", false},
		{"4_[1-2]", "4_1", true},
		{"4_[1-2]", "4_3", false},
		{"4+1", "4+1", true},
		{"4+1", "4+0", false},
		{"4.batch", "4", true},
	} {
		if Covers(c.asked, c.id) != c.want {
			t.Errorf("%q covers %q: %v", c.asked, c.id, !c.want)
		}
	}
}

func FuzzRows(f *testing.F) {
	f.Add("1X", 3)
	f.Add("\n\nX\nXX", 2)
	f.Fuzz(func(t *testing.T, printed string, fields int) {
		if fields < 1 || fields > 30 {
			return
		}
		table := table{fields: make([]string, fields), separator: "X"}
		for _, row := range table.rows([]byte(printed)) {
			if len(row) != fields || strings.Contains(row[0], "\n") {
				t.Errorf("row %q", row)
			}
		}
	})
}

func FuzzIDs(f *testing.F) {
	f.Add("4", "4_[1-3%1]")
	f.Fuzz(func(t *testing.T, a, b string) {
		if ValidID(a) && (a[0] == '-' || strings.ContainsAny(a, " \n/'\"$`\\")) {
			t.Errorf("%q is no id", a)
		}
		Covers(a, b)
	})
}
