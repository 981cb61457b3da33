// Package credential has the ways in which the executor comes to log in as its
// caller: with certificates of the built-in authority, and with keys from the
// configuration. It is the only bridge between ca and executor.
//
// The guarantee: a provider answers for the identity that it is asked about, never
// for a name in a request, and it has either a credential of that identity or
// none.
package credential
