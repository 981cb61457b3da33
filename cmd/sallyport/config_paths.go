package main

import (
	"path/filepath"

	"sallyport/ca"
)

// A pathSetting is a setting that names a file or a folder.
type pathSetting struct {
	value *string
	// inData says that a relative path starts at data_dir, and not at the folder of the
	// configuration file.
	inData bool
	// folder says that it is a folder of ours, written that others are made beside the file.
	folder, written bool
}

// paths are all settings that name files and folders of this machine.
func (f *File) paths() []pathSetting {
	all := []pathSetting{
		{value: &f.DataDir, folder: true},
		{value: &f.Server.AdminSocket, inData: true, written: true},
		{value: &f.Audit.Dir, inData: true, folder: true},
		{value: &f.Audit.ArchiveDir, inData: true, folder: true},
		{value: &f.Audit.SignKey, inData: true},
		{value: &f.CA.Key, inData: true, written: true},
	}
	if f.CA.Distribution.Key != keyOffline {
		all = append(all, pathSetting{value: &f.CA.Distribution.Key, inData: true, written: true})
	}
	all = append(all, pathSetting{value: &f.CA.Distribution.PublicKey, inData: true})
	read := func(values ...*string) {
		for _, v := range values {
			all = append(all, pathSetting{value: v})
		}
	}
	read(&f.Server.TLSCertificate, &f.Server.TLSKey, &f.CA.PassphraseFile, &f.Policy.OpenFGA.TokenFile,
		&f.FirecREST.S3.SecretKeyFile, &f.Executor.Remote.TLSCA, &f.Executor.Remote.CAKeys)
	for i := range f.Issuers {
		read(&f.Issuers[i].JWKSFile)
	}
	for i := range f.Audit.Syslog {
		s := &f.Audit.Syslog[i]
		read(&s.TLSCA, &s.TLSCertificate, &s.TLSKey)
	}
	for i := range f.Audit.OTLP {
		s := &f.Audit.OTLP[i]
		read(&s.TLSCA, &s.TLSCertificate, &s.TLSKey, &s.TokenFile)
	}
	for i := range f.StaticKeys {
		s := &f.StaticKeys[i]
		read(&s.KeyFile, &s.PassphraseFile, &s.CertificateFile)
	}
	for i := range f.Systems {
		for j := range f.Systems[i].KnownHosts {
			read(&f.Systems[i].KnownHosts[j])
		}
	}
	return all
}

// resolvePaths makes every path absolute or relative to the working folder; base is the
// folder of the configuration file.
func (f *File) resolvePaths(base string) {
	for _, p := range f.paths() { // data_dir is the first
		if *p.value == "" || filepath.IsAbs(*p.value) || ca.IsAgent(*p.value) {
			continue
		}
		if p.inData {
			*p.value = filepath.Join(f.DataDir, *p.value)
		} else {
			*p.value = filepath.Join(base, *p.value)
		}
	}
}
