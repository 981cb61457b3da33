package scheduler

import (
	"context"
	"path"
	"regexp"
	"strings"

	"sallyport/executor"
)

// Metadata asks the controller, and the accounting for what the controller has
// forgotten: scripts if AccountingStoreFlags has job_script, and the paths from
// Slurm 24.05 on. It returns none if there is no such job.
func (Slurm) Metadata(ctx context.Context, run Runner, id string) ([]Metadata, error) {
	show, script, err := both(ctx, run, command("scontrol", "show", "job", withoutStep(id)),
		command("scontrol", "write", "batch_script", withoutStep(id), "-"))
	if err != nil {
		return nil, err
	}
	var found []Metadata
	if show.ExitCode == 0 {
		found = shown(show.Stdout)
	}
	if len(found) == 0 {
		return pastMetadata(ctx, run, id)
	}
	for i := range found {
		// scontrol exits with 0 if there is no script, or if it is somebody else's.
		if script.ExitCode == 0 && len(script.Stdout) > 0 {
			s := strings.ToValidUTF8(string(script.Stdout), "\uFFFD")
			found[i].Script = &s
		}
	}
	return found, nil
}

func withoutStep(id string) string {
	id, _, _ = strings.Cut(id, ".")
	return id
}

var (
	recordStart = regexp.MustCompile(`(?m)^JobId=([0-9]+)( ArrayJobId=([0-9]+) ArrayTaskId=([^ \n]+))?( HetJobId=([0-9]+) HetJobOffset=([0-9]+))?`)
	recordPath  = regexp.MustCompile(`(?m)^   (StdErr|StdIn|StdOut)=(.*)$`)
)

// shown reads "scontrol show job". Its form with a line for each key is the one
// where a path may hold spaces. These keys come after those that a user chooses, so
// the last of a name is the true one.
func shown(printed []byte) []Metadata {
	output := strings.ToValidUTF8(string(printed), "\uFFFD")
	starts := recordStart.FindAllStringSubmatchIndex(output, -1)
	var found []Metadata
	for i, at := range starts {
		end := len(output)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		record := output[at[0]:end]
		m := Metadata{ID: recordID(recordStart.FindStringSubmatch(record))}
		for _, line := range recordPath.FindAllStringSubmatch(record, -1) {
			value := text(line[2])
			switch line[1] {
			case "StdErr":
				m.StandardError = value
			case "StdIn":
				m.StandardInput = value
			case "StdOut":
				m.StandardOutput = value
			}
		}
		found = append(found, m)
	}
	return found
}

func recordID(m []string) string {
	switch {
	case strings.ContainsAny(m[4], "-,%"):
		return m[3] + "_[" + m[4] + "]"
	case m[3] != "":
		return m[3] + "_" + m[4]
	case m[6] != "":
		return m[6] + "+" + m[7]
	}
	return m[1]
}

// pastMetadata asks the accounting.
func pastMetadata(ctx context.Context, run Runner, id string) ([]Metadata, error) {
	t := newTable("JobID", "JobName", "User", "WorkDir")
	paths := newTable("JobID", "JobName", "User", "WorkDir", "StdIn", "StdOut", "StdErr")
	ask := func(t table) executor.Command {
		return command("sacct", "--allusers", "--allocations", "--parsable", "--noheader", "--delimiter="+t.separator,
			"--format="+strings.Join(t.fields, ","), "--jobs="+Base(id))
	}
	result, script, err := both(ctx, run, ask(paths), command("sacct", "--allusers", "--batch-script", "--jobs="+withoutStep(id)))
	if err == nil && result.ExitCode != 0 { // before 24.05 there are no such fields
		paths = t
		result, err = run(ctx, ask(t))
	}
	if err != nil {
		return nil, err
	}
	if result.ExitCode != 0 {
		return nil, failed(result, Other)
	}
	var found []Metadata
	for _, row := range paths.rows(result.Stdout) {
		if !Covers(id, row[0]) {
			continue
		}
		m := Metadata{ID: row[0], Script: pastScript(script)}
		if len(row) == 7 {
			m.StandardInput, m.StandardOutput, m.StandardError = pastPath(row, 4), pastPath(row, 5), pastPath(row, 6)
		}
		found = append(found, m)
	}
	return found, nil
}

// pastPath expands what the accounting keeps as the user wrote it.
func pastPath(row []string, i int) *string {
	if row[i] == "" {
		return nil
	}
	task := ""
	job, element, isArray := strings.Cut(row[0], "_")
	if isArray {
		task = element
	}
	p := strings.NewReplacer("%%", "%", "%j", row[0], "%A", job, "%a", task, "%x", row[1], "%u", row[2]).Replace(row[i])
	if !path.IsAbs(p) {
		p = path.Join(row[3], p)
	}
	return &p
}

// scriptHead is what sacct prints before a script.
var scriptHead = regexp.MustCompile(`(?m)^Batch Script for [^\n]+\n-{80}\n`)

func pastScript(r executor.Result) *string {
	text := strings.ToValidUTF8(string(r.Stdout), "\uFFFD")
	at := scriptHead.FindStringIndex(text)
	if r.ExitCode != 0 || at == nil {
		return nil
	}
	script := text[at[1]:]
	if next := scriptHead.FindStringIndex(script); next != nil {
		script = script[:next[0]]
	}
	if strings.TrimSpace(script) == "NONE" || strings.TrimSpace(script) == "" {
		return nil
	}
	return &script
}
