package audit

import (
	"strconv"
	"sync"
	"testing"
)

func BenchmarkRecord(b *testing.B) {
	for _, goroutines := range []int{1, 64} {
		b.Run("goroutines="+strconv.Itoa(goroutines), func(b *testing.B) {
			l := openLog(b, Config{Dir: privateDir(b, b.TempDir())})
			e := Event{
				Action: ExecStart, Outcome: Unknown, Issuer: "campus", Subject: "f3a1", Login: "alice",
				System: "daint", Node: "login1:22", Detail: map[string]string{"serial": "4711"},
			}
			b.ReportAllocs()
			var wg sync.WaitGroup
			for i := range goroutines {
				wg.Go(func() {
					for range (b.N + i) / goroutines {
						mustRecord(b, l, b.Context(), e)
					}
				})
			}
			wg.Wait()
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	dir := privateDir(b, b.TempDir())
	fill(b, dir, 10_000, 1<<20)
	b.ResetTimer()
	var events uint64
	for b.Loop() {
		events += verify(b, dir).Events
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}
