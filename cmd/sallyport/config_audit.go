package main

import "time"

// AuditSection configures the audit log.
type AuditSection struct {
	// Folder of the audit files. A relative path starts at data_dir.
	Dir string `key:"dir" default:"audit"`
	// Bytes after which a new file is begun; the chain goes on in it.
	MaxFileBytes int64 `key:"max_file_bytes" default:"67108864" check:"65536..17179869184"`
	// Write commands in full. By default a record has their SHA-256 and length,
	// because commands may hold secrets.
	Commands bool `key:"commands" default:"false"`
	// What is recorded of file operations. "changes": each change, before it is
	// made and after it. "reads": also each file opened to be read and each
	// directory listed. Attributes (stat) are never recorded.
	Files string `key:"files" default:"reads" check:"reads|changes"`
	// Bytes of records that one caller may cause in a minute, and as much at once after a
	// rest; of tokens that are refused, an address. More acts are refused with 429 and
	// Retry-After. A command takes about 1,300 bytes. 0 means any number.
	CallerBytesPerMinute int64 `key:"caller_bytes_per_minute" default:"8388608" check:"0..17179869184"`
	// Bytes of the file system that are kept for what administrators do: with less free,
	// acts of callers are refused with 503. 0 keeps nothing.
	ReserveBytes int64 `key:"reserve_bytes" default:"268435456" check:"0..1099511627776"`
	// Bytes that all files of the folder may have before acts of callers are refused with
	// 503, until older files were moved to an archive. 0 means any number.
	MaxTotalBytes int64 `key:"max_total_bytes" default:"0" check:"0..1099511627776"`
	// How long an event may stay unsigned: a checkpoint, the hash of the last event under a
	// signature, is recorded so often, at each new file and at the end. "0s": none is.
	SignInterval time.Duration `key:"sign_interval" default:"5m" check:"0s..24h"`
	// The key that signs checkpoints. Empty: audit_key in data_dir, which is made if it is missing. Else
	// a file, such as distribution_key, the one that signs manifests; a relative path starts at
	// data_dir. Or a key in an ssh-agent: agent:/path/to/socket#SHA256:…
	SignKey string `key:"sign_key" example:"agent:/run/sallyport/agent.sock#SHA256:ABEHBx6lcfbfAXwO3lqiAopLfQJSElLLQUOGhUDmRa4"`
	// Folder for old files, compressed; empty: they stay in dir. A relative path starts at data_dir.
	// Only files go there that every receiver has, and whose last event is older than archive_after.
	ArchiveDir   string        `key:"archive_dir" example:"/srv/sallyport/audit-archive"`
	ArchiveAfter time.Duration `key:"archive_after" default:"24h" check:"0s..87600h"`
	// Archived files older than this are removed, by a signed note; "0s" keeps all.
	ArchiveKeep time.Duration `key:"archive_keep" default:"0s" check:"0s..876000h"`
	// Where events are shipped as they are made, beside the files here.
	Ship AuditShipSection `key:"ship"`
	// A receiver of syslog messages (RFC 5424) over TLS (RFC 5425). Repeat the table for more.
	Syslog []AuditSyslogSection `key:"syslog"`
	// A receiver of OpenTelemetry logs (OTLP over HTTP). Repeat the table for more.
	OTLP []AuditOTLPSection `key:"otlp"`
}

// AuditShipSection says what happens while receivers do not take events.
type AuditShipSection struct {
	// Bytes of the log that a receiver may be behind. No event is lost beyond either: the
	// files stay until all have them.
	MaxBacklogBytes int64 `key:"max_backlog_bytes" default:"1073741824" check:"1048576..1099511627776"`
	// What happens beyond. "refuse": acts are refused (503) until the receiver follows, but
	// those of administrators, who have 64 MiB more. "continue": nothing, until the disk is full.
	WhenBehind string `key:"when_behind" default:"refuse" check:"refuse|continue"`
}

// AuditSyslogSection configures a receiver of syslog messages.
type AuditSyslogSection struct {
	// Name in metrics, messages and the file of its cursor. Without the name's cursor a receiver gets
	// every event that is in the folder.
	Name string `key:"name" check:"alias" example:"siem"`
	// Its address as host:port.
	Address string `key:"address" check:"hostport" example:"siem.example.org:6514"`
	// PEM file of the CAs that sign its certificate; the system's if empty. A relative path
	// starts at the folder of the configuration file, here and below.
	TLSCA string `key:"tls_ca" example:"/etc/sallyport/siem-ca.pem"`
	// PEM files of our own certificate and its key, if the receiver wants them.
	TLSCertificate string `key:"tls_certificate" example:"/etc/sallyport/siem.crt"`
	TLSKey         string `key:"tls_key" example:"/etc/sallyport/siem.key"`
	// Name in its certificate, if that is not the host of address.
	ServerName string `key:"server_name" example:"siem.example.org"`
	// Send without TLS, to a loopback address: a relay on this machine.
	Plain bool `key:"plain" default:"false"`
	// Facility of the messages: 10 is authpriv, 13 the audit log.
	Facility int64 `key:"facility" default:"13" check:"10..13"`
	// Bytes of a message that the receiver takes whole. A longer event goes in parts, which
	// have its sequence and hash, and part="1/3" and so on.
	MaxMessageBytes int64 `key:"max_message_bytes" default:"8192" check:"2048..1048576"`
	// How long until the receiver has to confirm, by its answer to the end of a connection.
	ConfirmInterval time.Duration `key:"confirm_interval" default:"5s" check:"100ms..10m"`
	// What was confirmed so lately is sent again when a connection breaks, because a receiver
	// that was killed may have had it in memory only.
	Resend time.Duration `key:"resend" default:"10s" check:"0s..1h"`
	// Which answer confirms. "notify": the TLS close_notify that RFC 5425 wants. "any": the end of the
	// connection too, for receivers that send none, such as rsyslog with its gtls driver; somebody on
	// the way can then forge it.
	Confirm string `key:"confirm" default:"notify" check:"notify|any"`
}

// AuditOTLPSection configures a receiver of OpenTelemetry logs.
type AuditOTLPSection struct {
	// Name, as that of a syslog receiver; all are different.
	Name string `key:"name" check:"alias" example:"collector"`
	// Where it takes logs; http:// for loopback addresses only.
	URL string `key:"url" check:"url" example:"https://otel.example.org:4318/v1/logs"`
	// As for syslog receivers.
	TLSCA          string `key:"tls_ca" example:"/etc/sallyport/otel-ca.pem"`
	TLSCertificate string `key:"tls_certificate" example:"/etc/sallyport/otel.crt"`
	TLSKey         string `key:"tls_key" example:"/etc/sallyport/otel.key"`
	ServerName     string `key:"server_name" example:"otel.example.org"`
	// File with a bearer token, mode 0600, which is read for each request.
	TokenFile string `key:"token_file" example:"/etc/sallyport/otel.token"`
	// What was answered so lately is sent again when the connection breaks, because a receiver
	// that was killed may have had it in memory only.
	Resend time.Duration `key:"resend" default:"10s" check:"0s..1h"`
}
