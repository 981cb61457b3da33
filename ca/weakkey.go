package ca

import (
	"crypto/ed25519"
	"math/big"
	"slices"
)

// The field and the curve constant of edwards25519 (RFC 8032 §5.1).
var (
	fieldPrime = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	curveD     = divide(big.NewInt(-121665), big.NewInt(121666))
	smallYs    = torsion()
)

func divide(a, b *big.Int) *big.Int {
	return modP(new(big.Int).Mul(a, new(big.Int).ModInverse(b, fieldPrime)))
}

func modP(a *big.Int) *big.Int { return a.Mod(a, fieldPrime) }

// torsion lists the y coordinates of the eight points whose order divides 8.
func torsion() []*big.Int {
	y8, ok := new(big.Int).SetString("2707385501144840649318225287225658788936804267575313519463743609750303402022", 10)
	if !ok {
		panic("a constant is not a number")
	}
	return []*big.Int{
		big.NewInt(0), big.NewInt(1), new(big.Int).Sub(fieldPrime, big.NewInt(1)),
		y8, new(big.Int).Sub(fieldPrime, y8),
	}
}

// checkEd25519 demands the canonical encoding of a curve point of large order. A
// signature under a point of small order needs no private key: R = [s]B fits at
// least every eighth message. Neither x/crypto nor OpenSSH looks for it.
func checkEd25519(key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize {
		return badKey("ed25519 key has %d bytes, not %d", len(key), ed25519.PublicKeySize)
	}
	encoded := slices.Clone(key)
	encoded[31] &= 0x7f // the sign of x (RFC 8032 §5.1.2)
	slices.Reverse(encoded)
	y := new(big.Int).SetBytes(encoded)
	if y.Cmp(fieldPrime) >= 0 {
		return badKey("ed25519 key is not canonical")
	}
	if slices.ContainsFunc(smallYs, func(small *big.Int) bool { return small.Cmp(y) == 0 }) {
		return badKey("ed25519 key is a point of small order, which anybody can sign for")
	}
	// x² = (y²-1)/(dy²+1) has a root if (y²-1)(dy²+1) has one: that is the quotient
	// times a square, which is not 0, for -1/d has no root and y is not ±1.
	one, square := big.NewInt(1), modP(new(big.Int).Mul(y, y))
	above := new(big.Int).Sub(square, one)
	below := modP(new(big.Int).Add(new(big.Int).Mul(curveD, square), one))
	if big.Jacobi(modP(above.Mul(above, below)), fieldPrime) != 1 {
		return badKey("ed25519 key is not a point of the curve")
	}
	return nil
}

// fermatRounds finds primes whose distance is up to about 20·n^¼: those of broken
// generators differ by far less (CVE-2022-26320), those of sound ones by n^½.
const fermatRounds = 100

// hasCloseFactors tries Fermat's factorisation: n = a²-b² with a just above √n. A
// perfect square is the case b = 0.
func hasCloseFactors(n *big.Int) bool {
	a := new(big.Int).Sqrt(n)
	if new(big.Int).Mul(a, a).Cmp(n) == 0 {
		return true
	}
	a.Add(a, big.NewInt(1))
	var b2, root, again, step big.Int
	b2.Sub(b2.Mul(a, a), n)
	for range fermatRounds {
		root.Sqrt(&b2)
		if again.Mul(&root, &root).Cmp(&b2) == 0 {
			return true
		}
		b2.Add(&b2, step.Lsh(a, 1)).Add(&b2, big.NewInt(1)) // (a+1)² = a²+2a+1
		a.Add(a, big.NewInt(1))
	}
	return false
}
