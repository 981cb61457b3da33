package logreceiver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// Drivers of TLS that rsyslog has. "ossl" answers the end of a connection with a
// close_notify, "gtls" does not.
const (
	OpenSSL = "ossl"
	GnuTLS  = "gtls"
	Plain   = ""
)

// Rsyslog prepares an rsyslogd with files in dir. What it takes it writes before it
// reads on, as a receiver must whose memory may vanish.
func Rsyslog(ctx context.Context, dir, driver string) (*Receiver, error) {
	program, err := findRsyslog()
	if err != nil {
		return nil, err
	}
	cert, key, err := certificate(dir)
	if err != nil {
		return nil, err
	}
	address, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	secure := ""
	if driver != Plain {
		secure = fmt.Sprintf(`StreamDriver.Name=%q StreamDriver.Mode="1" StreamDriver.AuthMode="anon"`, driver)
	}
	output := filepath.Join(dir, "received")
	config := filepath.Join(dir, "rsyslog.conf")
	text := fmt.Sprintf(`global(workDirectory=%q maxMessageSize="64k"
	defaultNetstreamDriverCAFile=%q defaultNetstreamDriverCertFile=%[2]q defaultNetstreamDriverKeyFile=%[3]q)
main_queue(queue.type="Direct")
module(load="imtcp" %[4]s)
input(type="imtcp" port=%[5]q address="127.0.0.1")
template(name="message" type="string" string="%%structured-data%%%%msg%%\n")
action(type="omfile" file=%[6]q template="message" asyncWriting="off" flushOnTXEnd="on")
`, dir, cert, key, secure, port, output)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	r := &Receiver{Address: address, CA: cert, output: output, complain: filepath.Join(dir, "rsyslogd.log")}
	r.command = func() *exec.Cmd {
		return exec.CommandContext(context.WithoutCancel(ctx), program, "-n", "-f", config, "-i", "NONE")
	}
	r.lines = func(text []byte) (lines []string, err error) {
		for _, line := range whole(text) {
			lines = append(lines, string(line))
		}
		return lines, nil
	}
	return r, nil
}

// findRsyslog looks where Debian has it, which is not on everybody's PATH.
func findRsyslog() (string, error) {
	for _, name := range []string{"rsyslogd", "/usr/sbin/rsyslogd"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("rsyslogd is not installed (Debian: rsyslog, rsyslog-openssl, rsyslog-gnutls)")
}
