package ca

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"slices"
	"testing"

	"golang.org/x/crypto/ssh"
)

// A point is one of edwards25519 in affine coordinates.
type point struct{ x, y *big.Int }

// add is the complete addition law (RFC 8032 §5.1.4).
func (p point) add(q point) point {
	mul := func(factors ...*big.Int) *big.Int {
		product := big.NewInt(1)
		for _, f := range factors {
			modP(product.Mul(product, f))
		}
		return product
	}
	one, cross := big.NewInt(1), mul(curveD, p.x, q.x, p.y, q.y)
	return point{
		divide(new(big.Int).Add(mul(p.x, q.y), mul(p.y, q.x)), new(big.Int).Add(one, cross)),
		divide(new(big.Int).Add(mul(p.y, q.y), mul(p.x, q.x)), new(big.Int).Sub(one, cross)),
	}
}

func (p point) times(n *big.Int) point {
	sum := point{big.NewInt(0), big.NewInt(1)}
	for i := n.BitLen() - 1; i >= 0; i-- {
		sum = sum.add(sum)
		if n.Bit(i) == 1 {
			sum = sum.add(p)
		}
	}
	return sum
}

// pointAt is the point with this y and an even or odd x, if there is one.
func pointAt(y int64, odd uint) (point, bool) {
	one, square := big.NewInt(1), big.NewInt(y*y)
	x2 := divide(new(big.Int).Sub(square, one), new(big.Int).Add(new(big.Int).Mul(curveD, square), one))
	x := new(big.Int).ModSqrt(x2, fieldPrime)
	if x == nil {
		return point{}, false
	}
	if x.Bit(0) != odd {
		x.Sub(fieldPrime, x)
	}
	return point{x, big.NewInt(y)}, true
}

func encodePoint(y *big.Int, odd byte) []byte {
	encoded := y.FillBytes(make([]byte, 32))
	slices.Reverse(encoded)
	encoded[31] |= odd << 7
	return encoded
}

// TestTheListOfSmallOrderPointsIsComplete computes it: a point times the order of
// the large subgroup is one of the eight, and each comes up for some point.
func TestTheListOfSmallOrderPointsIsComplete(t *testing.T) {
	t.Parallel()
	l, _ := new(big.Int).SetString("27742317777372353535851937790883648493", 10)
	l.Add(l, new(big.Int).Lsh(big.NewInt(1), 252)) // RFC 8032 §5.1
	found := make(map[string]bool)
	points := make(map[string]bool)
	for y := int64(2); y < 200 && len(points) < 8; y++ {
		for odd := range uint(2) {
			p, ok := pointAt(y, odd)
			if !ok {
				continue
			}
			small := p.times(l)
			found[small.y.String()] = true
			points[small.x.String()+","+small.y.String()] = true
			if identity := small.times(big.NewInt(8)); identity.x.Sign() != 0 || identity.y.Cmp(big.NewInt(1)) != 0 {
				t.Fatalf("the point with y = %d has an order of its own", y)
			}
		}
	}
	if len(points) != 8 || len(found) != len(smallYs) {
		t.Errorf("%d points with %d values of y came up, want 8 with %d", len(points), len(found), len(smallYs))
	}
	for _, y := range smallYs {
		if !found[y.String()] {
			t.Errorf("y = %v is listed and is not that of a point of small order", y)
		}
	}
}

// bothKinds writes an ed25519 key as a plain one and as a security key's.
func bothKinds(key []byte) []string {
	return []string{
		forge(ssh.KeyAlgoED25519, struct{ Key []byte }{key}),
		forge(ssh.KeyAlgoSKED25519, struct {
			Key         []byte
			Application string
		}{key, "ssh:"}),
	}
}

func TestEd25519KeysThatNeedNoPrivateKeyAreRefused(t *testing.T) {
	t.Parallel()
	bad := map[string][]byte{"nothing but ones": bytes.Repeat([]byte{0xff}, 32), "all zero": make([]byte, 32)}
	for _, y := range smallYs {
		bad["small order, y = "+y.String()] = encodePoint(y, 0)
		bad["small order, odd x, y = "+y.String()] = encodePoint(y, 1)
	}
	for above := range int64(19) { // p to 2^255-1
		y := new(big.Int).Add(fieldPrime, big.NewInt(above))
		bad["not canonical, "+y.String()] = encodePoint(y, 0)
		bad["not canonical, odd x, "+y.String()] = encodePoint(y, 1)
	}
	for y := int64(2); y < 30; y++ {
		if _, ok := pointAt(y, 0); !ok {
			bad["off the curve, y = "+big.NewInt(y).String()] = encodePoint(big.NewInt(y), 0)
		}
	}
	for name, key := range bad {
		for _, text := range bothKinds(key) {
			if _, err := ParsePublicKey(text); err == nil {
				t.Errorf("%s: was taken: %s", name, text)
			} else {
				wantCode(t, err, CodePublicKey)
			}
		}
	}
}

// TestTheIdentityPointSignsWithoutAPrivateKey shows what the refusal is for.
func TestTheIdentityPointSignsWithoutAPrivateKey(t *testing.T) {
	t.Parallel()
	identity := encodePoint(big.NewInt(1), 0)
	if !ed25519.Verify(identity, []byte("anything"), append(slices.Clone(identity), make([]byte, 32)...)) {
		t.Error("the forged signature is refused: the check has lost its reason")
	}
	if _, err := checkPublicKey(sshKey(t, ed25519.PublicKey(identity))); err == nil {
		t.Error("the identity point was taken as a key object")
	} else {
		wantCode(t, err, CodePublicKey)
	}
}

func TestRealEd25519KeysAreAccepted(t *testing.T) {
	t.Parallel()
	for range 200 {
		key, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range bothKinds(key) {
			if _, err := ParsePublicKey(text); err != nil {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
}

// nextPrime is the first prime from n on.
func nextPrime(n *big.Int) *big.Int {
	p := new(big.Int).SetBit(n, 0, 1)
	for hasSmallFactor(p) || !p.ProbablyPrime(1) {
		p.Add(p, big.NewInt(2))
	}
	return p
}

func TestRSAModuliOfClosePrimesAreRefused(t *testing.T) {
	t.Parallel()
	start, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 1534))
	if err != nil {
		t.Fatal(err)
	}
	start.SetBit(start, 1535, 1).SetBit(start, 1534, 1)
	p := nextPrime(start)
	next := nextPrime(new(big.Int).Add(p, big.NewInt(2)))
	far := new(big.Int).Add(p, new(big.Int).Lsh(big.NewInt(1), 760)) // n^¼ is about 2^768
	for name, q := range map[string]*big.Int{"a prime squared": p, "the next prime": next, "half of the bits alike": nextPrime(far)} {
		_, err := ParsePublicKey(forgeRSA(f4, new(big.Int).Mul(p, q)))
		if err == nil {
			t.Errorf("%s: was taken", name)
			continue
		}
		wantCode(t, err, CodePublicKey)
	}
}

func TestRealRSAKeysAreAccepted(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePublicKey(line(sshKey(t, &key.PublicKey))); err != nil {
		t.Error(err)
	}
}

func BenchmarkCheckLargestRSAKey(b *testing.B) {
	key := &rsa.PublicKey{N: modulus(b, 8192), E: 65537}
	for b.Loop() {
		if err := checkRSA(key); err != nil {
			b.Fatal(err)
		}
	}
}
