package identity

// A RefusalError is the error for a token whose signature was good: it says whose
// token was refused. An error without it is about a token that anybody could
// have made.
type RefusalError struct {
	// Issuer is the alias of the identity provider that signed the token.
	Issuer string
	// Subject is the token's "sub" claim, or "" if that is missing, longer than 255
	// bytes or not printable.
	Subject string
	// Err is the reason; it wraps one of the sentinels of this package.
	Err error
}

// Error is the text of the reason alone.
func (r *RefusalError) Error() string { return r.Err.Error() }

// Unwrap makes the sentinel visible.
func (r *RefusalError) Unwrap() error { return r.Err }
