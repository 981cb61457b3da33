//go:build !race

package executor_test

// people is how many connections are open when they are closed.
const people = 1000
