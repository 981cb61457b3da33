package firecrest

import (
	"context"
	"crypto/rand"
	"net/http"
	"path"
	"slices"
	"strings"

	"sallyport/executor"
	"sallyport/httpapi/firecrest/scheduler"
)

// transferOperations are the calls under /filesystem/{system}/transfer: what takes
// longer than a request, as jobs of the caller's.
func transferOperations() []operation {
	const transfer = "/filesystem/{system}/transfer/"
	return []operation{
		{method: http.MethodPost, path: transfer + "mv", name: "transfer.mv", needs: needsCommand, serve: moveJob},
		{method: http.MethodPost, path: transfer + "cp", name: "transfer.cp", needs: needsCommand, serve: copyJob},
		{method: http.MethodDelete, path: transfer + "rm", name: "transfer.rm", needs: needsCommand, serve: removeJob},
		{method: http.MethodPost, path: transfer + "compress", name: "transfer.compress", needs: needsCommand, serve: compressJob},
		{method: http.MethodPost, path: transfer + "extract", name: "transfer.extract", needs: needsCommand, serve: extractJob},
		{method: http.MethodPost, path: transfer + "upload", name: "transfer.upload", serve: uploadJob},
		{method: http.MethodPost, path: transfer + "download", name: "transfer.download", serve: downloadJob},
	}
}

type transferAnswer struct {
	TransferJob transferView `json:"transferJob"`
}

type transferView struct {
	JobID            string   `json:"jobId"`
	System           string   `json:"system"`
	WorkingDirectory string   `json:"workingDirectory"`
	Logs             logsView `json:"logs"`
}

type logsView struct {
	OutputLog string `json:"outputLog"`
	ErrorLog  string `json:"errorLog"`
}

// logsOf are those of a transfer, with FirecREST's names.
func logsOf(dir, id string) logsView {
	return logsView{OutputLog: dir + "/.f7t_file_handling_job_" + id + ".log", ErrorLog: dir + "/.f7t_file_handling_job_error_" + id + ".log"}
}

// randomName has 128 bits and more; paths are not told apart by case.
func randomName() string { return strings.ToLower(rand.Text()) }

// A transfer is a job that handles files. Clients look for "Files were successfully DONE."
// in its output.
type transfer struct {
	name, title string // "CopyFiles", "Copy Files"
	verb, done  string // "copy", "copied"
	command     string // for a shell: every word that is not ours is quoted
	unmoved     string // quoted: folders that no link may lead to when the job runs
	text        string // of the whole script, for what is no command
}

// script is what the job runs. Unlike FirecREST's it ends with the program's own exit
// code, so that the scheduler knows whether it went well.
func (t transfer) script() string {
	if t.text != "" {
		return t.text
	}
	return `#!/bin/sh
PATH=/usr/local/bin:/usr/bin:/bin
cr=$(printf '\r')
` + unmovedFolders + `
echo "$(date -u) ` + t.title + ` Job (id:${SLURM_JOB_ID:-$PBS_JOBID})"
if error=$({ unmoved ` + t.unmoved + ` && ` + t.command + `; } 2>&1 >/dev/null); then
	echo "Files were successfully ` + t.done + `."
else
	code=$?
	printf 'Unable to ` + t.verb + ` files exit code:%s error: %s\n' "$code" "$error" >&2
	exit "$code"
fi
`
}

// unmovedFolders looks again where a job is to work: it may have waited for days. The dot keeps
// line feeds at the end of a name.
const unmovedFolders = `unmoved() {
	for folder; do
		[ "$(realpath -m -- "$folder"; echo .)" = "$folder
." ] || { printf '%s: path has changed since the job was submitted\n' "$folder" >&2; return 1; }
	done
}`

// unmoved are the folders in which programs look up the places that were found.
func unmoved(places []located, found []string) (string, error) {
	folders := slices.Clone(found)
	for i, p := range places {
		if !p.follow {
			folders[i] = path.Dir(found[i])
		}
	}
	return quoted(folders...)
}

// quoted joins words for the shell of a script, in which cr is a carriage return.
func quoted(words ...string) (string, error) {
	for i, w := range words {
		q, err := executor.Quote(w)
		if err != nil {
			return "", err
		}
		// A script with a carriage return is refused by sbatch ("DOS line breaks"). One
		// stands in quotes, which end and begin again around what the script has for it.
		words[i] = strings.ReplaceAll(q, "\r", `'"$cr"'`)
	}
	return strings.Join(words, " "), nil
}

// workDir is where the caller's transfer jobs run.
func (c *call) workDir() (string, error) {
	for _, fs := range c.system.FileSystems {
		if fs.DefaultWorkDir {
			return path.Join(fs.Path, c.caller.Login()), nil
		}
	}
	return "", &failure{
		status: http.StatusNotImplemented, code: "transfer_missing",
		message: "The requested system has no file system with default_work_dir, in which transfer jobs could run.",
	}
}

// transfer submits the job and answers with it.
func (c *call) transfer(status int, account string, t transfer) error {
	batch, err := c.scheduler()
	if err != nil {
		return err
	}
	dir, err := c.workDir()
	if err != nil {
		return err
	}
	job, err := c.submitTransfer(batch, dir, randomName(), account, t)
	if err != nil {
		return err
	}
	return c.answer(status, transferAnswer{job})
}

// submitTransfer submits a job that handles files.
func (c *call) submitTransfer(batch batch, dir, id, account string, t transfer) (transferView, error) {
	logs := logsOf(dir, id)
	job, err := c.submitJob(batch, scheduler.Submission{
		Name: t.name, Account: account, WorkingDirectory: dir, StandardOutput: logs.OutputLog, StandardError: logs.ErrorLog,
		Script: t.script(), Env: defaultEnv(),
	})
	return transferView{JobID: job, System: c.system.Name, WorkingDirectory: dir, Logs: logs}, err
}

// moveJob is POST transfer/mv.
func moveJob(c *call) error {
	return c.between(transfer{name: "MoveFiles", title: "Move Files", verb: "move", done: "moved"}, func(*fields) []string { return []string{"mv"} })
}

// copyJob is POST transfer/cp.
func copyJob(c *call) error {
	return c.between(transfer{name: "CopyFiles", title: "Copy Files", verb: "copy", done: "copied"}, func(b *fields) []string {
		links := "-Rd"
		if b.flag("dereference", false) {
			links = "-RL"
		}
		// A link in the place of a copy is replaced, and not written through.
		return []string{"cp", "--force", "--remove-destination", links, "--preserve=all"}
	})
}

// between submits a job with a program that takes a source and a target.
func (c *call) between(t transfer, program func(*fields) []string) error {
	return c.workJob(t, func(b *fields) (work, error) {
		words := program(b)
		source, target := c.place(b, "path", "sourcePath"), c.place(b, "targetPath")
		source.path = path.Clean(source.path)
		return work{
			places: []located{{source, false}, {target, true}}, dereference: slices.Contains(words, "-RL"),
			argv: func(found []string) []string { return append(words, "--", found[0], found[1]) },
		}, b.finish()
	})
}

// removeJob is DELETE transfer/rm.
func removeJob(c *call) error {
	q := c.query()
	account, p := q.text("account"), c.place(q, "path")
	c.notWhole(q, p)
	if err := q.finish(); err != nil {
		return err
	}
	return c.submitWork(http.StatusOK, account, transfer{name: "DeleteFiles", title: "Delete Files", verb: "delete", done: "deleted"}, work{
		places: []located{{place{p.name, path.Clean(p.path)}, false}}, whole: true,
		argv: func(found []string) []string { return []string{"rm", "-R", "--interactive=never", "--", found[0]} },
	})
}

// compressJob is POST transfer/compress.
func compressJob(c *call) error {
	return c.workJob(transfer{name: "CompressFiles", title: "Compress Files", verb: "compress", done: "compressed"}, c.tarOfBody)
}

// extractJob is POST transfer/extract. That its job has the name of the other one is
// FirecREST's.
func extractJob(c *call) error {
	return c.workJob(transfer{name: "CompressFiles", title: "Extract Files", verb: "extract", done: "extracted"}, c.untarOfBody)
}

// workJob submits a job with the work that a body asks for.
func (c *call) workJob(t transfer, read func(body *fields) (work, error)) error {
	b, err := c.body()
	if err != nil {
		return err
	}
	account := b.text("account")
	w, err := read(b)
	if err != nil {
		return err
	}
	return c.submitWork(http.StatusCreated, account, t, w)
}

// submitWork submits a job that does a work.
func (c *call) submitWork(status int, account string, t transfer, w work) error {
	c.submits = c.jobOf(scheduler.Submission{Name: t.name, Account: account, Env: defaultEnv()})
	return c.withTime(func(ctx context.Context) error {
		argv, found, err := c.prepared(ctx, t.verb+":", w)
		if err != nil {
			return err
		}
		if t.unmoved, err = unmoved(w.places, found); err != nil {
			return err
		}
		if t.command, err = quoted(argv...); err != nil {
			return err
		}
		return c.transfer(status, account, t) //nolint:contextcheck // a submission has the context of its request
	})
}
