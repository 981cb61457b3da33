package main

import "time"

// OpenFGASection configures an OpenFGA server.
type OpenFGASection struct {
	// Its address; empty means that there is none. Of a call for a system it is asked
	// whether USER_TYPE:LOGIN has RELATION to OBJECT_TYPE:SYSTEM. Nothing is allowed
	// while it does not answer.
	URL string `key:"url" check:"url" example:"https://openfga.example.org"`
	// Allow http:// to an address other than loopback. Who is on the way can read its
	// token there, and allow anything to anybody.
	AllowHTTP bool `key:"allow_http" default:"false"`
	// Ids of the store, and of the authorization model if it is not to be the latest.
	Store string `key:"store" example:"01JQ3V0000000000000000STRE"`
	Model string `key:"model" example:"01JQ3V0000000000000000MDEL"`
	// File with the token that the server wants, mode 0600. Callers' tokens are never
	// sent. A relative path starts at the folder of the configuration file.
	TokenFile string `key:"token_file" example:"/etc/sallyport/openfga.token"`
	// The question.
	Relation   string `key:"relation" default:"member"`
	UserType   string `key:"user_type" default:"user"`
	ObjectType string `key:"object_type" default:"system"`
	// The question about calls for no system, whether USER_TYPE:LOGIN has SERVICE_RELATION
	// to SERVICE_TYPE:SERVICE, and that about certificates, which are good on every
	// system: CERTIFICATE_RELATION to the same. The model must have them: docs/policy.md.
	ServiceType         string `key:"service_type" default:"service"`
	Service             string `key:"service" default:"sallyport"`
	ServiceRelation     string `key:"service_relation" default:"member"`
	CertificateRelation string `key:"certificate_relation" default:"certificate_holder"`
	// How long an answer may take.
	Timeout time.Duration `key:"timeout" default:"1s" check:"10ms..30s"`
	// How long a yes is believed, and so how late a relation that was taken away bites;
	// 0s asks each time. A no is never remembered.
	Remember time.Duration `key:"remember" default:"10s" check:"0s..5m"`
}
