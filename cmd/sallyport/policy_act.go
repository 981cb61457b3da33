package main

import (
	"github.com/spf13/pflag"

	"sallyport/policy"
)

// jobFlags are the parameters of a job.
func (c *policyCase) jobFlags(flags *pflag.FlagSet) {
	j := &c.act.Job
	for name, f := range map[string]struct {
		to   *string
		what string
	}{
		"name":              {&j.Name, "name of the job"},
		"account":           {&j.Account, "account or project of the job"},
		"partition":         {&j.Partition, "partition or queue"},
		"reservation":       {&j.Reservation, "reservation"},
		"constraints":       {&j.Constraints, "constraints"},
		"working-directory": {&j.WorkingDirectory, "working directory"},
		"standard-input":    {&j.StandardInput, "file of the standard input"},
		"standard-output":   {&j.StandardOutput, "file of the standard output"},
		"standard-error":    {&j.StandardError, "file of the standard error"},
		"script-path":       {&j.ScriptPath, "script on the node"},
		"script-sha256":     {&j.ScriptSHA256, "SHA-256 of the script in the request"},
	} {
		flags.StringVar(f.to, "job-"+name, "", f.what)
	}
	flags.Int64Var(&j.ScriptBytes, "job-script-bytes", 0, "bytes of the script in the request")
	flags.StringSliceVar(&j.Environment, "job-environment", nil, "names of variables that the request sets, separated by commas")
}

// jobOpen leaves to the script what no flag gives, as a request to submit a job does.
func (c *policyCase) jobOpen(flags *pflag.FlagSet) {
	for _, p := range c.paths {
		c.act.Paths = append(c.act.Paths, policy.Path{Real: p})
	}
	if c.act.Operation != "compute.submit" {
		return
	}
	for flag, name := range map[string]string{
		"name": "name", "account": "account", "partition": "partition", "reservation": "reservation", "constraints": "constraints",
		"standard-input": "standard_input", "standard-output": "standard_output", "standard-error": "standard_error",
	} {
		if !flags.Changed("job-" + flag) {
			c.act.Job.Open = append(c.act.Job.Open, name)
		}
	}
}
