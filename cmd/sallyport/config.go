package main

import "time"

// The types in this file, and in config_*.go beside it, are the configuration reference: docs/configuration.md
// and the file that "sallyport init" writes are made from their comments and
// tags, and a test compares them. Tags:
//
//	key      the name in the file
//	default  what a missing key means
//	check    what is allowed (see checks in config_check.go)
//	example  what the written file shows when there is no default
//	defaults on a table: "key=value" for a default that differs here

// File is a whole configuration file.
type File struct {
	// Folder that holds the CA key, the database, the audit log and the admin
	// socket. A relative path starts at the folder of the configuration file.
	// The folder must belong to the daemon's user, mode 0700.
	DataDir string `key:"data_dir" default:"."`

	// The public listener.
	Server ServerSection `key:"server"`
	// How many requests a minute are answered. The first table that matches a token
	// counts, alone. A caller whom none matches has 6000 a minute, 1000 of them at once; a
	// last table without any number takes that limit away. Repeat the table for more.
	Rates []RateSection `key:"rates"`
	// Who may ask for what, of those whose token is good; see docs/policy.md.
	Policy PolicySection `key:"policy"`
	// Acts of administrators that take two people; see docs/operations.md.
	Approval ApprovalSection `key:"approval"`
	// What the daemon writes to standard error. Audit records go elsewhere.
	Log LogSection `key:"log"`
	// Numbers about the service, for Prometheus.
	Metrics MetricsSection `key:"metrics"`
	// The audit log: hash-chained JSON Lines, made durable before each act.
	Audit AuditSection `key:"audit"`
	// An identity provider whose tokens are accepted. Repeat the table for
	// more; at least one is needed.
	Issuers []IssuerSection `key:"issuers"`
	// Proofs of the key that a token is bound to (DPoP, RFC 9449).
	DPoP DPoPSection `key:"dpop"`
	// The built-in certificate authority (the SSH Service).
	CA CASection `key:"ca"`
	// The command executor.
	Executor ExecutorSection `key:"executor"`
	// A system that callers may run commands on. Repeat the table for more.
	Systems []SystemSection `key:"systems"`
	// The API of FirecREST v2, for its clients.
	FirecREST FirecRESTSection `key:"firecrest"`
	// A key for one caller, used instead of a certificate when
	// executor.credentials is "static". Repeat the table for more.
	StaticKeys []StaticKeySection `key:"static_keys"`
}

// RateSection limits the requests of some tokens.
type RateSection struct {
	// Which tokens: the alias of their issuer, their client ("azp" or "client_id"),
	// their login. What is not given matches any.
	Issuer string `key:"issuer" check:"alias" example:"centre"`
	Client string `key:"client" example:"hpc-portal"`
	Login  string `key:"login" check:"login" example:"alice"`
	// Requests a minute of each caller, and how many of them may come at once; more get
	// 429 with Retry-After. 0 means any number, and for the burst a sixth of the rate.
	UserPerMinute int64 `key:"user_per_minute" default:"0" check:"0..1000000"`
	UserBurst     int64 `key:"user_burst" default:"0" check:"0..1000000"`
	// The same for all requests that come through one client of an issuer.
	ClientPerMinute int64 `key:"client_per_minute" default:"0" check:"0..1000000"`
	ClientBurst     int64 `key:"client_burst" default:"0" check:"0..1000000"`
}

// PolicySection configures authorisation.
type PolicySection struct {
	// What happens to a call that no rule matches. Without any rule all are allowed.
	Default string `key:"default" default:"deny" check:"allow|deny"`
	// The claim with the caller's groups: a list of strings, or one. Dots go into
	// nested claims.
	GroupsClaim string `key:"groups_claim" default:"groups" example:"realm_access.roles"`
	// A rule. Of several the first that matches counts, alone. Repeat the table for more.
	Rules []PolicyRuleSection `key:"rules"`
	// A server that is asked about each call that the rules allow.
	OpenFGA OpenFGASection `key:"openfga"`
}

// PolicyRuleSection is one rule.
type PolicyRuleSection struct {
	// Name for logs and audit records.
	Name string `key:"name" example:"guests-look-only"`
	// What happens to a call that the rule matches.
	Effect string `key:"effect" default:"allow" check:"allow|deny"`
	// Names of calls, "exec" or "compute.submit", or "compute.*" for all of a kind;
	// "sallyport policy operations" lists them. Empty means any, as with what follows.
	Operations []string `key:"operations" example:"filesystem.*"`
	// Names of systems.
	Systems []string `key:"systems" example:"daint"`
	// Aliases of issuers, logins, clients ("azp" or "client_id"), members of groups_claim.
	Issuers []string `key:"issuers" check:"alias" example:"centre"`
	Users   []string `key:"users" check:"login" example:"alice"`
	Clients []string `key:"clients" example:"hpc-portal"`
	Groups  []string `key:"groups" example:"guests"`
	// Folders, as the node resolves them or as a system's file_systems begin. A call matches
	// if the path that it names is one of them or below; one that reaches below its path, such
	// as a removal, is denied for what is in there too. Calls that name no path do not match.
	Paths []string `key:"paths" example:"/scratch"`
	// A CEL expression that must be true as well. A rule whose expression cannot be
	// evaluated, for want of a claim, denies.
	When string `key:"when" example:"claims.acr == 'mfa'"`
	// What a caller is told whom the rule denies.
	Message string `key:"message" example:"Guests may look at files and no more."`
}

// LogSection configures logging.
type LogSection struct {
	// The least level that is written.
	Level string `key:"level" default:"info" check:"debug|info|warn|error"`
	// The form of a line.
	Format string `key:"format" default:"text" check:"text|json"`
}

// MetricsSection configures the listener for metrics.
type MetricsSection struct {
	// Address that serves GET /metrics in the text format of Prometheus, and nothing
	// else, over plain HTTP and without authentication. The numbers name systems,
	// nodes and issuers, and nobody's commands. Empty means that only the admin
	// socket serves them.
	Listen string `key:"listen" check:"listen" example:"127.0.0.1:9464"`
}

// CASection configures the certificate authority.
type CASection struct {
	// Run the CA. Without it the executor gets its credentials elsewhere.
	Enabled bool `key:"enabled" default:"true"`
	// The CA's private key, an OpenSSH PEM file of mode 0600. A relative path
	// starts at data_dir. Or "agent:/path/to/socket#SHA256:…" for a key that an
	// ssh-agent holds: from a file, a PKCS#11 token (HSM) or a FIDO key.
	Key string `key:"key" default:"ca_key"`
	// File with the key's passphrase, mode 0600. Otherwise the systemd
	// credential "ca-passphrase" is used, or the terminal is asked.
	PassphraseFile string `key:"passphrase_file" example:"/run/secrets/ca-passphrase"`
	// How long the ledger keeps a certificate after it has expired.
	LedgerRetention time.Duration `key:"ledger_retention" default:"720h" check:"1h..87600h"`
	// What login nodes fetch, and who signs it.
	Distribution DistributionSection `key:"distribution"`
	// How one CA key follows another.
	Rotation RotationSection `key:"rotation"`
	// What certificates look like.
	Profiles ProfilesSection `key:"profiles"`
	// Certificates in the formats of other services, for FirecREST v2 and for
	// another Sallyport whose executor.credentials is "remote" or "deic".
	Compat CompatSection `key:"compat"`
}

// CompatSection configures other services' formats.
type CompatSection struct {
	// Serve POST /api/v1/ssh-keys, FirecREST's "SSHService". WARNING: in this
	// format the service makes the private key and sends it over the network. Whoever
	// reads that answer on its way, in a proxy, in a trace, is the user until the
	// certificate ends, and no log can tell. Leave it off unless a client can do
	// nothing better, and then serve TLS and keep certificates short.
	SSHKeys bool `key:"ssh_keys" default:"false"`
	// Serve POST /NAME/sign and /NAME/signJSON, the format of DeiC's sshca, which
	// FirecREST calls "SSHCA", under this name. The client keeps its private key; its
	// token stands in the body. Empty means off.
	DeiC string `key:"deic" check:"caname" example:"sallyport"`
	// The profile of these certificates. Those of "executor" run commands and copy
	// files, and nothing else; "user" adds what ca.profiles.user says.
	Profile string `key:"profile" default:"executor" check:"executor|user"`
}

// RotationSection configures the life of CA keys.
type RotationSection struct {
	// Account for probes: a login on every node of every system shows which CA keys
	// the node trusts. It needs no rights, must exist on all nodes, and can run
	// nothing but "date". Without it nodes are not asked, and a rotation needs
	// exceptions for them.
	ProbeLogin string `key:"probe_login" check:"login" example:"sallyport-probe"`
	// How often every node is probed while no rotation is under way; 0s means never.
	ProbeInterval time.Duration `key:"probe_interval" default:"5m" check:"0s..24h"`
	// How long a node takes to pull a new bundle, at most.
	PullInterval time.Duration `key:"pull_interval" default:"8m" check:"1s..24h"`
	// How wrong a node's clock may be.
	MaxSkew time.Duration `key:"max_skew" default:"1m" check:"1s..1h"`
	// Type of new CA keys. Nodes ignore the rest of the trust file after a type that
	// their sshd does not know.
	KeyType string `key:"key_type" default:"ed25519" check:"ed25519|ecdsa-p256|ecdsa-p384|rsa-3072|rsa-4096"`
}

// ProfilesSection holds the two profiles.
type ProfilesSection struct {
	// Certificates that the executor uses itself.
	Executor ProfileSection `key:"executor"`
	// Certificates that POST /v1/certificates gives to callers.
	User ProfileSection `key:"user" defaults:"extensions=permit-pty"`
}

// ProfileSection configures the certificates of one profile.
type ProfileSection struct {
	// Life of a certificate when the request names none.
	DefaultTTL time.Duration `key:"default_ttl" default:"5m" check:"30s..24h"`
	// Longest life of a certificate.
	MaxTTL time.Duration `key:"max_ttl" default:"15m" check:"30s..24h"`
	// How far valid_after lies back, for nodes whose clock is late.
	Backdate time.Duration `key:"backdate" default:"60s" check:"1s..5m"`
	// How long a certificate may outlive the token that it was made for.
	ExpiryGrace time.Duration `key:"expiry_grace" default:"30s" check:"1s..5m"`
	// Addresses from which sshd accepts the certificate: for "executor"
	// Sallyport's own; a request may only narrow them. Empty means any.
	SourceAddresses []string `key:"source_addresses" check:"cidr" example:"192.0.2.10/32"`
	// Extensions (PROTOCOL.certkeys) that certificates carry. Those of "executor"
	// carry none.
	Extensions []string `key:"extensions" check:"permit-pty|permit-user-rc|permit-agent-forwarding|permit-port-forwarding|permit-X11-forwarding"`
	// Principals, beside the login, that a caller may ask for in a certificate of
	// POST /v1/certificates, by naming them. A certificate that is asked for none
	// carries the login alone.
	ExtraPrincipals []string `key:"extra_principals" check:"login" example:"hpc-users"`
}

// ExecutorSection configures the executor.
type ExecutorSection struct {
	// Run commands. Without it only the CA serves.
	Enabled bool `key:"enabled" default:"true"`
	// Where credentials come from: certificates of the built-in CA, the keys under
	// static_keys, or certificates of a service elsewhere, see executor.remote, in
	// the format of FirecREST's SSHService ("remote") or of DeiC's sshca ("deic").
	Credentials string `key:"credentials" default:"builtin" check:"builtin|static|remote|deic"`
	// Bytes of each output stream that an answer holds at most; a request may
	// ask for less. Streamed answers have no such limit.
	MaxOutput int64 `key:"max_output" default:"4194304" check:"1024..1073741824"`
	// Bytes of output that all answers together hold beyond 64 KiB of each stream;
	// what does not fit is dropped and the answer says so. One caller gets a
	// quarter of it.
	OutputMemory int64 `key:"output_memory" default:"268435456" check:"1048576..1099511627776"`
	// SSH connections to the nodes of one system, of all callers together.
	MaxConnections int64 `key:"max_connections" default:"1024" check:"1..100000"`
	// Requests that may wait for a session of one system, and for how long.
	MaxWaiting  int64         `key:"max_waiting" default:"4096" check:"1..1000000"`
	WaitTimeout time.Duration `key:"wait_timeout" default:"30s" check:"1s..10m"`
	// A connection without sessions is closed after this time.
	IdleTimeout time.Duration `key:"idle_timeout" default:"60s" check:"1s..24h"`
	// No connection takes new sessions after this age, nor after the end of its
	// certificate. What runs then may finish within its own timeout.
	MaxLifetime time.Duration `key:"max_lifetime" default:"1h" check:"10s..24h"`
	// How often an open connection is asked for a sign of life, and how long it
	// may take to give one.
	KeepaliveInterval time.Duration `key:"keepalive_interval" default:"15s" check:"1s..10m"`
	KeepaliveTimeout  time.Duration `key:"keepalive_timeout" default:"5s" check:"1s..1m"`
	// The service for executor.credentials "remote" and "deic". It gets the caller's
	// token as it is. A certificate is used only if it is the caller's, names no
	// other account, is short, and is signed by an expected CA.
	Remote RemoteSection `key:"remote"`
}

// RemoteSection configures the service that makes certificates.
type RemoteSection struct {
	// Base of the service, to which "/api/v1/ssh-keys" ("remote") or "/sign" ("deic")
	// is added: for DeiC it ends with the name of the CA.
	URL string `key:"url" check:"url" example:"https://ca.example.org/sallyport"`
	// Allow http:// to an address other than loopback. Tokens, and with "remote"
	// private keys, cross that link in the clear.
	AllowHTTP bool `key:"allow_http" default:"false"`
	// PEM file of the CAs that sign the service's TLS certificate; the system's if
	// empty. A relative path starts at the folder of the configuration file.
	TLSCA string `key:"tls_ca" example:"/etc/sallyport/service-ca.pem"`
	// How long a request may take, from connect to the last byte.
	Timeout time.Duration `key:"timeout" default:"5s" check:"100ms..1m"`
	// Fingerprints of the keys that may sign, as "ssh-keygen -l" prints them.
	CAFingerprints []string `key:"ca_fingerprints" check:"fingerprint" example:"SHA256:ABEHBx6lcfbfAXwO3lqiAopLfQJSElLLQUOGhUDmRa4"`
	// File with such keys, one a line, as TrustedUserCAKeys has them; a Sallyport
	// serves it at /v1/ca/trusted-user-ca-keys. It is read for each certificate, so
	// that a rotation needs no restart. A relative path starts at the folder of the
	// configuration file. One of ca_fingerprints and ca_keys is needed.
	CAKeys string `key:"ca_keys" example:"/etc/sallyport/trusted_ca.pub"`
	// Life of a certificate that "remote" asks for, in whole minutes. Every such
	// service knows 1m, which FirecREST asks for; a Sallyport grants what its profile
	// allows, and 5m spares it requests.
	TTL time.Duration `key:"ttl" default:"1m" check:"1m..24h"`
	// Longest life that a certificate may have left when it arrives.
	MaxTTL time.Duration `key:"max_ttl" default:"15m" check:"1m..24h"`
	// Where the CA serves its revocation list, of a Sallyport at /v1/ca/revoked-keys.
	// Connections and commands of certificates that it revokes are ended as soon as
	// it does. Without it revocations reach this executor with the next certificate only.
	RevocationList string `key:"revocation_list" check:"url" example:"https://ca.example.org/v1/ca/revoked-keys"`
	// Extensions that a certificate may have. The executor needs none, but on jump
	// hosts permit-port-forwarding, which the service must issue too: a Sallyport does
	// with ca.compat.profile = "user" and that extension in ca.profiles.user.
	Extensions []string `key:"extensions" default:"permit-pty" check:"permit-pty|permit-user-rc|permit-agent-forwarding|permit-port-forwarding|permit-X11-forwarding"`
}

// SystemSection configures one system.
type SystemSection struct {
	// Name in the URL of a call.
	Name string `key:"name" check:"system" example:"daint"`
	// A sentence for people.
	Description string `key:"description" example:"Cray EX, 1,000 nodes"`
	// Login nodes as host:port. The first that can be reached is used.
	Nodes []string `key:"nodes" check:"hostport" example:"login1.example.org:22"`
	// A host to connect through, as host:port. It must trust the CA too.
	Jump string `key:"jump" check:"hostport" example:"jump.example.org:22"`
	// known_hosts files with a line for each node, or an @cert-authority line. A
	// relative path starts at the folder of the configuration file.
	KnownHosts []string `key:"known_hosts" example:"/etc/sallyport/known_hosts"`
	// Account names that may use this system: a regular expression for the
	// whole name, and lists. Empty means all that the issuer allows.
	LoginPattern string   `key:"login_pattern" check:"regexp" example:"[a-z]{2,8}"`
	AllowLogins  []string `key:"allow_logins" example:"alice"`
	DenyLogins   []string `key:"deny_logins" example:"bob"`
	// Sessions on one connection: sshd's MaxSessions. A lower limit of the node
	// is noticed and kept.
	MaxSessions int64 `key:"max_sessions" default:"10" check:"1..1000"`
	// Connections that one caller may have to this system.
	MaxConnections int64 `key:"max_connections" default:"4" check:"1..1000"`
	// Logins under way at one node at the same time: below sshd's MaxStartups.
	MaxHandshakes int64 `key:"max_handshakes" default:"8" check:"1..1000"`
	// Commands that may be starting on one node at the same time; those that have run
	// for a moment do not count. 0 finds the number that the node answers soonest;
	// above it callers wait, each user in turn.
	MaxStarts int64 `key:"max_starts" default:"0" check:"0..1000"`
	// Which commands share warm sessions: one worker (a python3 of the node) per caller
	// that runs one command after the other, each a process of its own, which is
	// several times faster than a session for each. "mixed": those that Sallyport
	// itself builds, such as squeue for the FirecREST API; "warm": all; "isolated": none.
	Sessions string `key:"sessions" default:"mixed" check:"mixed|warm|isolated"`
	// A warm session is begun for a caller after so many commands without a pause of 10 s
	// between them: it costs the node some 50 ms of processor time, and 9 MB while it lasts.
	WarmAfter int64 `key:"warm_after" default:"8" check:"0..1000"`
	// How long a login may take.
	ConnectTimeout time.Duration `key:"connect_timeout" default:"10s" check:"1s..2m"`
	// Time of a command when the request names none, and at most.
	DefaultTimeout time.Duration `key:"default_timeout" default:"1m" check:"1s..24h"`
	MaxTimeout     time.Duration `key:"max_timeout" default:"10m" check:"1s..24h"`
	// Time between TERM and KILL when a command is ended.
	Grace time.Duration `key:"grace" default:"5s" check:"1s..5m"`
	// What clients of FirecREST find there, if firecrest.enabled is true.
	FirecREST SystemFirecRESTSection `key:"firecrest"`
}

// FirecRESTSection configures the API of FirecREST v2.
type FirecRESTSection struct {
	// Serve /status, /filesystem and /compute as FirecREST v2 does, for all systems.
	// See docs/firecrest.md.
	Enabled bool `key:"enabled" default:"false"`
	// Bytes of a request body that is read as a whole, such as that of a job with its
	// script.
	MaxBody int64 `key:"max_body" default:"8388608" check:"1024..67108864"`
	// Bytes that an upload or download without a transfer job may have, and that a
	// view shows at a time.
	MaxOpsFileSize int64 `key:"max_ops_file_size" default:"5242880" check:"1024..17179869184"`
	// Object storage between clients and systems, for uploads and downloads by jobs
	// (/filesystem/{system}/transfer/upload and download, method "s3").
	S3 S3Section `key:"s3"`
	// Files through this service, for clients that ask for the method "streamer". See
	// docs/firecrest.md: prefer ops/upload and download, or storage.
	Streamer StreamerSection `key:"streamer"`
}

// StreamerSection configures streams.
type StreamerSection struct {
	// An address for the clients' first request; empty means that there are no streams.
	// It has no TLS, because clients know none: whoever brings the secret of a transfer
	// there is sent to url, where the file goes.
	Listen string `key:"listen" check:"listen" example:"0.0.0.0:5665"`
	// Names or addresses by which clients reach listen.
	PublicHosts []string `key:"public_hosts" example:"sallyport.example.org"`
	// Where clients reach this API, as https://host[:port]. A proxy before it must pass
	// WebSockets.
	URL string `key:"url" check:"url" example:"https://sallyport.example.org"`
	// How long a client has to come.
	WaitTimeout time.Duration `key:"wait_timeout" default:"5m" check:"10s..24h"`
	// Bytes that a file may have that is sent here.
	MaxUpload int64 `key:"max_upload" default:"5368709120" check:"1..1099511627776"`
	// Let a client come from another address than the request for the transfer. The secret
	// can be read on its way to listen, and is then good for whoever is first.
	AnyAddress bool `key:"any_address" default:"false"`
}

// S3Section configures object storage.
type S3Section struct {
	// Where clients reach it, as https://host[:port]; empty means that there is none.
	PublicURL string `key:"public_url" check:"url" example:"https://s3.example.org"`
	// Where this service and the jobs on systems reach it, if that is elsewhere.
	PrivateURL string `key:"private_url" check:"url" example:"https://s3.internal.example.org:9000"`
	// Allow http:// in public_url to an address other than loopback. Files of users, and addresses that
	// are good for them, cross that link in the clear.
	AllowHTTP bool   `key:"allow_http" default:"false"`
	Region    string `key:"region" default:"us-east-1"`
	// A bucket of its own, which must exist, with a lifecycle rule that removes objects and
	// incomplete uploads after some days: nothing else does. Objects are
	// LOGIN/RANDOM/NAME; callers get addresses that are signed for one of them.
	Bucket string `key:"bucket" example:"transfers"`
	// The key that signs them, and a file with its secret, mode 0600. A relative path
	// starts at the folder of the configuration file. Of the bucket it needs PutObject,
	// GetObject and AbortMultipartUpload.
	AccessKeyID   string `key:"access_key_id" example:"sallyport"`
	SecretKeyFile string `key:"secret_key_file" example:"s3.secret"`
	// Bytes of a part. Jobs send a file part by part and repeat one that failed.
	MaxPartSize int64 `key:"max_part_size" default:"1073741824" check:"5242880..5368709120"`
	// How long addresses are good.
	URLLifetime time.Duration `key:"url_lifetime" default:"168h" check:"1m..168h"`
}

// SystemFirecRESTSection says what FirecREST needs to know of a system.
type SystemFirecRESTSection struct {
	// The scheduler whose commands (sbatch, squeue and so on; or qsub, qstat) the
	// login nodes have.
	Scheduler string `key:"scheduler" default:"slurm" check:"slurm|pbs|none"`
	// Its version, for people.
	SchedulerVersion string `key:"scheduler_version" example:"24.11.5"`
	// A folder that file operations may touch. Paths are resolved on the node, links and
	// all, and refused where they lead elsewhere; so are the paths of jobs. The folder, and all
	// above it, must be root's. Repeat the table for more; without one there are no file
	// operations.
	FileSystems []FileSystemSection `key:"file_systems"`
}

// FileSystemSection names a file system.
type FileSystemSection struct {
	// The folder; all below it belongs to it.
	Path string `key:"path" check:"folder" example:"/home"`
	// What the folder is for.
	DataType string `key:"data_type" default:"users" check:"users|store|archive|apps|scratch|project"`
	// Transfer jobs run below this one, in a folder of the caller's name.
	DefaultWorkDir bool `key:"default_work_dir" default:"false"`
}

// StaticKeySection gives a caller a key.
type StaticKeySection struct {
	// The caller: alias of the issuer and "sub" of the token, or its login alone.
	Issuer  string `key:"issuer" check:"alias" example:"centre"`
	Subject string `key:"subject" example:"6f1b9c1e"`
	Login   string `key:"login" check:"login" example:"alice"`
	// The account on the node; the login of the token if empty.
	User string `key:"user" check:"login" example:"alice"`
	// The private key, mode 0600, with its passphrase and certificate if it has
	// them.
	KeyFile         string `key:"key_file" example:"/etc/sallyport/keys/alice"`
	PassphraseFile  string `key:"passphrase_file" example:"/etc/sallyport/keys/alice.pass"`
	CertificateFile string `key:"certificate_file" example:"/etc/sallyport/keys/alice-cert.pub"`
}
