package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/sshd-config/nodesync"
	"sallyport/store/audit"
	"sallyport/store/audit/ship"
)

// auditKey is the file of the key that signs the audit log, in the data folder; its public half has ".pub" added.
const auditKey = "audit_key"

// loadAuditKey opens the key that signs the audit log, or makes it. Its passphrase is that of the CA key.
func loadAuditKey(f File, keys caKeys) (*ca.Key, error) {
	folder := ca.KeyFolder{Dir: f.DataDir, Algorithm: "ed25519", Passphrase: keys.folder.Passphrase}
	key, err := openAuditKey(f, folder)
	if err != nil {
		return nil, fmt.Errorf("audit.sign_key: %w", err)
	}
	return key, nil
}

func openAuditKey(f File, folder ca.KeyFolder) (*ca.Key, error) {
	if source := f.Audit.SignKey; source != "" {
		key, err := ca.OpenKey(source, nil)
		if errors.Is(err, ca.ErrPassphraseNeeded) {
			key, err = ca.OpenKey(source, folder.Passphrase)
		}
		return key, err
	}
	key, err := folder.Load(auditKey)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = folder.Create(auditKey)
	}
	if err != nil {
		return nil, err
	}
	err = writeNew(filepath.Join(f.DataDir, auditKey+".pub"), ssh.MarshalAuthorizedKey(key.PublicKey()), 0o644)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return key, nil
}

// sign begins to sign the audit log, and to archive its old files.
func (d *daemon) sign(p *parts) error {
	if p.file.Audit.SignInterval > 0 {
		key, err := loadAuditKey(p.file, p.keys)
		if err != nil {
			return err
		}
		signer := key.Signer()
		p.signer = audit.NewSigner(audit.SignerConfig{
			Log: p.audit, Interval: p.file.Audit.SignInterval, Logger: p.log,
			Sign: func(text []byte) ([]byte, error) { return nodesync.Sign(signer, audit.CheckpointNamespace, text) },
		})
		d.background(p.signer.Run)
	}
	if p.file.Audit.ArchiveDir == "" {
		return nil
	}
	var err error
	p.archiver, err = audit.NewArchiver(audit.ArchiverConfig{
		Log: p.audit, Dir: p.file.Audit.ArchiveDir, After: p.file.Audit.ArchiveAfter, Keep: p.file.Audit.ArchiveKeep,
		Shipped: p.shippers.Shipped, Signer: p.signer, Logger: p.log,
	})
	if err != nil {
		return err
	}
	d.background(p.archiver.Run)
	return nil
}

// auditStatus is what an administrator sees of the audit log.
type auditStatus struct {
	Sequence uint64               `json:"sequence"`
	HeadHash string               `json:"head_hash"`
	Signing  *auditSigning        `json:"signing,omitempty"`
	Shipping []auditReceiver      `json:"shipping"`
	Archive  *auditArchiveCounter `json:"archive,omitempty"`
}

type auditSigning struct {
	SignedSequence uint64    `json:"signed_sequence"` // 0: nothing since the start
	SignedAt       time.Time `json:"signed_at,omitzero"`
	Unsigned       uint64    `json:"unsigned_events"`
	Failures       uint64    `json:"failures"`
}

type auditReceiver struct {
	Name     string    `json:"name"`
	Kind     string    `json:"kind"`
	Shipped  uint64    `json:"shipped_sequence"`
	Records  uint64    `json:"unshipped_records"`
	Bytes    int64     `json:"unshipped_bytes"`
	Oldest   time.Time `json:"oldest_unshipped,omitzero"`
	Failing  string    `json:"failing,omitempty"`
	Since    time.Time `json:"failing_since,omitzero"`
	Failures uint64    `json:"failures"`
}

type auditArchiveCounter struct {
	Archived uint64 `json:"archived_files"`
	Failures uint64 `json:"failures"`
}

func auditStatusOf(p *parts) auditStatus {
	end := p.audit.Mark()
	s := auditStatus{Sequence: end.Sequence, HeadHash: end.Hash, Shipping: receiversOf(p.shippers)}
	if p.signer != nil {
		st := p.signer.Status()
		s.Signing = &auditSigning{SignedSequence: st.Signed.Sequence, SignedAt: st.Signed.Time, Unsigned: st.Unsigned, Failures: st.Failures}
	}
	if p.archiver != nil {
		s.Archive = &auditArchiveCounter{}
		s.Archive.Archived, s.Archive.Failures = p.archiver.Counts()
	}
	return s
}

func receiversOf(s *ship.Shippers) []auditReceiver {
	all := []auditReceiver{}
	for _, d := range s.Status() {
		all = append(all, auditReceiver{
			Name: d.Name, Kind: d.Kind, Shipped: d.Shipped, Records: d.Records, Bytes: d.Bytes, Oldest: d.Oldest,
			Failing: string(d.Failing), Since: d.Since, Failures: d.Failures,
		})
	}
	return all
}

// publicKeys reads the files of public keys that may have signed an audit log.
func publicKeys(paths []string) ([]ssh.PublicKey, error) {
	var keys []ssh.PublicKey
	for _, path := range paths {
		text, err := readBounded(path, 64<<10)
		if err != nil {
			return nil, err
		}
		before := len(keys)
		for len(text) > 0 {
			key, _, _, rest, err := ssh.ParseAuthorizedKey(text)
			if err != nil {
				break
			}
			keys, text = append(keys, key), rest
		}
		if len(keys) == before {
			return nil, fmt.Errorf("%q has no public key as ssh-keygen writes them", path)
		}
	}
	return keys, nil
}

// checkpointFile reads a checkpoint that was noted or shipped.
func checkpointFile(path string) (audit.Checkpoint, error) {
	text, err := readBounded(path, 64<<10)
	if errors.Is(err, os.ErrNotExist) {
		return audit.Checkpoint{}, err
	}
	if err != nil {
		return audit.Checkpoint{}, err
	}
	// "jq -r" adds a newline to the one that the text ends with.
	c, err := audit.ParseCheckpoint(bytes.TrimSuffix(text, []byte("\n")))
	if err != nil {
		return c, fmt.Errorf("%q: %w", path, err)
	}
	return c, nil
}
