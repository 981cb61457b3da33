package main

import "time"

// ServerSection configures the public listener.
type ServerSection struct {
	// Address of the REST API.
	Listen string `key:"listen" default:"127.0.0.1:8080" check:"listen"`
	// PEM files of the TLS certificate chain and its key. Both are read again
	// when they change. Without them the API speaks plain HTTP.
	TLSCertificate string `key:"tls_certificate" example:"/etc/sallyport/tls.crt"`
	TLSKey         string `key:"tls_key" example:"/etc/sallyport/tls.key"`
	// How long clients that came by TLS shall come by TLS alone
	// (Strict-Transport-Security), for this host name on every port; 0s does not say.
	HSTSMaxAge time.Duration `key:"hsts_max_age" default:"8760h" check:"0s..17520h"`
	// Addresses under which clients know the service, for those who prove a key with
	// their token (DPoP): a proof names the address that it is for. Needed behind a
	// proxy. Without any they are those of the TLS certificate, or of loopback.
	PublicURLs []string `key:"public_urls" check:"url" example:"https://sallyport.example.org"`
	// Ask clients for a TLS certificate, for tokens that are bound to one (RFC 8705).
	// It need not be signed by anybody: a token names it by its digest. Needs
	// tls_certificate, and clients that reach this process without a proxy in between.
	ClientCertificates bool `key:"client_certificates" default:"false"`
	// Allow plain HTTP on an address other than loopback, because a proxy in
	// front ends TLS. Tokens cross that link in the clear.
	PlainHTTP bool `key:"plain_http" default:"false"`
	// Networks whose X-Forwarded-For is believed.
	TrustedProxies []string `key:"trusted_proxies" check:"cidr" example:"10.0.0.0/8"`
	// Networks of login nodes and mirrors, which fetch the list of revoked keys and the
	// keys to trust: their requests and connections go before those of strangers. The
	// addresses in the nodes of all systems belong to them in any case.
	NodeNetworks []string `key:"node_networks" check:"cidr" example:"10.1.0.0/16"`
	// Connections at the same time, and those of one address that have shown no good
	// token; an address that has may have four times as many. There are never more than
	// three quarters of the files that the process may open, nor more of one address
	// than a quarter of that. Above it, connections without a token go first.
	MaxConnections           int64 `key:"max_connections" default:"8192" check:"16..1000000"`
	MaxConnectionsPerAddress int64 `key:"max_connections_per_address" default:"1024" check:"1..1000000"`
	// Requests in one connection of HTTP/2; more are refused.
	MaxStreams int64 `key:"max_streams" default:"100" check:"1..1000"`
	// Requests without a good token served at the same time: so many for the files that
	// nodes trust, and as many for all the rest; and those of one address among them.
	// Above it, those go first whose clients do not read; then more get 503.
	MaxAnonymous           int64 `key:"max_anonymous" default:"1024" check:"16..100000"`
	MaxAnonymousPerAddress int64 `key:"max_anonymous_per_address" default:"128" check:"1..100000"`
	// Requests with a good token served at the same time; more get 503 with Retry-After.
	MaxInFlight int64 `key:"max_in_flight" default:"1024" check:"1..100000"`
	// Requests of one caller among them; more get 429 with Retry-After.
	MaxInFlightPerCaller int64 `key:"max_in_flight_per_caller" default:"256" check:"1..100000"`
	// Bytes of a request body for exec, standard input included.
	MaxBody int64 `key:"max_body" default:"1048576" check:"1024..67108864"`
	// How long running requests may finish after SIGTERM.
	DrainTimeout time.Duration `key:"drain_timeout" default:"30s" check:"0s..1h"`
	// Unix socket of the admin commands, mode 0600. A relative path starts at
	// data_dir.
	AdminSocket string `key:"admin_socket" default:"admin.sock"`
	// Confine the process while it serves (Landlock, seccomp): "on" as far as the kernel
	// can, "require" or do not serve, which takes Linux 6.12, "off" not at all.
	Sandbox string `key:"sandbox" default:"on" check:"on|require|off"`
}
