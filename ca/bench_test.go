package ca

import (
	"sync/atomic"
	"testing"
)

// BenchmarkIssue is on the real store and the real audit log: three durable writes
// a certificate, shared among those that wait at one moment.
func BenchmarkIssue(b *testing.B) {
	for name, goroutines := range map[string]int{"1 goroutine": 1, "64 goroutines": 64} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b)
			r := Request{Caller: alice(b), Profile: ProfileExecutor, PublicKey: newPublicKey(b), ephemeral: true}
			var left atomic.Int64
			left.Store(int64(b.N))
			done := make(chan error)
			b.ResetTimer()
			for range goroutines {
				go func() {
					var err error
					for err == nil && left.Add(-1) >= 0 {
						_, err = w.Issue(b.Context(), r)
					}
					done <- err
				}()
			}
			for range goroutines {
				if err := <-done; err != nil {
					b.Error(err)
				}
			}
		})
	}
}
