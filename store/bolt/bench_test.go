package bolt

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"sallyport/store"
)

func BenchmarkPut(b *testing.B) {
	for _, goroutines := range []int{1, 64} {
		b.Run("goroutines="+strconv.Itoa(goroutines), func(b *testing.B) {
			db := open(b)
			value := make([]byte, 500) // about a ledger entry
			expires := time.Now().Add(time.Hour)
			b.ReportAllocs()
			var wg sync.WaitGroup
			for g := range goroutines {
				wg.Go(func() {
					for i := range (b.N + g) / goroutines {
						mustPut(b, db, store.Entry{Key: "bench/" + strconv.Itoa(g) + "/" + strconv.Itoa(i), Value: value, Expires: expires})
					}
				})
			}
			wg.Wait()
		})
	}
}

func BenchmarkGet(b *testing.B) {
	db := open(b)
	e := mustPut(b, db, store.Entry{Key: "bench", Value: make([]byte, 500)})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := db.Get(b.Context(), e.Key); err != nil {
			b.Fatal(err)
		}
	}
}
