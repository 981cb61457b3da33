package main

import (
	"fmt"
	"net/url"
	"os"

	"sallyport/store/audit/ship"
)

// ship begins to ship the audit log.
func (d *daemon) ship(p *parts) error {
	if err := checkAuditFiles(p.file.Audit); err != nil {
		return err
	}
	targets, err := shipTargets(p.file.Audit)
	if err != nil {
		return err
	}
	p.shippers, err = ship.New(ship.Config{
		Log: p.audit, Dir: p.file.Audit.Dir, Targets: targets, MaxBacklog: p.file.Audit.Ship.MaxBacklogBytes,
		Refuse: p.file.Audit.Ship.WhenBehind == "refuse", Logger: p.log,
	})
	if err != nil {
		return err
	}
	if len(targets) > 0 {
		d.background(p.shippers.Run)
	}
	return nil
}

// shipTargets are the receivers of a configuration.
func shipTargets(a AuditSection) ([]ship.Target, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	var targets []ship.Target
	for _, s := range a.Syslog {
		t, err := ship.Syslog(ship.SyslogConfig{
			Name: s.Name, Address: s.Address, Plain: s.Plain, Facility: int(s.Facility), MaxMessage: int(s.MaxMessageBytes),
			TLS:          ship.TLSConfig{CA: s.TLSCA, Certificate: s.TLSCertificate, Key: s.TLSKey, ServerName: s.ServerName},
			ConfirmEvery: s.ConfirmInterval, Resend: s.Resend, AnyEnd: s.Confirm == "any",
		})
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	for _, s := range a.OTLP {
		t, err := ship.OTLP(ship.OTLPConfig{
			Name: s.Name, URL: s.URL, TokenFile: s.TokenFile, Resend: s.Resend, Host: host, Version: version,
			TLS: ship.TLSConfig{CA: s.TLSCA, Certificate: s.TLSCertificate, Key: s.TLSKey, ServerName: s.ServerName},
		})
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// checkAudit finds what is wrong between the settings of the audit log.
func (d *decoder) checkAudit(a AuditSection) {
	if a.SignKey != "" && a.SignInterval == 0 {
		d.fail("audit.sign_key", `has no use with sign_interval = "0s"`)
	}
	if a.ArchiveDir == "" && a.ArchiveKeep != 0 {
		d.fail("audit.archive_keep", "needs archive_dir")
	}
	if a.ArchiveDir != "" && a.ArchiveDir == a.Dir {
		d.fail("audit.archive_dir", "%q is the folder of the files that are written", a.ArchiveDir)
	}
	names := map[string]bool{}
	receiver := func(at func(string) string, name, tlsCertificate, tlsKey string) {
		d.require(at("name"), name)
		d.once(names, at("name"), name)
		if (tlsCertificate == "") != (tlsKey == "") {
			d.fail(at("tls_certificate"), "must be set together with tls_key")
		}
	}
	for i, s := range a.Syslog {
		at := func(key string) string { return fmt.Sprintf("audit.syslog[%d].%s", i, key) }
		receiver(at, s.Name, s.TLSCertificate, s.TLSKey)
		d.require(at("address"), s.Address)
		if s.Plain && s.Address != "" && !isLoopback(s.Address) {
			d.fail(at("plain"), "%q is not a loopback address: events go elsewhere by TLS only", s.Address)
		}
		if s.Facility != 10 && s.Facility != 13 {
			d.fail(at("facility"), "%d must be 10 (authpriv) or 13 (log audit)", s.Facility)
		}
	}
	for i, s := range a.OTLP {
		at := func(key string) string { return fmt.Sprintf("audit.otlp[%d].%s", i, key) }
		receiver(at, s.Name, s.TLSCertificate, s.TLSKey)
		d.require(at("url"), s.URL)
		if u, err := url.Parse(s.URL); err == nil && u.Scheme == "http" && !isLoopback(u.Hostname()+":0") {
			d.fail(at("url"), "%q is not a loopback address: events go elsewhere by https only", u.Hostname())
		}
	}
}
