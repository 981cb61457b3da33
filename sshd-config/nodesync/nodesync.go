// Package nodesync brings a CA's trust file and revocation list to a login node, and says what a node has.
//
// The guarantee: a node changes its files only for a manifest that a distribution key signed, that is no older than the one it
// has and than the version that it was told to expect, that has not ended by this node's clock, and whose files were all checked
// by the node's own OpenSSH before the first of them is moved. Each file is replaced by rename, so that a reader sees the old bytes
// or the new ones, also after a crash at any point; a run that was cut short is finished by the next one. What is in place past its
// end stays, with a complaint: trust is never removed because of a date, and never taken up past one.
//
// The threat is whoever sits between the service and the node: a mirror, a proxy, a stale copy. The signature is end to end, so
// that none of them can make a manifest, but each can serve an old one. A node with a manifest of its own takes nothing older. A
// node without (new, or diskless) takes what has not ended yet: at most as old as a manifest lives, and only as well as its clock
// is right, since a clock in the past makes old copies young. A version to expect (Config.AtLeast) leaves it neither, and over plain
// HTTP it must be given. The distribution key is not the CA key: what it signs must hold after the CA was compromised.
//
// The caveat: the node's own root can do anything here, and whoever holds the distribution key decides whom the nodes trust.
// A mirror can hold a node on an old state for as long as it likes; the manifest's end makes that visible, no more.
//
// The POSIX shell script beside this package in sshd-config behaves the same; both pass one test-suite (cmd/sallyport).
package nodesync

// Names of the files in a node's folder, as sshd and the operator see them.
const (
	TrustFile      = "trusted_user_ca_keys" // sshd's TrustedUserCAKeys
	RevocationFile = "revoked.krl"          // sshd's RevokedKeys
	ManifestFile   = "manifest.json"
	SignatureFile  = "manifest.json.sig"
	SignersFile    = "distribution_signers" // whose signatures count, in the form of ssh-keygen's ALLOWED SIGNERS
)

// Paths of the same on the service.
const (
	ManifestPath   = "/v1/ca/manifest"
	SignaturePath  = "/v1/ca/manifest.sig"
	TrustPath      = "/v1/ca/trusted-user-ca-keys"
	RevocationPath = "/v1/ca/revoked-keys"
)

// What a signature over a manifest is made for (ssh-keygen -Y sign -n, -Y verify -I).
const (
	Namespace = "sallyport-manifest"
	Principal = "sallyport-distribution"
)

// Limits, in bytes, of what is read from a service or a folder.
const (
	MaxManifest  = 64 << 10
	MaxSignature = 8 << 10
	MaxFile      = 16 << 20
)
