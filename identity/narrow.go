package identity

// NarrowCommand is what a login of a narrow identity runs, whatever is asked of it
// (force-command of a certificate). sshd answers SFTP itself then: no shell starts, and
// no file of the account runs (OpenSSH session.c, IS_INTERNAL_SFTP and do_rc_files).
const NarrowCommand = "internal-sftp"

// Narrowed returns the same person as one who may run no commands. Who takes it must
// give nothing that runs any: the executor offers files over SFTP alone, by a login that
// can do no more. There is no way back.
func (i Identity) Narrowed() Identity {
	i.narrow = true
	return i
}

// Narrow says whether the person may run no commands; see [Identity.Narrowed].
func (i Identity) Narrow() bool { return i.narrow }
