//go:build race

package executor_test

// people is less than 1000 here: the race detector makes each login ten times as
// slow, and the time that counts is that of the product.
const people = 150
