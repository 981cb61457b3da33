package identity_test

import (
	"fmt"
	"testing"

	"sallyport/identity"
	"sallyport/identity/identitytest"
)

func BenchmarkVerify(b *testing.B) {
	for _, algorithm := range []string{"RS256", "ES256", "EdDSA"} {
		issuer := newIssuer(b, identitytest.Config{Algorithm: algorithm})
		token := mint(b, issuer, nil)
		for name, size := range map[string]int{"cold": -1, "cached": 0} {
			b.Run(fmt.Sprintf("%s/%s", algorithm, name), func(b *testing.B) {
				verifier := newVerifier(b, identity.Config{
					Issuers: []identity.IssuerConfig{issuer.IssuerConfig("test")}, HTTPClient: issuer.Client(), CacheSize: size,
				})
				b.ReportAllocs()
				for b.Loop() {
					if _, err := verifier.Verify(b.Context(), token); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
